//! Privileges of the program: ids, capabilities, filters, limits.

use crate::fixture::{Done, new_id, read, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::process::Command;

fn sets(config: &mut Value, sets: &[(&str, &[&str])]) {
    config["process"]["capabilities"] = json!({});
    for (set, names) in sets {
        let names: Vec<String> = names.iter().map(|name| format!("CAP_{name}")).collect();
        config["process"]["capabilities"][set] = json!(names);
    }
}

/// A line of `/proc/self/status`.
fn status(done: &Done, name: &str) -> String {
    let line = done.out.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {done:?}")).trim().to_owned()
}

fn masks(done: &Done) -> [u64; 5] {
    ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"]
        .map(|name| u64::from_str_radix(&status(done, name), 16).unwrap())
}

const STATUS: &str = "cat /proc/self/status";
const KILL: u64 = 1 << 5;
const SETUID: u64 = 1 << 7;
const NET_RAW: u64 = 1 << 13;

#[test]
fn capabilities_are_those_of_the_sets() {
    let fixture = fixture!();
    let all: &[&str] = &["KILL", "SETUID", "NET_RAW"];
    let every = KILL | SETUID | NET_RAW;
    let given = [("bounding", all), ("permitted", all), ("effective", all)];
    let run = |uid: u32, lists: &[(&str, &[&str])]| {
        let done = fixture.sh(STATUS, |c| {
            sets(c, lists);
            c["process"]["noNewPrivileges"] = json!(false);
            c["process"]["user"] = json!({"uid": uid, "gid": uid});
        });
        assert_eq!(done.code, 0, "{done:?}");
        masks(&done)
    };
    // After exec root has the bounding set, regardless of the other sets.
    assert_eq!(run(0, &given), [every, every, every, 0, 0]);
    assert_eq!(run(0, &[("bounding", all)]), [every, every, every, 0, 0]);
    assert_eq!(run(0, &[]), [0; 5]);
    // Other users keep the ambient set over exec, and nothing else.
    assert_eq!(run(1000, &given), [every, 0, 0, 0, 0]);
    let ambient: &[&str] = &["KILL"];
    let lists = [&given[..], &[("inheritable", ambient), ("ambient", ambient)]].concat();
    assert_eq!(run(1000, &lists), [every, KILL, KILL, KILL, KILL]);
    // No sets at all are empty ones.
    let done = fixture.sh("cat /proc/self/status", |c| {
        c["process"].as_object_mut().unwrap().remove("capabilities");
    });
    assert_eq!(masks(&done), [0; 5]);
}

#[test]
fn capabilities_act() {
    let fixture = fixture!();
    let command = "chown 5 /tmp/file 2>/dev/null && echo chown; mount -t tmpfs t /tmp 2>/dev/null && echo mount; hostname x 2>/dev/null && echo name";
    for (names, out) in [(&[][..], ""), (&["CHOWN"], "chown\n"), (&["SYS_ADMIN"], "mount\nname\n")] {
        let mut bundle = fixture.bundle(command);
        fs::write(bundle.rootfs().join("tmp/file"), "").unwrap();
        sets(&mut bundle.config, &[("bounding", names), ("permitted", names), ("effective", names)]);
        assert_eq!(fixture.run(&bundle).out, out, "{names:?}");
    }
}

#[test]
fn no_new_privileges() {
    let fixture = fixture!();
    for (wanted, shown) in [(json!(true), "1"), (json!(false), "0"), (Value::Null, "0")] {
        let done = fixture.sh(STATUS, |c| {
            if wanted.is_null() {
                c["process"].as_object_mut().unwrap().remove("noNewPrivileges");
            } else {
                c["process"]["noNewPrivileges"] = wanted.clone();
            }
        });
        assert_eq!(status(&done, "NoNewPrivs"), shown);
    }
}

#[test]
fn uids_and_gids() {
    let fixture = fixture!();
    let done = fixture.sh(
        "id -u; id -g; id -G; echo $HOME; umask; touch /tmp/new && stat -c %a:%u:%g /tmp/new",
        |c| {
            c["process"]["user"] =
                json!({"uid": 1000, "gid": 1001, "additionalGids": [50, 60], "umask": 0o27});
            add_tmp(c);
        },
    );
    assert_eq!(done.out, "1000\n1001\n1001 50 60\n/home/app\n0027\n640:1000:1001\n", "{done:?}");
    let done = fixture.sh("id -u; id -g; id -G; echo $HOME; umask", |c| {
        c["process"]["user"] = json!({"uid": 12345, "gid": 54321});
    });
    assert_eq!(done.out, "12345\n54321\n54321\n/\n0022\n", "{done:?}");
    let done = fixture.sh("echo $HOME $A; pwd", |c| {
        c["process"]["env"] = json!(["PATH=/bin", "HOME=/elsewhere", "A=1", "A=2"]);
        c["process"]["cwd"] = json!("/made/here");
    });
    assert_eq!(done.out, "/elsewhere 2\n/made/here\n", "{done:?}");
}

fn add_tmp(config: &mut Value) {
    let tmp = json!({"destination": "/tmp", "type": "tmpfs", "options": ["mode=1777"]});
    config["mounts"].as_array_mut().unwrap().push(tmp);
}

fn filter(config: &mut Value, default: &str, rules: Value) {
    config["linux"]["seccomp"] = json!({
        "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules,
    });
}

#[test]
fn filters_answer_calls() {
    let fixture = fixture!();
    let run = |command: &str, rule: Value| {
        fixture.sh(command, |c| {
            filter(c, "SCMP_ACT_ALLOW", json!([rule]));
            add_tmp(c);
        })
    };
    let mkdir = json!(["mkdir", "mkdirat"]);
    let command = "mkdir /tmp/a; echo $?; grep Seccomp: /proc/self/status";
    let done = run(command, json!({"names": mkdir, "action": "SCMP_ACT_ERRNO"}));
    assert!(
        done.out.ends_with("1\nSeccomp:\t2\n") && done.err.contains("Operation not permitted"),
        "{done:?}"
    );
    let done = run(command, json!({"names": mkdir, "action": "SCMP_ACT_ERRNO", "errnoRet": 28}));
    assert!(done.err.contains("No space left on device"), "{done:?}");
    // Without a tracer a call that is to be traced is unknown.
    let done = run(command, json!({"names": mkdir, "action": "SCMP_ACT_TRACE", "errnoRet": 28}));
    assert!(done.err.contains("Function not implemented"), "{done:?}");
    let done = run(command, json!({"names": mkdir, "action": "SCMP_ACT_LOG"}));
    assert!(done.out.starts_with("0\n") && done.err.is_empty(), "{done:?}");
    // 31 is SIGSYS; the shell reports it as 128 + 31.
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"] {
        let done = run(command, json!({"names": mkdir, "action": action}));
        assert!(done.out.starts_with("159\n"), "{action}: {done:?}");
    }
    // A killed process is reported like any program.
    let done = run("exec mkdir /tmp/a", json!({"names": mkdir, "action": "SCMP_ACT_KILL_PROCESS"}));
    assert_eq!(done.code, 159, "{done:?}");
    // By argument: the mode of mkdir(2).
    let args = json!([{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}]);
    let done = run(
        "mkdir -m 700 /tmp/a; mkdir /tmp/b; ls /tmp",
        json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": args}),
    );
    assert!(done.out == "b\n" || done.out == "a\nb\n", "{done:?}");
}

/// A program for x86_64 that makes one call without arguments and ends with its errno.
fn caller(number: u32) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    // syscall; neg eax; mov edi, eax; mov eax, 60 (exit); syscall
    code.extend([0x0f, 0x05, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // One segment that is loaded, readable and executable.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// Calls newer than the profile are unknown, not forbidden: libraries then do it the old way.
#[test]
fn newer_calls_are_unknown() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = fixture!();
    if std::env::consts::ARCH != "x86_64" {
        skip!("the program is for x86_64");
    }
    let mut bundle = fixture.bundle("");
    let program = bundle.rootfs().join("bin/caller");
    bundle.config["process"]["args"] = json!(["/bin/caller"]);
    let names = json!(["execve", "exit", "getppid"]);
    for (number, errno) in [(110, 0), (83, 1), (1000, 38), (100_000, 38)] {
        fs::write(&program, caller(number)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        filter(&mut bundle.config, "SCMP_ACT_ERRNO", json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]));
        let done = fixture.run(&bundle);
        assert_eq!((done.code, done.err.as_str()), (errno, ""), "call {number}");
        // Without a filter the kernel returns the same error.
        bundle.config["linux"].as_object_mut().unwrap().remove("seccomp");
        let unknown = if number >= 1000 { 38 } else { 0 };
        let done = fixture.run(&bundle);
        assert!(done.code == unknown || number == 83, "call {number}: {done:?}");
    }
}

#[test]
fn a_list_of_calls_is_all_there_are() {
    let fixture = fixture!();
    let done = fixture.sh("mkdir /tmp/a", |c| {
        // Everything that a shell and mkdir need, but mkdir.
        let names = json!([
            "access",
            "arch_prctl",
            "brk",
            "capget",
            "capset",
            "chdir",
            "clone",
            "clone3",
            "close",
            "dup2",
            "execve",
            "exit",
            "exit_group",
            "fcntl",
            "fork",
            "fstat",
            "futex",
            "getcwd",
            "getegid",
            "geteuid",
            "getgid",
            "getpid",
            "getppid",
            "getrandom",
            "getuid",
            "ioctl",
            "mmap",
            "mprotect",
            "munmap",
            "newfstatat",
            "open",
            "openat",
            "prctl",
            "prlimit64",
            "read",
            "readlink",
            "readlinkat",
            "rseq",
            "rt_sigaction",
            "rt_sigprocmask",
            "rt_sigreturn",
            "sendmsg",
            "set_robust_list",
            "set_tid_address",
            "setgid",
            "setgroups",
            "setresgid",
            "setresuid",
            "setuid",
            "stat",
            "statx",
            "umask",
            "uname",
            "vfork",
            "wait4",
            "write",
            "writev",
            "faccessat2",
            "seccomp",
            "chmod",
            "lseek",
            "sigaltstack",
        ]);
        filter(c, "SCMP_ACT_ERRNO", json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]));
        c["linux"]["seccomp"]["architectures"] = json!([]);
        add_tmp(c);
    });
    assert!(done.err.contains("can't create directory '/tmp/a': Operation not permitted"), "{done:?}");
}

/// The agent that answers for calls gets the listener, and is asked while the call waits.
#[test]
fn an_agent_is_asked() {
    let fixture = fixture!();
    for created in [false, true] {
        let socket = fixture.path().join(new_id("agent"));
        let agent = UnixListener::bind(&socket).unwrap();
        let mut bundle = fixture.bundle("mkdir /tmp/a; echo $?");
        filter(
            &mut bundle.config,
            "SCMP_ACT_ALLOW",
            json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]),
        );
        bundle.config["linux"]["seccomp"]["listenerPath"] = json!(socket);
        bundle.config["linux"]["seccomp"]["listenerMetadata"] = json!("told");
        let id = new_id("asked");
        let child = if created {
            assert_eq!(fixture.detached(&["create", "--bundle", bundle.write(), &id]).code, 0);
            assert_eq!(fixture.detached(&["start", &id]).code, 0);
            None
        } else {
            Some(fixture.spawn(&bundle, &id))
        };
        let (connection, _) = agent.accept().unwrap();
        let (text, fds) = receive(&connection);
        let state: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
        assert_eq!(state["metadata"], "told");
        assert_eq!(state["state"]["id"], json!(id));
        assert_eq!(state["state"]["bundle"], json!(bundle.dir));
        assert!(state["pid"].as_i64().unwrap() > 1);
        let [listener] = <[OwnedFd; 1]>::try_from(fds).unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        assert_eq!(link.to_str(), Some("anon_inode:seccomp notify"));
        // The call waits to be answered; without an agent it is unknown.
        let mut polled = [PollFd::new(&listener, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&timeout)), Ok(1), "nobody asks");
        assert_eq!(fixture.state(&id)["status"], "running");
        drop(listener);
        match child {
            Some(child) => {
                let done = Done::of(&child.wait_with_output().unwrap());
                assert!(done.err.contains("Function not implemented"), "{done:?}");
            }
            None => wait_until("it ends", || fixture.state(&id)["status"] == "stopped"),
        }
    }
}

fn receive(connection: &std::os::unix::net::UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut text = vec![0u8; 64 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(&mut text)];
    let received = rustix::net::recvmsg(connection, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    text.truncate(received.bytes);
    (text, fds)
}

#[test]
fn limits_of_resources() {
    let fixture = fixture!();
    let done = fixture.sh("cat /proc/self/limits", |c| {
        c["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_CPU", "soft": 1000, "hard": 2000},
            {"type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 2_000_000},
            {"type": "RLIMIT_NPROC", "soft": 500, "hard": 600},
        ]);
    });
    let limit = |name: &str| {
        let line = done.out.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<&str> = line[name.len()..].split_whitespace().collect();
        (words[0].to_owned(), words[1].to_owned())
    };
    for (name, soft, hard) in [
        ("Max open files", "100", "200"),
        ("Max core file size", "0", "0"),
        ("Max cpu time", "1000", "2000"),
        ("Max file size", "1000000", "2000000"),
        ("Max processes", "500", "600"),
    ] {
        assert_eq!(limit(name), (soft.to_owned(), hard.to_owned()), "{name}");
    }
}

/// Default limits of engines are lowered where raising limits is not allowed.
#[test]
fn blanket_limits_are_lowered() {
    let fixture = fixture!();
    let own = |name: &str| {
        let text = read("/proc/self/limits");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line[name.len()..].split_whitespace().nth(1).unwrap().to_owned()
    };
    let effective = u64::from_str_radix(
        read("/proc/self/status").lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim(),
        16,
    )
    .unwrap();
    const SYS_RESOURCE: u64 = 1 << 24;
    for (name, wanted) in [("NOFILE", 1_048_576_u64), ("NPROC", 4_194_304), ("NOFILE", u64::MAX)] {
        let done = fixture.sh("ulimit -Hn; ulimit -n; ulimit -Hu 2>/dev/null", |c| {
            c["process"]["rlimits"] =
                json!([{"type": format!("RLIMIT_{name}"), "soft": wanted, "hard": wanted}]);
        });
        assert_eq!(done.err, "", "{done:?}");
        if effective & SYS_RESOURCE == 0 && name == "NOFILE" {
            assert_eq!(done.out.lines().next(), Some(own("Max open files").as_str()), "{done:?}");
        }
    }
}

#[test]
fn the_score_for_being_killed() {
    let fixture = fixture!();
    for (score, users) in [(500, false), (1000, false), (700, true)] {
        let done = fixture.sh("cat /proc/self/oom_score_adj", |c| {
            c["process"]["oomScoreAdj"] = json!(score);
            if users {
                c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                for map in ["uidMappings", "gidMappings"] {
                    c["linux"][map] = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
                }
            }
        });
        assert_eq!((done.out.trim(), done.err.as_str()), (score.to_string().as_str(), ""));
    }
}

#[test]
fn scheduling_attributes_are_set() {
    let fixture = fixture!();
    // Fields of stat: nice, real-time priority, policy.
    let fields = "cut -d' ' -f19,40,41 /proc/self/stat; true";
    for (scheduler, shown) in [
        (json!({"policy": "SCHED_BATCH", "nice": 5}), "5 0 3"),
        (json!({"policy": "SCHED_IDLE"}), " 0 5"),
        (json!({"policy": "SCHED_FIFO", "priority": 7}), "7 1"),
        (json!({"policy": "SCHED_RR", "priority": 3}), "3 2"),
        (json!({"policy": "SCHED_OTHER", "nice": 9}), "9 0 0"),
        (json!({"policy": "SCHED_FIFO", "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}), "0 0 0"),
    ] {
        // Without cgroups: those of version 1 have no real-time budget.
        let mut bundle = fixture.bundle(fields);
        bundle.config["process"]["scheduler"] = scheduler.clone();
        let id = new_id("scheduled");
        let done = fixture.oci(&["--cgroup-manager", "disabled", "run", "--bundle", bundle.write(), &id]);
        if done.err.contains("operation not permitted") {
            eprintln!("SKIPPED: {scheduler}: {}", done.err);
            continue;
        }
        assert!(done.out.trim().ends_with(shown) && done.err.is_empty(), "{scheduler}: {done:?}");
    }
    for (class, level, shown) in
        [("BE", 6, "best-effort: prio 6"), ("IDLE", 0, "idle"), ("RT", 2, "realtime: prio 2")]
    {
        let done = fixture.sh("ionice -p $$", |c| {
            c["process"]["ioPriority"] = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": level});
        });
        assert!(done.out.trim().starts_with(shown), "{class}: {done:?}");
    }
    let done = fixture.sh("uname -m; cat /proc/self/personality", |c| {
        c["linux"]["personality"] = json!({"domain": "LINUX32"})
    });
    assert_eq!(done.out.lines().nth(1), Some("00000008"), "{done:?}");
    for mode in ["MPOL_DEFAULT", "MPOL_LOCAL"] {
        let done = fixture.sh("echo fine", |c| c["linux"]["memoryPolicy"] = json!({"mode": mode}));
        assert_eq!((done.out.as_str(), done.err.as_str()), ("fine\n", ""), "{mode}");
    }
    let done = fixture.sh("head -1 /proc/self/numa_maps", |c| {
        c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    });
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        skip!("memory policies: this kernel has none");
    }
    assert!(done.out.contains(" bind:0 "), "{done:?}");
}

#[test]
fn programs_that_come_later_stay_on_their_processors() {
    let fixture = fixture!();
    if std::thread::available_parallelism().unwrap().get() < 2 {
        skip!("one processor only");
    }
    let id = fixture.idle(|c| c["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"}));
    let show = "grep Cpus_allowed_list /proc/self/status";
    let done = fixture.exec(&id, show);
    assert_eq!(done.out, "Cpus_allowed_list:\t1\n", "{done:?}");

    // Of a process in a file: its own, or else the container's.
    let own = crate::fixture::read("/proc/self/status");
    let all = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let file = fixture.path().join("process.json");
    for (affinity, expected) in [
        (json!(null), "1"),
        (json!({"initial": "0"}), "0"),
        (json!({"initial": "1", "final": "0"}), "0"),
        (json!({}), all.trim()),
    ] {
        let mut process = json!({"args": ["sh", "-c", show], "cwd": "/", "user": {"uid": 0, "gid": 0}});
        if !affinity.is_null() {
            process["execCPUAffinity"] = affinity.clone();
        }
        std::fs::write(&file, process.to_string()).unwrap();
        let done = fixture.oci(&["exec", "--process", file.to_str().unwrap(), &id]);
        assert_eq!(done.out.trim_end(), format!("Cpus_allowed_list:\t{expected}"), "{affinity}: {done:?}");
    }
}

/// Capabilities that cannot be ambient lead to a warning; the others are set.
#[test]
fn ambient_is_what_is_permitted_and_inheritable() {
    let fixture = fixture!();
    let done = fixture.sh("grep CapAmb /proc/self/status", |c| {
        let sets = &mut c["process"]["capabilities"];
        for set in ["bounding", "effective", "permitted"] {
            sets[set] = json!(["CAP_KILL", "CAP_CHOWN"]);
        }
        sets["inheritable"] = json!(["CAP_KILL"]);
        sets["ambient"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    });
    assert_eq!(done.out, "CapAmb:\t0000000000000020\n", "{done:?}");
    let warning = "kiln oci: warning: can't raise ambient capability CAP_CHOWN: it is not both permitted and inheritable\n";
    assert_eq!(done.err, warning);
}

/// The CPU affinity of the caller does not apply to containers: their cgroups decide.
#[test]
fn containers_run_on_all_processors() {
    let fixture = fixture!();
    let processors = std::thread::available_parallelism().unwrap().get();
    if processors < 2 {
        skip!("one processor only");
    }
    let kept = |words: &[&str]| {
        let inner = fixture.command(words);
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(inner.get_program()).args(inner.get_args());
        Done::of(&command.output().unwrap())
    };
    let bundle = fixture.bundle("grep Cpus_allowed_list /proc/self/status");
    let done = kept(&["run", "--bundle", bundle.write(), &new_id("processors")]);
    assert!(done.code == 0 && done.out != "Cpus_allowed_list:\t0\n", "{done:?}");
    let id = fixture.idle(|_| {});
    let done = kept(&["exec", &id, "grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert!(done.code == 0 && done.out != "Cpus_allowed_list:\t0\n", "{done:?}");
}
