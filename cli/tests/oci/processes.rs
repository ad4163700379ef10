//! Processes of a container as callers handle them: signals, exit codes, orphans, `exec`, descriptors, lists.

use crate::fixture::{Done, new_id, read, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn signals_are_passed_on() {
    let fixture = fixture!();
    let bundle = fixture.bundle("for s in TERM INT HUP USR1 USR2 QUIT; do trap \"echo $s\" $s; done; trap 'exit 9' WINCH; echo ready; while :; do sleep 0.02; done");
    let id = new_id("signals");
    let mut child = fixture.spawn(&bundle, &id);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for name in ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT"] {
        let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(lines.next().unwrap().unwrap(), name);
    }
    assert_eq!(fixture.oci(&["kill", &id, "KILL"]).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    // The same by the runtime, in all forms of names.
    let bundle = fixture.bundle("trap 'echo told' USR1; echo ready; while :; do sleep 0.02; done");
    let id = new_id("signals");
    let mut child = fixture.spawn(&bundle, &id);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for name in ["USR1", "SIGUSR1", "10", "usr1"] {
        assert_eq!(fixture.oci(&["kill", &id, name]).code, 0, "{name}");
        assert_eq!(lines.next().unwrap().unwrap(), "told", "{name}");
    }
    assert_eq!(fixture.oci(&["kill", &id, "0"]).code, 0);
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn codes_are_the_programs() {
    let fixture = fixture!();
    let id = fixture.idle(|_| {});
    for (command, code) in
        [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
    {
        assert_eq!(fixture.exec(&id, command).code, code, "{command}");
        if !command.contains("kill") {
            assert_eq!(fixture.sh(command, |_| {}).code, code, "{command}");
        }
    }
    // The exit of a short program is not missed.
    let bundle = fixture.bundle("exit 5");
    let dir = bundle.write();
    for _ in 0..20 {
        assert_eq!(fixture.oci(&["run", "--bundle", dir, &new_id("short")]).code, 5);
    }
}

#[test]
fn orphans_are_reaped() {
    let fixture = fixture!();
    // Without a pid namespace of the container its orphans become children of the monitor.
    let mut bundle = fixture.bundle("(sleep 0.05 &) ; (true &); sleep 0.2; for stat in /proc/[0-9]*/stat; do cat $stat 2>/dev/null; done | grep -c ' Z '$PPID; echo $PPID");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    let done = fixture.run(&bundle);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.starts_with("0\n"), "{done:?}");
    // With one they become children of the init process, whose parent is outside.
    let done = fixture.sh("echo $PPID $$", |_| {});
    assert_eq!(done.out, "0 1\n");
}

#[test]
fn further_programs_are_as_they_are_asked_to_be() {
    let fixture = fixture!();
    let id = fixture.idle(|c| c["process"]["env"] = json!(["PATH=/bin", "A=1", "B=2"]));
    let out = |flags: &[&str], command: &str| {
        let done = fixture.oci(&[&["exec"], flags, &[&id, "sh", "-c", command]].concat());
        assert_eq!(done.err, "", "{flags:?}");
        done.out
    };
    assert_eq!(out(&["-e", "A=9", "--env", "C=3 4"], "echo $A $B $C"), "9 2 3 4\n");
    assert_eq!(out(&["--cwd", "/etc"], "pwd"), "/etc\n");
    assert_eq!(out(&["--user", "1000"], "id -u; id -g; echo $HOME"), "1000\n0\n/home/app\n");
    assert_eq!(out(&["-u", "1000:50"], "id -u; id -g; id -G"), "1000\n50\n50\n");
    assert_eq!(out(&["-u", "app"], "id -u; id -g; id -G; echo $HOME"), "1000\n1001\n1001 50\n/home/app\n");
    assert_eq!(out(&["-u", "app:staff"], "id -u; id -G"), "1000\n50\n");
    assert_eq!(out(&["-u", "1000:1001", "-g", "7", "--additional-gids", "8"], "id -G"), "1001 7 8\n");
    let bits = |flags: &[&str]| {
        let text = out(flags, "grep CapEff /proc/self/status");
        u64::from_str_radix(text.trim().rsplit('\t').next().unwrap(), 16).unwrap()
    };
    const SYS_ADMIN: u64 = 1 << 21;
    const NET_RAW: u64 = 1 << 13;
    assert_eq!(bits(&[]) & (SYS_ADMIN | NET_RAW), 0);
    assert_eq!(
        bits(&["--cap", "CAP_SYS_ADMIN", "-c", "net_raw"]) & (SYS_ADMIN | NET_RAW),
        SYS_ADMIN | NET_RAW
    );
    assert_eq!(out(&["--no-new-privs"], "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1\n");
    // All namespaces are the container's.
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let own = fs::read_link(format!("/proc/{}/ns/{kind}", fixture.pid(&id))).unwrap();
        assert_eq!(out(&[], &format!("readlink /proc/self/ns/{kind}")).trim(), own.to_str().unwrap());
    }
    // Standard input is the caller's.
    let mut command = fixture.command(&["exec", &id, "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through");
}

#[test]
fn a_process_is_described_by_a_file() {
    let fixture = fixture!();
    let id = fixture.idle(|_| {});
    let file = fixture.path().join("process.json");
    let process = json!({
        "args": ["/bin/sh", "-c", "echo $A; pwd; id -u; id -G; ulimit -n; umask; grep -E 'NoNewPrivs|CapBnd' /proc/self/status; cat /proc/self/oom_score_adj"],
        "cwd": "/tmp", "env": ["PATH=/bin", "A=file"],
        "user": {"uid": 1000, "gid": 1001, "additionalGids": [7], "umask": 0o77},
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}],
        "noNewPrivileges": true,
        "oomScoreAdj": 300,
    });
    fs::write(&file, process.to_string()).unwrap();
    let done = fixture.oci(&["exec", "--process", file.to_str().unwrap(), &id]);
    assert_eq!(
        done.out, "file\n/tmp\n1000\n1001 7\n55\n0077\nCapBnd:\t0000000000000020\nNoNewPrivs:\t1\n300\n",
        "{done:?}"
    );
}

#[test]
fn a_detached_program_is_found_by_its_file() {
    let fixture = fixture!();
    let id = fixture.idle(|_| {});
    let file = fixture.path().join("pid");
    let done = fixture.detached(&["exec", "-d", "--pid-file", file.to_str().unwrap(), &id, "sleep", "1000"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let pid = read(&file);
    // Exec has succeeded: the line is that of the program.
    assert_eq!(read(format!("/proc/{pid}/cmdline")).replace('\0', " ").trim(), "sleep 1000");
    let listed = fixture.oci(&["ps", "--format", "json", &id]).out;
    assert!(listed.contains(&pid), "{listed}");
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    wait_until("it ends with the container", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    // And so is a container.
    let bundle = fixture.bundle("sleep 1000");
    let id = new_id("pid-file");
    let done =
        fixture.detached(&["create", "--bundle", bundle.write(), "--pid-file", file.to_str().unwrap(), &id]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert_eq!(read(&file), fixture.pid(&id).to_string());
    let beside: Vec<_> =
        fs::read_dir(fixture.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_str().unwrap().starts_with("pid.")), "{beside:?}");
}

#[test]
fn descriptors_are_kept_or_closed() {
    let fixture = fixture!();
    let list = "for fd in /proc/self/fd/*; do readlink $fd; done | grep -c /etc/passwd; readlink /proc/$$/fd/3; readlink /proc/$$/fd/4";
    let bundle = fixture.bundle(list);
    let dir = bundle.write().to_owned();
    let id = fixture.idle(|_| {});
    // A shell passes further descriptors to this program.
    let run = |words: &str, variables: &str| {
        let script = format!(
            "exec 3</etc/passwd 4</etc/group 5</etc/hostname; {variables} exec \"$0\" oci --root {} {words}",
            fixture.root().display()
        );
        let mut command = Command::new("sh");
        Done::of(&command.args(["-c", &script, env!("CARGO_BIN_EXE_kiln")]).output().unwrap())
    };
    let (new, program) =
        (new_id("fds"), "sh -c 'readlink /proc/$$/fd/3; readlink /proc/$$/fd/4; readlink /proc/$$/fd/5'");
    assert_eq!(run(&format!("run --bundle {dir} {new}"), "").out, "0\n");
    assert_eq!(run(&format!("exec {id} {program}"), "").out, "");
    let done = run(&format!("run --bundle {dir} --preserve-fds 2 {new}"), "");
    assert_eq!(done.out, "1\n/etc/passwd\n/etc/group\n", "{done:?}");
    assert_eq!(run(&format!("exec --preserve-fds 2 {id} {program}"), "").out, "/etc/passwd\n/etc/group\n");
    assert_eq!(run(&format!("exec --preserve-fds=3 {id} {program}"), "").out.lines().count(), 3);
    // Socket activation passes their number (sd_listen_fds(3)).
    let mut bundle = fixture.bundle(
        "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES $$; readlink /proc/$$/fd/3; readlink /proc/$$/fd/4",
    );
    bundle.config["hostname"] = json!("listens");
    let dir = bundle.write().to_owned();
    let done = run(&format!("run --bundle {dir} {new}"), "LISTEN_FDS=2 LISTEN_FDNAMES=a:b");
    assert_eq!(done.out, "2 1 a:b 1\n/etc/passwd\n/etc/group\n", "{done:?}");
    let done = run(&format!("run --bundle {dir} {new}"), "");
    assert_eq!(done.out, "1\n", "{done:?}");
}

#[test]
fn containers_are_listed() {
    let fixture = fixture!();
    assert_eq!(fixture.oci(&["list", "--format", "json"]).out, "null\n");
    assert_eq!(fixture.oci(&["list", "-q"]).out, "");
    let first = fixture.idle(|c| c["annotations"] = json!({"a": "b"}));
    let bundle = fixture.bundle("true");
    let second = new_id("listed");
    assert_eq!(fixture.detached(&["create", "--bundle", bundle.write(), &second]).code, 0);
    let mut ids = [first.clone(), second.clone()];
    ids.sort();
    assert_eq!(fixture.oci(&["list", "--quiet"]).out, format!("{}\n{}\n", ids[0], ids[1]));
    let list: Vec<Value> = serde_json::from_str(&fixture.oci(&["list", "-f", "json"]).out).unwrap();
    let of = |id: &str| list.iter().find(|one| one["id"] == id).unwrap();
    assert_eq!((&of(&first)["status"], &of(&second)["status"]), (&json!("running"), &json!("created")));
    assert_eq!((&of(&first)["annotations"], &of(&first)["owner"]), (&json!({"a": "b"}), &json!("root")));
    assert_eq!(of(&second)["bundle"], json!(bundle.dir));
    let table = fixture.oci(&["list"]).out;
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert!(table.lines().any(|line| line.starts_with(&second) && line.contains("created")), "{table}");
    let state = fixture.state(&second);
    for key in ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner", "annotations"] {
        assert!(state.get(key).is_some(), "{key}: {state}");
    }
    // Several at once, by name and by pattern.
    assert_eq!(fixture.oci(&["delete", "--force", "--regex", "^kt-"]).code, 0);
    assert_eq!(fixture.oci(&["list", "-q"]).out, "");
}

#[test]
fn features_are_listed() {
    let fixture = fixture!();
    let features: Value = serde_json::from_str(&fixture.oci(&["features"]).out).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    for path in [
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/seccomp/actions",
        "/linux/seccomp/operators",
        "/linux/seccomp/archs",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/intelRdt/enabled",
        "/linux/mountExtensions/idmap/enabled",
    ] {
        assert!(features.pointer(path).is_some(), "{path}");
    }
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert_eq!(namespaces.len(), 8);
    let version = fixture.oci(&["--version"]).out;
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].starts_with("kiln-runtime version ") && lines[1].starts_with("spec: 1."), "{version}");
}

/// A plan is printed, and nothing is made for it.
#[test]
fn plans_are_printed() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("echo hello");
    let plan = fixture.oci(&["plan", "--bundle", bundle.write()]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    let lines: Vec<&str> = plan.out.lines().collect();
    assert!(lines[0].starts_with("process in new namespaces: "), "{}", plan.out);
    for line in ["pivot to the root", "umask 022", "exec /bin/sh -c \"echo hello\""] {
        assert!(lines.contains(&line), "{line}: {}", plan.out);
    }
    assert_eq!(fixture.oci(&["list", "-q"]).out, "");
    let moved = fixture.oci(&["plan", "--no-pivot", "--bundle", bundle.write()]);
    assert!(moved.out.contains("\nmove the root to /\n"), "{}", moved.out);
    bundle.config["process"]["cwd"] = json!("tmp");
    let refused = fixture.oci(&["plan", "--bundle", bundle.write()]);
    assert!(refused.code != 0 && refused.err.contains("`tmp` is not an absolute path"), "{}", refused.err);
}

#[test]
fn messages_go_to_a_file() {
    let fixture = fixture!();
    let log = fixture.path().join("log");
    let run = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["oci", "--log", log.to_str().unwrap()]).args(flags).arg("--root").arg(fixture.root());
        Done::of(&command.args(["state", "nope"]).output().unwrap())
    };
    let done = run(&["--log-format", "json"]);
    assert_eq!(done.code, 1);
    let line: Value = serde_json::from_str(&read(&log)).unwrap();
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&json!("error"), &json!("container \"nope\" does not exist"))
    );
    assert!(line["time"].as_str().unwrap().contains('T'));
    // The next is appended, in the form that is asked for.
    run(&["--debug"]);
    let last = read(&log).lines().last().unwrap().to_owned();
    assert!(
        last.starts_with("time=\"")
            && last.ends_with("level=error msg=\"container \\\"nope\\\" does not exist\""),
        "{last}"
    );
    // In JSON without a file it is standard error that has the lines.
    let done = Done::of(
        &Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(["oci", "--log-format", "json", "state", "../x"])
            .output()
            .unwrap(),
    );
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    let line: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(line["level"], "error");
}

/// Engines start runtimes by a file name.
#[test]
fn the_name_of_the_program_selects_the_runtime() {
    let fixture = fixture!();
    let bundle = fixture.bundle("echo ok");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.arg0("/usr/local/bin/kiln-runtime").arg("--root").arg(fixture.root());
    let done = Done::of(&command.args(["run", "-b", bundle.write(), &new_id("named")]).output().unwrap());
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "ok\n", ""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    let done = Done::of(&command.arg0("kiln-runtime").arg("-v").output().unwrap());
    assert!(done.out.starts_with("kiln-runtime version "), "{done:?}");
}

/// The default bundle is the working directory; the configuration may have another name.
#[test]
fn the_bundle_is_found() {
    let fixture = fixture!();
    let bundle = fixture.bundle("echo here");
    bundle.write();
    let mut command = fixture.command(&["run", &new_id("here")]);
    let done = Done::of(&command.current_dir(&bundle.dir).output().unwrap());
    assert_eq!(done.out, "here\n", "{done:?}");
    fs::rename(bundle.dir.join("config.json"), bundle.dir.join("other.json")).unwrap();
    let dir = bundle.dir.to_str().unwrap();
    let done = fixture.oci(&["run", "--config", "other.json", "--bundle", dir, &new_id("other")]);
    assert_eq!(done.out, "here\n", "{done:?}");
}

/// The last output of the program is not lost, regardless of its size.
#[test]
fn long_output_comes_whole() {
    let fixture = fixture!();
    let bundle = fixture.bundle("head -c 3000000 /dev/zero | tr '\\0' x; echo end");
    let mut child = fixture.spawn(&bundle, &new_id("long"));
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), 3_000_004);
    assert!(child.wait().unwrap().success() && text.ends_with("xend\n"));
}

/// A home directory that does not exist is ignored.
#[test]
fn an_empty_home_is_the_users() {
    let fixture = fixture!();
    for (environment, expected) in [
        (json!(["PATH=/bin", "HOME="]), "/root\n"),
        (json!(["HOME=/a", "PATH=/bin", "HOME="]), "/root\n"),
        (json!(["PATH=/bin", "HOME=/a"]), "/a\n"),
    ] {
        let done = fixture.sh("echo $HOME", |c| c["process"]["env"] = environment.clone());
        assert_eq!((done.out.as_str(), done.err.as_str()), (expected, ""), "{environment}");
    }
}
