//! Command lines that are wrong, and commands for containers that are in no state for them.

use crate::fixture::{Done, Fixture, new_id, wait_until};
use serde_json::json;
use std::fs;
use std::process::Command;

/// Commands that name a container, with what each needs besides.
const VERBS: [&[&str]; 10] = [
    &["start"],
    &["state"],
    &["kill"],
    &["delete"],
    &["ps"],
    &["pause"],
    &["resume"],
    &["update", "--memory", "1g"],
    &["events", "--stats"],
    &["exec"],
];

fn verb(fixture: &Fixture, verb: &[&str], id: &str) -> Done {
    let mut words = verb.to_vec();
    words.push(id);
    if verb == ["exec"] {
        words.push("true");
    }
    fixture.oci(&words)
}

/// Failed with one line that holds `expected`.
fn check(done: &Done, code: i32, expected: &str) {
    assert_eq!((done.code, done.out.as_str()), (code, ""), "{expected}: {done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    assert!(done.err.starts_with("kiln oci: ") && done.err.contains(expected), "{expected}: {done:?}");
}

#[test]
fn a_container_that_does_not_exist() {
    let fixture = fixture!();
    for words in VERBS {
        let code = if words == ["exec"] { 255 } else { 1 };
        check(&verb(&fixture, words, "nope"), code, "container \"nope\" does not exist");
        check(&verb(&fixture, words, "../nope"), code, "invalid container ID \"../nope\"");
        check(&verb(&fixture, words, ".."), code, "invalid container ID \"..\"");
    }
    assert_eq!(fixture.oci(&["delete", "--force", "nope"]).code, 0);
    let bundle = fixture.bundle("true");
    for id in ["", "a/b", ".a", "a b", "ä", &"x".repeat(2000)] {
        check(&fixture.oci(&["create", "--bundle", bundle.write(), id]), 1, "invalid container ID");
    }
    for command in ["checkpoint", "restore"] {
        check(&fixture.oci(&[command, "nope"]), 1, "is not supported: this runtime cannot save processes");
    }
    assert!(!fixture.root().exists(), "nothing is made for containers that are refused");
}

#[test]
fn a_container_that_has_stopped() {
    let fixture = fixture!();
    let bundle = fixture.bundle("exit 3");
    let id = new_id("over");
    assert_eq!(fixture.oci(&["run", "--keep", "--bundle", bundle.write(), &id]).code, 3);
    assert_eq!(fixture.state(&id)["status"], "stopped");
    assert_eq!(fixture.state(&id)["pid"], 0);
    check(&fixture.oci(&["start", &id]), 1, "cannot start a container that has stopped");
    check(&fixture.oci(&["kill", &id]), 1, &format!("container not running: {id}"));
    check(&fixture.oci(&["pause", &id]), 1, "container not running or created: stopped");
    check(&fixture.oci(&["resume", &id]), 1, "container not paused: it is stopped");
    check(&fixture.oci(&["events", "--stats", &id]), 1, &format!("container with id {id} is not running"));
    check(&fixture.oci(&["exec", &id, "true"]), 255, "cannot exec in a stopped container");
    assert_eq!(fixture.oci(&["ps", "--format", "json", &id]).out, "[]\n");
    check(&fixture.oci(&["create", "--bundle", bundle.write(), &id]), 1, "already exists");
    assert_eq!(fixture.oci(&["delete", &id]).code, 0);
    check(&fixture.oci(&["delete", &id]), 1, "does not exist");
}

#[test]
fn a_container_in_another_state() {
    let fixture = fixture!();
    let id = fixture.idle(|_| {});
    check(&fixture.oci(&["start", &id]), 1, "already running");
    check(&fixture.oci(&["resume", &id]), 1, "container not paused: it is running");
    check(&fixture.oci(&["delete", &id]), 1, "that is not stopped: running");
    assert_eq!(fixture.oci(&["pause", &id]).code, 0);
    check(&fixture.oci(&["pause", &id]), 1, "not running or created: paused");
    check(&fixture.oci(&["start", &id]), 1, "already running");
    check(&fixture.oci(&["delete", &id]), 1, "that is not stopped: paused");
    check(&fixture.oci(&["exec", &id, "true"]), 255, "cannot exec in a paused container");
    // A paused container can be killed.
    assert_eq!(fixture.oci(&["kill", &id, "KILL"]).code, 0);
    wait_until("a paused container ends", || fixture.state(&id)["status"] == "stopped");
}

#[test]
fn flags_and_values() {
    let fixture = fixture!();
    let id = fixture.idle(|_| {});
    for (words, code, expected) in [
        (&["kill", &id, "NOPE"][..], 1, "unknown signal \"NOPE\""),
        (&["kill", &id, "99"], 1, "unknown signal \"99\""),
        (&["kill", &id, "SIGRTMAX+1"], 1, "unknown signal \"SIGRTMAX+1\""),
        (&["kill", &id, "1", "2"], 1, "at most one signal"),
        (&["start"], 1, "start requires exactly 1 argument, the container's id; 0 were given"),
        (&["state", "a", "b"], 1, "state requires exactly 1 argument, the container's id; 2 were given"),
        (&["delete"], 1, "the container's id is missing"),
        (&["exec"], 255, "the container's id is missing"),
        (&["exec", &id], 255, "the program to run is missing"),
        (&["exec", "--nope", &id, "true"], 1, "flag provided but not defined: -nope"),
        (&["exec", "--user", "a b", &id, "true"], 255, "invalid user \"a b\""),
        (&["exec", "--user", "1:2:3", &id, "true"], 255, "invalid user \"1:2:3\""),
        (&["exec", "--user", "-1", &id, "true"], 255, "invalid user \"-1\""),
        (
            &["exec", "--user", "nobody", &id, "true"],
            255,
            "unable to find user nobody: no matching entries in passwd file",
        ),
        (&["exec", "--user", "app:none", &id, "true"], 255, "unable to find group none"),
        (&["exec", "-g", "x", &id, "true"], 255, "group \"x\" is not a number"),
        (&["exec", "-g", "4294967295", &id, "true"], 255, "can have the id 4294967295"),
        (&["exec", "--cwd", "tmp", &id, "true"], 255, "working directory `tmp` is not an absolute path"),
        (&["exec", "--cwd", "/no/such", &id, "true"], 255, "chdir `/no/such`: no such file or directory"),
        (&["exec", &id, "/no/such"], 255, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        (&["exec", &id, "/etc/passwd"], 255, "exec: \"/etc/passwd\": permission denied"),
        (&["exec", "--process", "/no/file", &id], 255, "cannot read `/no/file`: no such file or directory"),
        (
            &["exec", "--console-socket", "/no/socket", "-t", "-d", &id, "true"],
            255,
            "cannot connect to `/no/socket`: no such file or directory",
        ),
        (&["exec", "-t", "-d", &id, "true"], 255, "pass --console-socket"),
        (&["exec", "--console-socket", "/no/socket", &id, "true"], 255, "cannot use console socket"),
        (&["exec", "--preserve-fds", "x", &id, "true"], 255, "invalid value \"x\" for flag -preserve-fds"),
        (&["exec", "--preserve-fds", "99999999", &id, "true"], 255, "cannot keep 99999999 descriptors"),
        (&["exec", "--cgroup", "nope:x", &id, "true"], 255, "unknown controller nope in --cgroup"),
        (&["exec", "--cgroup", "../..", &id, "true"], 255, "../.. is not a sub cgroup path"),
        (&["exec", "--cgroup", "none", &id, "true"], 255, "/none"),
        (&["exec", "--pid-file", "/no/dir/pid", &id, "sleep", "1000"], 255, "cannot write `/no/dir/pid"),
        (&["update", "--memory", "x", &id], 1, "invalid value for memory: \"x\" is no size"),
        (&["update", "--memory", "-2", &id], 1, "\"-2\" is no size"),
        (&["update", "--pids-limit", "x", &id], 1, "invalid value \"x\" for flag -pids-limit"),
        (&["update", "--nope", &id], 1, "flag provided but not defined: -nope"),
        (&["update", "--l3-cache-schema", "x", &id], 1, "need a container with `intelRdt`"),
        (&["update", "-r", "/no/file", &id], 1, "cannot read `/no/file`: no such file or directory"),
        (
            &["update", "-r", "/etc/passwd", &id],
            1,
            "`/etc/passwd` is not a valid container configuration: expected",
        ),
        (&["events", "--interval", "x", &id], 1, "invalid duration \"x\""),
        (&["events", "--interval", "0s", &id], 1, "invalid duration \"0s\""),
        (&["ps", "--format", "x", &id], 1, "invalid format option \"x\""),
        (&["list", "--format", "x"], 1, "invalid format option \"x\""),
        (&["delete", "--regex", "("], 1, "invalid regular expression \"(\": unclosed group"),
        (&["run", "--bundle"], 1, "flag needs an argument: -bundle"),
        (&["run", "--detach=maybe", "x"], 1, "invalid boolean value \"maybe\" for -detach"),
    ] {
        check(&fixture.oci(words), code, expected);
    }
    let processes = fixture.oci(&["ps", "--format", "json", &id]);
    let processes: Vec<i32> = serde_json::from_str(&processes.out).unwrap();
    let sleeps = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split('\0').any(|word| word == "1000"))
    };
    assert!(!processes.iter().any(sleeps), "a program that could not be told of is not left behind");

    for (flags, expected) in [
        (&["--nope", "list"][..], "flag provided but not defined: -nope"),
        (&["--root"], "flag needs an argument: -root"),
        (&["--log-format", "x", "list"], "invalid log-format \"x\""),
        (&["--log-level", "x", "list"], "invalid log-level \"x\": error, warning and debug exist"),
        (&["--rootless", "x", "list"], "invalid value \"x\" for -rootless: true, false and auto exist"),
        (&["--criu", "/bin/true", "list"], "flag provided but not defined: -criu"),
        (&["--cgroup-manager", "x", "list"], "unknown cgroup manager \"x\""),
        (&["--cgroup-manager", "systemd", "list"], "use --cgroup-manager=cgroupfs"),
        (&["--systemd-cgroup", "list"], "--systemd-cgroup is not supported"),
        (&["frobnicate"], "No help topic for 'frobnicate'"),
    ] {
        let done =
            Done::of(&Command::new(env!("CARGO_BIN_EXE_kiln")).arg("oci").args(flags).output().unwrap());
        check(&done, 1, expected);
    }
}

#[test]
fn bundles_and_files_that_are_not_there() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("sleep 1000");
    let dir = bundle.write().to_owned();
    let empty = tempfile::tempdir().unwrap();
    let file = fixture.path().join("file");
    fs::write(&file, "").unwrap();
    let id = new_id("not-there");
    for (words, expected) in [
        (
            &["create", "--bundle", "/no/bundle", &id][..],
            "cannot open the bundle `/no/bundle`: no such file or directory",
        ),
        (
            &["create", "--bundle", empty.path().to_str().unwrap(), &id],
            "/config.json not found: a bundle holds one",
        ),
        (&["create", "--bundle", file.to_str().unwrap(), &id], "/config.json`: not a directory"),
        (&["run", "--bundle", &dir, "--config", "nope.json", &id], "/nope.json not found"),
        (&["create", "--bundle", &dir, "--pid-file", "/no/dir/pid", &id], "cannot write `/no/dir/pid"),
        (&["run", "--bundle", &dir, "--pid-file", "/no/dir/pid", &id], "cannot write `/no/dir/pid"),
        (&["create", "--bundle", &dir, "--console-socket", "/no/socket", &id], "cannot use console socket"),
        (
            &["create", "--bundle", &dir, "--pidfd-socket", "/no/socket", &id],
            "cannot connect to `/no/socket`",
        ),
        (
            &["create", "--bundle", &dir, "--preserve-fds", "x", &id],
            "invalid value \"x\" for flag -preserve-fds",
        ),
        (
            &["create", "--bundle", &dir, "--preserve-fds", "99999999", &id],
            "cannot keep 99999999 descriptors",
        ),
    ] {
        check(&fixture.oci(words), 1, expected);
        assert!(!fixture.root().join(&id).exists(), "{expected}");
    }
    bundle.config["process"]["terminal"] = json!(true);
    bundle.write();
    for (words, expected) in [
        (
            &["create", "--bundle", &dir, "--console-socket", "/no/socket", &id][..],
            "cannot connect to `/no/socket`: no such file or directory",
        ),
        (&["create", "--bundle", &dir, &id], "pass --console-socket"),
        (&["run", "--detach", "--bundle", &dir, &id], "pass --console-socket"),
        (&["run", "--bundle", &dir, "--console-socket", "/no/socket", &id], "cannot use console socket"),
    ] {
        check(&fixture.oci(words), 1, expected);
        assert!(!fixture.root().join(&id).exists(), "{expected}");
    }
    assert!(fixture.traces("not-there").is_empty(), "{:?}", fixture.traces("not-there"));

    bundle.config["process"]["terminal"] = json!(false);
    bundle.write();
    for (root, expected) in [("/proc/nope", "cannot make `/proc/nope`: "), (file.to_str().unwrap(), "/file/")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["oci", "--root", root, "create", "--bundle", &dir, &id]);
        check(&Done::of(&command.output().unwrap()), 1, expected);
    }
}

#[test]
fn processes_files_that_are_wrong() {
    let fixture = fixture!();
    let id = fixture.idle(|_| {});
    let file = fixture.path().join("process.json");
    for (text, expected) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        (r#"{"args":["true"],"cwd":"/""#, "EOF while parsing an object at line 1 column 26"),
        (r#"{"args":["true"]}"#, "missing field `cwd`"),
        (r#"{"args":[],"cwd":"/"}"#, "has no `args`"),
        (r#"{"args":["true"],"cwd":"tmp"}"#, "working directory `tmp` is not an absolute path"),
        (r#"{"args":["true\u0000"],"cwd":"/"}"#, "a text with a NUL character in it at line 1 column 15"),
        (r#"{"args":["true"],"cwd":"/","user":{"uid":4294967295,"gid":0}}"#, "can have the id 4294967295"),
        (r#"{"args":["true"],"cwd":"/","user":{"uid":"root","gid":0}}"#, "expected u32"),
        (
            r#"{"args":["true"],"cwd":"/","rlimits":[{"type":"RLIMIT_NOPE","soft":1,"hard":1}]}"#,
            "RLIMIT_NOPE",
        ),
        (r#"{"args":["true"],"cwd":"/","terminal":true}"#, ""),
    ] {
        fs::write(&file, text).unwrap();
        let done = fixture.oci(&["exec", "--process", file.to_str().unwrap(), &id]);
        if expected.is_empty() {
            assert_eq!((done.code, done.err.as_str()), (0, ""));
        } else {
            check(&done, 255, expected);
        }
    }
}

/// Version 1 lets a process of `exec` into a full cgroup, but no child of it.
#[test]
fn a_full_group() {
    let fixture = fixture!();
    if !std::path::Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists() {
        skip!("no pids controller of version 1");
    }
    let mut bundle = fixture.bundle("");
    bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 1});
    let id = fixture.up(&bundle);
    assert_eq!(fixture.oci(&["exec", &id, "true"]).code, 0);
    let done = fixture.exec(&id, "sleep 0 & wait");
    assert!(done.code != 0 && done.err.contains("can't fork"), "{done:?}");
}
