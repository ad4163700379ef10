//! Flags of `run`, seen from inside of the container.

use crate::fixture::{Done, Fixture};
use crate::hosts::on_changed;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;

/// Runs a script in a new container of busybox without a network; the flags are words.
fn sh(fixture: &Fixture, flags: &str, script: &str) -> Done {
    let mut arguments: Vec<&str> = vec!["run", "--rm"];
    if !flags.contains("--network") {
        arguments.extend(["--network", "none"]);
    }
    arguments.extend(flags.split_whitespace());
    arguments.extend(["busybox", "sh", "-c", script]);
    fixture.kiln(&arguments)
}

#[track_caller]
fn out(fixture: &Fixture, flags: &str, script: &str) -> String {
    let done = sh(fixture, flags, script);
    assert_eq!(done.code, 0, "{flags}: {}{}", done.out, done.err);
    done.out
}

#[track_caller]
fn refused(fixture: &Fixture, cases: &[(&str, &str)]) {
    for (flags, reason) in cases {
        let done = sh(fixture, flags, "echo ran");
        assert_eq!((done.code, done.out.as_str()), (125, ""), "{flags}: {}", done.err);
        assert!(done.err.contains(reason), "{flags}: {}", done.err);
    }
    assert_eq!(fixture.ok("ps -aq"), "", "nothing is left");
}

/// A container that runs until the test ends.
struct Other(Child, String);

impl Other {
    fn start(fixture: &Fixture, name: &str, flags: &str) -> Other {
        let mut arguments = vec!["run", "--rm", "--name", name];
        arguments.extend(flags.split_whitespace());
        arguments.extend(["busybox", "sh", "-c", "echo ready; exec sleep 1000"]);
        let mut child = fixture.start(&arguments);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{flags}");
        Other(child, name.to_owned())
    }

    fn end(mut self, fixture: &Fixture) {
        fixture.ok(&format!("kill {}", self.1));
        self.0.wait().unwrap();
    }
}

fn legacy(controller: &str) -> bool {
    Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists()
}

/// Value of a file in the container's cgroup; the names of version 1 and 2.
fn limit(fixture: &Fixture, flags: &str, old: &str, new: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{old} 2>/dev/null || cat /sys/fs/cgroup/{new}");
    out(fixture, flags, &script).trim().to_owned()
}

#[test]
fn memory_and_processes_are_limited() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let read = |flags: &str, old: &str, new: &str| limit(&fixture, flags, old, new);
    assert_eq!(read("-m 32m", "memory/memory.limit_in_bytes", "memory.max"), (32 << 20).to_string());
    assert_eq!(
        read("--memory-reservation 16m -m 32m", "memory/memory.soft_limit_in_bytes", "memory.low"),
        (16 << 20).to_string()
    );
    assert_eq!(read("--pids-limit 20", "pids/pids.max", "pids.max"), "20");
    assert_eq!(read("--pids-limit -1", "pids/pids.max", "pids.max"), "max");
    if legacy("memory") {
        assert_eq!(read("-m 32m --memory-swappiness 7", "memory/memory.swappiness", "-"), "7");
        let disabled = read("-m 32m --oom-kill-disable", "memory/memory.oom_control", "-");
        assert!(disabled.contains("oom_kill_disable 1"), "{disabled}");
    }
    // A program that takes more is killed, and a fork bomb ends at its limit.
    let script = "head -c 100m /dev/zero | tail -c 100m | wc -c";
    let done = sh(&fixture, "-m 16m --memory-swap 16m", &format!("{script}; echo after"));
    assert!(!done.out.contains("104857600"), "{}", done.out);
    let done = sh(&fixture, "--pids-limit 8", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait");
    assert!(done.err.contains("fork"), "{} {}", done.out, done.err);
}

#[test]
fn processors_and_block_devices_are_limited() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let read = |flags: &str, old: &str, new: &str| limit(&fixture, flags, old, new);
    let expected = if legacy("cpu") { "50000" } else { "50000 100000" };
    assert_eq!(read("--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max"), expected);
    let expected = if legacy("cpu") { "20000" } else { "20000 50000" };
    assert_eq!(read("--cpu-quota 20000 --cpu-period 50000", "cpu/cpu.cfs_quota_us", "cpu.max"), expected);
    let expected = if legacy("cpu") { "512" } else { "59" };
    assert_eq!(read("-c 512", "cpu/cpu.shares", "cpu.weight"), expected);
    assert_eq!(read("--cpuset-cpus 0 --cpuset-mems 0", "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(
        out(&fixture, "--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status"),
        "Cpus_allowed_list:\t0\n"
    );
    let Some((device, numbers)) = block_device() else { skip!("no block device here") };
    let flags = format!("--device-read-bps {device}:1mb --device-write-iops {device}:30");
    let rates = read(&flags, "blkio/blkio.throttle.read_bps_device", "io.max");
    assert!(rates.starts_with(&numbers) && rates.contains("1048576"), "{rates}");
}

/// A block device of the host, with its numbers.
fn block_device() -> Option<(String, String)> {
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name().into_string().ok()?;
        let path = format!("/dev/{name}");
        let numbers = fs::read_to_string(entry.path().join("dev")).ok()?.trim().to_owned();
        if !name.starts_with("loop") && !name.starts_with("ram") && Path::new(&path).exists() {
            return Some((path, numbers));
        }
    }
    None
}

#[test]
fn limits_of_processes() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    assert_eq!(
        out(&fixture, "--ulimit nofile=200:300 --ulimit core=0", "ulimit -Sn; ulimit -Hn; ulimit -c"),
        "200\n300\n0\n"
    );
    assert!(out(&fixture, "--shm-size 3m", "df -k /dev/shm | tail -1").contains(" 3072 "));
    assert_eq!(out(&fixture, "--oom-score-adj 500", "cat /proc/self/oom_score_adj"), "500\n");
    // Without the privilege to raise a limit the container has the largest one, and a warning is printed.
    let done = sh(&fixture, "--ulimit nofile=1000000000", "ulimit -Hn");
    assert!(done.code == 0 || done.err.contains("RLIMIT_NOFILE"), "{}", done.err);
}

#[test]
fn cgroups_are_created_below_a_parent() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let name = format!("kiln-parent-{}", std::process::id());
    let shown = out(&fixture, &format!("--cgroup-parent /{name} --cgroupns host"), "cat /proc/self/cgroup");
    assert!(shown.lines().any(|line| line.contains(&format!(":/{name}/kiln-run"))), "{shown}");
    let hidden = out(&fixture, &format!("--cgroup-parent /{name}"), "cat /proc/self/cgroup");
    assert!(!hidden.contains(&name), "{hidden}");
    let root = if legacy("pids") { "/sys/fs/cgroup/pids" } else { "/sys/fs/cgroup" };
    assert!(!Path::new(root).join(&name).exists(), "it is removed with the last container");
}

#[test]
fn limits_out_of_range_are_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    refused(
        &fixture,
        &[
            ("-m 4m", "Minimum memory limit allowed is 6MB"),
            ("-m x", "invalid argument \"x\" for \"--memory\" flag: invalid size: 'x'"),
            ("--memory-swap 64m", "You should always set the Memory limit when using Memoryswap limit"),
            ("-m 64m --memory-swap 32m", "Minimum memoryswap limit should be larger than memory limit"),
            ("-m 64m --memory-reservation 128m", "can not be less than memory reservation limit"),
            ("--memory-swappiness 101", "valid memory swappiness range is 0-100"),
            ("--oom-score-adj 2000", "range for oom score adj is [-1000, 1000]"),
            ("--cpus 5000", "range of CPUs is from 0.01 to"),
            ("--cpus x", "failed to parse x as a rational number"),
            ("--cpus 1 --cpu-quota 5000", "Nano CPUs and CPU Quota cannot both be set"),
            ("--cpu-period 5", "CPU cfs period can not be less than 1ms"),
            ("--cpuset-cpus 5000", "Requested CPUs are not available"),
            ("--cpuset-cpus a", "Invalid value a for cpuset cpus"),
            ("--blkio-weight 5", "Range of blkio weight is from 10 to 1000"),
            ("--device-read-bps /dev/none", "bad format: /dev/none"),
            ("--device-read-bps /dev/none:1mb", "/dev/none"),
            ("--device-read-bps /dev/null:1mb", "/dev/null"),
            ("--ulimit nofile=5:3", "ulimit soft limit must be less than or equal to hard limit"),
            ("--ulimit nope=5", "invalid ulimit type: nope"),
            ("--shm-size x", "invalid size: 'x'"),
            ("--pids-limit x", "invalid value 'x' for '--pids-limit"),
        ],
    );
}

#[test]
fn capabilities_are_granted_and_dropped() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let bounding = |flags: &str| {
        let line = out(&fixture, flags, "grep CapBnd /proc/self/status");
        u64::from_str_radix(line.trim_start_matches("CapBnd:").trim(), 16).unwrap()
    };
    let (chown, net_admin, mknod) = (1u64, 1u64 << 12, 1u64 << 27);
    let default = bounding("");
    assert!(default & chown != 0 && default & net_admin == 0);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    let own = u64::from_str_radix(own, 16).unwrap();
    assert_eq!(bounding("--cap-add NET_ADMIN") & net_admin, own & net_admin);
    assert_eq!(bounding("--cap-drop mknod") & mknod, 0);
    assert_eq!(bounding("--cap-drop ALL"), 0);
    assert_eq!(bounding("--cap-drop ALL --cap-add cap_chown"), chown);
    assert_eq!(bounding("--privileged"), own & ((1 << 41) - 1));
    assert_eq!(bounding("--cap-add ALL --cap-drop CHOWN") & chown, 0);
    refused(
        &fixture,
        &[
            ("--cap-add NOPE", "invalid CapAdd: unknown capability: \"CAP_NOPE\""),
            ("--cap-drop NOPE", "invalid CapDrop: unknown capability: \"CAP_NOPE\""),
        ],
    );
}

#[test]
fn privileged_containers_have_devices_and_no_hidden_paths() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "grep -c ' /proc/[a-z]' /proc/self/mounts; grep -c ' /sys sysfs ro' /proc/self/mounts; \
                  grep Seccomp: /proc/self/status; ls /dev";
    let plain = sh(&fixture, "", script).out;
    let open = sh(&fixture, "--privileged", script).out;
    assert!(plain.contains("Seccomp:\t2") && !plain.starts_with("0\n"), "{plain}");
    assert!(open.starts_with("0\n0\n") && open.contains("Seccomp:\t0"), "{open}");
    for name in ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm"] {
        assert!(open.lines().any(|line| line == name), "{name}: {open}");
    }
    if Path::new("/dev/kmsg").exists() {
        assert!(open.lines().any(|line| line == "kmsg") && !plain.contains("kmsg"), "{open}");
    }
}

#[test]
fn devices_of_the_host() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let device = ["/dev/kmsg", "/dev/fuse", "/dev/rtc0", "/dev/loop-control"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(device) = device else { skip!("no further device here") };
    let numbers = out(&fixture, &format!("--device {device}:/dev/mine"), "stat -c '%F %t:%T' /dev/mine");
    assert!(numbers.starts_with("character special file"), "{numbers}");
    // A node that the container makes itself can be opened only with a rule: no driver has this number.
    let open = |flags: &[&str]| {
        let script = "mknod /tmp/x c 240 7 && head -c 1 /tmp/x";
        let arguments = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
        fixture.kiln(&arguments).err
    };
    assert!(open(&[]).contains("Operation not permitted"), "{}", open(&[]));
    let ruled = open(&["--device-cgroup-rule", "c 240:* rwm"]);
    assert!(ruled.contains("No such device"), "{ruled}");
    refused(
        &fixture,
        &[
            (
                "--device /dev/nosuch",
                "error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory",
            ),
            ("--device /etc/passwd", "not a device node"),
            ("--device /dev/null:/dev/x:q", "bad mode specified: q"),
            ("--device-cgroup-rule nope", "invalid device cgroup format 'nope'"),
            ("--device vendor.com/class=x", "unresolvable CDI devices"),
            ("--gpus all", "nvidia.com/gpu=all"),
            ("--gpus 2", "write all, or device=NUMBER"),
        ],
    );
}

/// Devices are described in /etc/cdi, which the test lays over the host's directory for its own mount namespace.
#[test]
fn devices_that_the_host_describes() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let device = r#"{"name":"x","containerEdits":{"env":["GRANTED=yes"],"deviceNodes":[{"path":"/dev/granted","hostPath":"/dev/zero"}],
        "mounts":[{"hostPath":"/proc/version","containerPath":"/shown","options":["ro"]}]}}"#;
    let other = r#"{"name":"all","containerEdits":{"env":["GPU=all"]}},{"name":"hooked","containerEdits":{"hooks":[{"hookName":"createContainer","path":"/x"}]}}"#;
    fixture.write(
        "etc/cdi/d.json",
        &format!(r#"{{"cdiVersion":"0.6.0","kind":"kiln.test/d","devices":[{device}]}}"#),
    );
    fixture.write(
        "etc/cdi/g.json",
        &format!(r#"{{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{other}]}}"#),
    );
    let change = format!("mount -t overlay none -o lowerdir={}:/etc /etc", fixture.path("etc").display());
    let run = |flags: &str| {
        let script = "'stat -c %t,%T /dev/granted; head -c 2 /dev/granted | wc -c; cut -c1-5 /shown; echo $GRANTED$GPU'";
        on_changed(&fixture, &change, &format!("run --rm --network none {flags} busybox sh -c {script}"))
    };
    assert_eq!(run("--device kiln.test/d=x --gpus all").out, "1,5\n2\nLinux\nyesall\n");
    for (flags, reason) in [
        ("--device kiln.test/d=y", "unresolvable CDI devices: device kiln.test/d=y is not available"),
        ("--gpus device=hooked", "its description has hooks, which are not supported"),
    ] {
        let done = run(flags);
        assert!(done.code == 125 && done.err.contains(reason), "{flags}: {}", done.err);
    }
}

#[test]
fn confinement_is_changed() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    assert_eq!(
        out(&fixture, "--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status"),
        "NoNewPrivs:\t1\n"
    );
    fixture.write("p.json", r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#);
    let profile = fixture.path("p.json").display().to_string();
    let done = sh(&fixture, &format!("--security-opt seccomp={profile}"), "mkdir /x");
    assert!(done.code == 1 && done.err.contains("Function not implemented"), "{}", done.err);
    let script = "grep -c ' /proc/[a-z]' /proc/self/mounts; head -c 1 /proc/uptime; echo; ls /etc/group";
    let shown = sh(&fixture, "--security-opt systempaths=unconfined", script).out;
    assert!(shown.starts_with("0\n"), "{shown}");
    assert_eq!(
        out(&fixture, "--security-opt mask=/etc/hostname:/usr", "wc -c < /etc/hostname; ls /usr | wc -l"),
        "0\n0\n"
    );
    let writes = "echo here > /proc/sys/kernel/domainname && cat /proc/sys/kernel/domainname";
    assert_eq!(sh(&fixture, "", writes).out, "");
    assert_eq!(sh(&fixture, "--security-opt unmask=/proc/sys", writes).out, "here\n");
    fixture.write("bad.json", "{");
    let bad = format!("--security-opt seccomp={}", fixture.path("bad.json").display());
    refused(
        &fixture,
        &[
            (bad.as_str(), "decoding seccomp profile failed"),
            ("--security-opt seccomp=/no/such/file", "opening seccomp profile (/no/such/file) failed"),
            ("--security-opt label=type:spc_t", "containers have no SELinux labels"),
            ("--security-opt nope=1", "invalid --security-opt"),
            ("--security-opt mask=relative", "expected absolute paths"),
        ],
    );
}

/// Processes of `exec` have the privileges of the container.
#[test]
fn further_processes_are_confined_like_the_first() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("p.json", r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#);
    let flags = format!(
        "--cap-drop ALL --group-add 4242 --security-opt seccomp={}",
        fixture.path("p.json").display()
    );
    let other = Other::start(&fixture, "confined", &flags);
    let shown = fixture
        .kiln(&["exec", "confined", "sh", "-c", "grep CapBnd /proc/self/status; id -G; mkdir /x 2>&1; true"])
        .out;
    assert!(
        shown.contains("0000000000000000") && shown.contains("4242") && shown.contains("not implemented"),
        "{shown}"
    );
    other.end(&fixture);
}

#[test]
fn users_groups_and_a_read_only_root() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let groups = out(&fixture, "-u nobody --group-add 1234 --group-add users", "id -G");
    let groups: Vec<&str> = groups.split_whitespace().collect();
    assert!(groups.contains(&"1234") && groups.contains(&"100"), "{groups:?}");
    let done = sh(&fixture, "--read-only --tmpfs /run", "touch /run/x && touch /x");
    assert!(done.code == 1 && done.err.contains("Read-only file system"), "{}", done.err);
    refused(
        &fixture,
        &[
            ("--group-add nosuchgroup", "unable to find group nosuchgroup"),
            ("-u nosuchuser", "unable to find user nosuchuser: no matching entries in passwd file"),
            ("--group-add keep-groups --group-add 1", "is not allowed with any other --group-add"),
        ],
    );
}

#[test]
fn kernel_parameters() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    assert_eq!(
        out(
            &fixture,
            "--sysctl net.ipv4.ip_unprivileged_port_start=99 --sysctl kernel.msgmax=12345",
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"
        ),
        "99\n12345\n"
    );
    refused(
        &fixture,
        &[
            ("--sysctl vm.swappiness=1", "sysctl 'vm.swappiness=1' is not allowed"),
            ("--sysctl nope", "is not allowed"),
            ("--network host --sysctl net.ipv4.ip_forward=1", "shares that namespace of the host"),
        ],
    );
}

#[test]
fn names_and_name_servers() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let shown = out(
        &fixture,
        "--dns 1.2.3.4 --dns-search a.example --dns-search b.example --dns-opt ndots:3",
        "cat /etc/resolv.conf",
    );
    for line in ["nameserver 1.2.3.4", "search a.example b.example", "options ndots:3"] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    assert_eq!(shown.matches("nameserver").count(), 1, "{shown}");
    let hosts = out(&fixture, "--add-host one:1.2.3.4 --add-host two=[::1]", "cat /etc/hosts");
    assert!(hosts.contains("1.2.3.4\tone\n") && hosts.contains("::1\ttwo\n"), "{hosts}");
    let script =
        "cat /etc/hosts; ip route | grep default; hostname; dnsdomainname; cat /proc/sys/kernel/domainname";
    let shown =
        sh(&fixture, "--network bridge -h web --domainname example.org --add-host up:host-gateway", script)
            .out;
    let gateway =
        shown.lines().find_map(|line| line.strip_prefix("default via ")).unwrap().split(' ').next().unwrap();
    assert!(shown.contains(&format!("{gateway}\tup\n")), "{shown}");
    assert!(shown.contains("\tweb.example.org web\n") && shown.contains("\nweb\n"), "{shown}");
    assert!(shown.ends_with("example.org\n"), "{shown}");
    refused(
        &fixture,
        &[
            ("--add-host x", "bad format for add-host: \"x\""),
            ("--add-host x:y", "invalid IP address in add-host: \"y\""),
            ("--dns x", "IP address is not correctly formatted: x"),
            ("--dns-search a%b", "is not a valid domain"),
        ],
    );
}

#[test]
fn namespaces_of_the_host() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for (flags, kind) in [
        ("--pid host", "pid"),
        ("--ipc host", "ipc"),
        ("--uts host", "uts"),
        ("--cgroupns host", "cgroup"),
        ("--network host", "net"),
    ] {
        let shown = out(&fixture, flags, &format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(shown.trim(), own(kind), "{flags}");
    }
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(out(&fixture, "--uts host", "hostname"), hostname);
    assert_eq!(out(&fixture, "--network host", "hostname"), hostname);
    assert_eq!(sh(&fixture, "--ipc none", "grep -c ' /dev/shm ' /proc/self/mounts").out, "0\n");
    // In the pid namespace of the host, what a container leaves behind is killed.
    let mark = format!("{}", 100_000 + std::process::id());
    out(&fixture, "--pid host", &format!("sleep {mark} & true"));
    let left = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(&format!("sleep\0{mark}"))
    });
    assert!(!left, "a process is left");
    refused(
        &fixture,
        &[
            ("--pid nope", "invalid PID mode: nope"),
            ("--ipc nope", "invalid IPC mode: nope"),
            ("--uts nope", "invalid UTS mode: nope"),
            ("--cgroupns nope", "invalid CGROUP mode: nope"),
            ("--userns nope", "invalid USER mode: nope"),
            ("--userns keep-id", "is not supported"),
            ("--uts host -h x", "conflicting options: hostname and the UTS mode"),
            ("--pid container:nosuch", "No such container: nosuch"),
            ("--network container:nosuch", "No such container: nosuch"),
            ("--network nosuch", "network nosuch not found"),
        ],
    );
}

#[test]
fn namespaces_of_other_containers() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let other = Other::start(&fixture, "first", "--ipc shareable -h first-host");
    fixture.kiln(&["exec", "first", "sh", "-c", "echo shared > /dev/shm/file"]);
    let shown = out(&fixture, "--pid container:first", "ps -o args | grep -c '^sleep 1000'");
    assert_eq!(shown, "1\n");
    assert_eq!(out(&fixture, "--ipc container:first", "cat /dev/shm/file"), "shared\n");
    assert_eq!(out(&fixture, "--uts container:first", "hostname"), "first-host\n");
    let address = |flags: &str| {
        let shown =
            out(&fixture, flags, "ip addr show eth0 | grep 'inet '; cat /etc/hosts | tail -1; hostname");
        shown.replace(' ', "")
    };
    let own = fixture.kiln(&[
        "exec",
        "first",
        "sh",
        "-c",
        "ip addr show eth0 | grep 'inet '; cat /etc/hosts | tail -1; hostname",
    ]);
    assert_eq!(address("--network container:first"), own.out.replace(' ', ""));
    let done = sh(&fixture, "--network container:first -h x", "true");
    assert!(
        done.code == 125
            && done.err.contains("conflicting options: hostname and the container type network mode"),
        "{}",
        done.err
    );
    other.end(&fixture);
    fixture.ok("run --name ended busybox true");
    let done = sh(&fixture, "--network container:ended", "true");
    assert!(
        done.code == 125 && done.err.contains("cannot join the network namespace of a non running container"),
        "{}",
        done.err
    );
    let other = Other::start(&fixture, "private", "--network none");
    let done = sh(&fixture, "--ipc container:private", "true");
    assert!(done.code == 125 && done.err.contains("non-shareable IPC"), "{}", done.err);
    other.end(&fixture);
    fixture.ok("rm ended");
}

#[test]
fn files_with_ids_and_labels() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let path = fixture.path("id").display().to_string();
    fixture.ok(&format!("run --name one --cidfile {path} busybox true"));
    let id = fs::read_to_string(&path).unwrap();
    assert_eq!(fixture.ok("ps -aq --no-trunc").trim(), id);
    let done = fixture.words(&format!("run --rm --cidfile {path} busybox true"));
    assert!(
        done.code == 125
            && done
                .err
                .contains("container ID file found, make sure the other container isn't running or delete"),
        "{}",
        done.err
    );
    let unused = fixture.path("unused").display().to_string();
    assert_eq!(fixture.words(&format!("run --name one --cidfile {unused} busybox true")).code, 125);
    assert!(!Path::new(&unused).exists(), "no file without a container");
    fixture.ok("rm one");
    fixture.write("labels", "# comment\na=1\nb=file\n");
    let labels = fixture.path("labels").display().to_string();
    fixture.ok(&format!("run --name two --label-file {labels} -l b=flag busybox true"));
    assert_eq!(fixture.ok("inspect -f {{.Config.Labels}} two"), "map[a:1 b:flag]\n");
    fixture.ok("rm two");
}

#[test]
fn time_zones() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    if Path::new("/usr/share/zoneinfo/Etc/GMT-5").exists() {
        assert_eq!(
            out(&fixture, "--tz Etc/GMT-5", "cmp -s /etc/localtime /etc/hosts; head -c 4 /etc/localtime"),
            "TZif"
        );
    }
    refused(
        &fixture,
        &[
            ("--tz No/Where", "unrecognized time zone"),
            ("--tz ../../../etc/passwd", "unrecognized time zone"),
        ],
    );
}

#[test]
fn flags_that_do_nothing_are_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    refused(
        &fixture,
        &[
            ("--ip 10.0.0.9", "user specified IP address is supported on user defined networks only"),
            ("--mac-address 03:00:00:00:00:01", "invalid MAC address"),
            ("--link x", "none type networking can't be used with links"),
            ("--network-alias x", "supported only for containers in user defined networks"),
            ("--runtime nope", "unknown or invalid runtime name"),
            ("--isolation hyperv", "containers of Windows"),
            ("--storage-opt size=1g", "--storage-opt is not supported"),
            ("--stop-signal NOPE", "invalid signal: NOPE"),
            ("--expose nope", "invalid port"),
            ("--expose 80/icmp", "invalid proto: icmp"),
            ("--no-healthcheck --health-cmd x", "--no-healthcheck conflicts with --health-* options"),
            ("--health-interval 1x", "invalid duration \"1x\""),
            ("--health-interval 1us", "Interval in Healthcheck cannot be less than 1ms"),
            ("--health-retries -1", "--health-retries cannot be negative"),
            ("--platform nope", "unknown operating system or architecture"),
            ("--platform linux/s390x --pull never", "does not provide the specified platform (linux/s390x)"),
        ],
    );
}

/// What `inspect` shows of all this, by Docker's names.
#[test]
fn settings_are_shown() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let host = fixture.path(".").display().to_string();
    fixture.ok(&format!(
        "run --name all -m 64m --memory-reservation 32m --cpus 0.5 --cpuset-cpus 0 --pids-limit 50 --ulimit nofile=10:20 \
         --shm-size 2m --cap-add NET_ADMIN --cap-drop mknod --group-add 5 --read-only --sysctl kernel.msgmax=9000 \
         --security-opt no-new-privileges --add-host a:1.2.3.4 --dns 9.9.9.9 --domainname d.example --ipc shareable \
         --stop-signal INT --stop-timeout 3 --annotation x=y --expose 80 --health-cmd true --health-retries 2 \
         --oom-score-adj 7 --tmpfs /t:size=1m -v {host}:/host:ro -v vol:/vol --mount type=tmpfs,dst=/u busybox true"
    ));
    let shown = |template: &str| fixture.kiln(&["inspect", "-f", template, "all"]).out.trim_end().to_owned();
    for (template, expected) in [
        (
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}}",
            "67108864 134217728 33554432",
        ),
        ("{{.HostConfig.NanoCpus}} {{.HostConfig.CpusetCpus}} {{.HostConfig.PidsLimit}}", "500000000 0 50"),
        ("{{json .HostConfig.Ulimits}}", r#"[{"Name":"nofile","Hard":20,"Soft":10}]"#),
        ("{{.HostConfig.ShmSize}} {{.HostConfig.OomScoreAdj}}", "2097152 7"),
        (
            "{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}} {{.HostConfig.GroupAdd}}",
            "[CAP_NET_ADMIN] [CAP_MKNOD] [5]",
        ),
        (
            "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Sysctls}} {{.HostConfig.SecurityOpt}}",
            "true map[kernel.msgmax:9000] [no-new-privileges]",
        ),
        (
            "{{.HostConfig.ExtraHosts}} {{.HostConfig.Dns}} {{.Config.Domainname}}",
            "[a:1.2.3.4] [9.9.9.9] d.example",
        ),
        ("{{.HostConfig.IpcMode}} {{.HostConfig.Annotations}}", "shareable map[x:y]"),
        ("{{.Config.StopSignal}} {{.Config.StopTimeout}} {{.Config.ExposedPorts}}", "INT 3 map[80/tcp:{}]"),
        ("{{json .Config.Healthcheck}}", r#"{"Test":["CMD-SHELL","true"],"Retries":2}"#),
        ("{{.HostConfig.Tmpfs}}", "map[/t:size=1m]"),
        (
            "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}},{{end}}",
            "bind /host false,volume /vol true,tmpfs /u true,",
        ),
        (
            "{{(index .Mounts 1).Name}} {{(index .Mounts 1).Driver}} {{(index .Mounts 0).Propagation}}",
            "vol local rprivate",
        ),
    ] {
        assert_eq!(shown(template), expected, "{template}");
    }
    assert_eq!(shown("{{.HostConfig.Binds}}"), format!("[{host}:/host:ro vol:/vol]").replace("/.:", ":"));
    assert_eq!(shown("{{json .HostConfig.Mounts}}"), r#"[{"Type":"tmpfs","Target":"/u"}]"#);
    fixture.ok("rm -v all");
}
