//! Commands on containers that run: `exec`, `stop`, `kill`.

use crate::fixture::{Done, Fixture};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

/// A container that runs a shell, which has printed that it is ready.
fn start(fixture: &Fixture, name: &str, script: &str) -> Child {
    let script = format!("{script}; echo ready; while true; do sleep 0.05; done");
    let mut command = fixture.command(&["run", "--name", name, "-e", "A=1", "busybox", "sh", "-c", &script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn end(fixture: &Fixture, name: &str, mut child: Child) {
    fixture.ok(&format!("rm -f {name}"));
    child.wait().unwrap();
}

#[test]
fn programs_run_in_the_container() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", "echo inside > /tmp/f");
    let exec = |words: &[&str]| fixture.kiln(&[&["exec"], words].concat());
    assert_eq!(exec(&["web", "cat", "/tmp/f"]).out, "inside\n");
    let done = exec(&["-e", "B=2", "-w", "/tmp", "web", "sh", "-c", "echo $A $B $(pwd) $(hostname); exit 7"]);
    let id = fixture.ok("ps -q --no-trunc");
    assert_eq!((done.code, done.out), (7, format!("1 2 /tmp {}\n", &id[..12])));
    assert_eq!(exec(&["-u", "1000:20", "web", "sh", "-c", "id -u; id -g"]).out, "1000\n20\n");
    // All namespaces, the cgroups and what confines the container's own program.
    let same = "for n in cgroup ipc mnt net pid uts user; do \
        [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done; \
        cmp /proc/1/cgroup /proc/self/cgroup; \
        for f in CapEff CapBnd Seccomp NoNewPrivs; do \
        [ \"$(grep $f: /proc/1/status)\" = \"$(grep $f: /proc/self/status)\" ] || echo $f; done";
    let done = exec(&["web", "sh", "-c", same]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("", ""));
    // Devices of the host stay closed, also those that the program creates.
    let device = exec(&["web", "sh", "-c", "mknod /tmp/d b 7 0; cat /tmp/d"]);
    assert!(device.code != 0 && device.err.contains("not permitted"), "{}", device.err);
    fixture.write("variables", "C=3\n");
    let file = fixture.path("variables");
    assert_eq!(exec(&["--env-file", file.to_str().unwrap(), "web", "sh", "-c", "echo $C"]).out, "3\n");
    let caps = exec(&[
        "--privileged",
        "web",
        "sh",
        "-c",
        "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status",
    ]);
    assert!(!caps.out.contains("00000000a80425fb") && caps.out.contains("Seccomp:\t0"), "{}", caps.out);
    end(&fixture, "web", running);
}

#[test]
fn input_is_passed_on_when_asked_for() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", "true");
    let with_input = |flags: &[&str]| {
        let mut command = fixture.command(&[&["exec"], flags, &["web", "cat"]].concat());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Without -i the input may stay unread.
        let _ = child.stdin.take().unwrap().write_all(b"typed\n");
        Done::of(child.wait_with_output().unwrap())
    };
    assert_eq!(with_input(&["-i"]).out, "typed\n");
    assert_eq!(with_input(&[]).out, "");
    end(&fixture, "web", running);
}

#[test]
fn failures_of_exec_have_the_codes_of_docker() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", "touch /tmp/plain");
    for (words, code, text) in [
        ("exec web nosuch", 127, "executable file not found in $PATH"),
        ("exec web bash", 127, "try sh"),
        ("exec web /tmp/plain", 126, "permission denied"),
        ("exec web /etc", 126, "hint: "),
        ("exec -u nosuch web true", 1, "unable to find user nosuch"),
        ("exec -w tmp web true", 1, "absolute path"),
        ("exec wen true", 1, "did you mean web?"),
        ("exec web", 1, ""),
    ] {
        let done = fixture.words(words);
        assert!(done.code == code && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
    let done = fixture.words("exec web bash");
    assert!(done.err.contains("the container has no bash: try sh (it has /bin/sh)"), "{}", done.err);
    end(&fixture, "web", running);
    fixture.ok("run --name done busybox true");
    let done = fixture.words("exec done true");
    assert!(
        done.code == 1 && done.err.contains("is not running") && done.err.contains("hint: "),
        "{}",
        done.err
    );
}

/// The record names the init process before its mounts are the container's: exec waits for the program.
#[test]
fn programs_wait_until_the_container_is_set_up() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    for round in 0..15 {
        let name = format!("round{round}");
        let running =
            fixture.start(&["run", "--name", &name, "--hostname", "inside", "busybox", "sleep", "1000"]);
        let done = loop {
            let done = fixture.words(&format!("exec {name} cat /etc/hostname"));
            if !done.err.contains("No such container") && !done.err.contains("is not running") {
                break done;
            }
        };
        assert_eq!((done.code, done.out.as_str()), (0, "inside\n"), "{}", done.err);
        end(&fixture, &name, running);
    }
}

/// Without the container's cgroups a program would not be under its device rules.
#[test]
fn containers_of_unknown_cgroups_take_no_programs() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", "true");
    let id = fixture.ok("ps -q --no-trunc");
    let record = fixture.root().join("containers").join(id.trim()).join("container.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    // As older versions wrote it.
    json.as_object_mut().unwrap().remove("groups").unwrap();
    std::fs::write(&record, json.to_string()).unwrap();
    let done = fixture.words("exec web true");
    assert!(
        done.code == 1 && done.err.contains("older version") && done.err.contains("hint: "),
        "{}",
        done.err
    );
    end(&fixture, "web", running);
}

/// The program ends with the container, and with the command: nothing is left behind.
#[test]
fn programs_end_with_the_container_and_with_the_command() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", "true");
    let started = |name: &str| {
        let script = format!("echo {name}; while true; do sleep 0.05; done");
        let mut command = fixture.command(&["exec", "web", "sh", "-c", &script]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{name}\n"));
        child
    };
    let mut killed = started("killed");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let count = || fixture.kiln(&["exec", "web", "sh", "-c", "ps | grep -c '[e]cho killed'"]).out;
    while count() != "0\n" {}
    let mut ended = started("ended");
    end(&fixture, "web", running);
    assert_eq!(ended.wait().unwrap().code(), Some(137));
}

#[test]
fn containers_are_stopped_in_their_own_way() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let mut running = start(&fixture, "polite", "trap 'exit 3' TERM");
    assert_eq!(fixture.ok("stop polite"), "polite\n");
    assert_eq!(running.wait().unwrap().code(), Some(3));
    assert_eq!(fixture.ok("stop polite"), "polite\n", "one that has ended is stopped");
    let mut running = start(&fixture, "deaf", "trap '' TERM");
    assert_eq!(fixture.ok("stop -t 0 deaf"), "deaf\n");
    assert_eq!(running.wait().unwrap().code(), Some(137));
    let context = fixture.context("c", "FROM busybox\nSTOPSIGNAL USR1\n");
    assert_eq!(fixture.kiln(&["build".as_ref(), "-t".as_ref(), "own".as_ref(), context.as_os_str()]).code, 0);
    let script = "trap 'exit 4' USR1; echo ready; while true; do sleep 0.05; done";
    let mut command = fixture.command(&["run", "--name", "own", "own", "sh", "-c", script]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    fixture.ok("stop own");
    assert_eq!(running.wait().unwrap().code(), Some(4));
    let done = fixture.words("stop nosuch polite");
    assert!(
        done.code == 1 && done.out == "polite\n" && done.err.contains("No such container: nosuch"),
        "{done:?}"
    );
}

#[test]
fn signals_are_sent_by_name_and_number() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let mut running = start(&fixture, "web", "trap 'echo heard; exit 5' HUP");
    assert_eq!(fixture.ok("kill -s HUP web"), "web\n");
    assert_eq!(running.wait().unwrap().code(), Some(5));
    let done = fixture.words("kill web");
    assert!(done.code == 1 && done.err.contains("cannot kill container: web"), "{}", done.err);
    let mut running = start(&fixture, "other", "true");
    let done = fixture.words("kill --signal NOSUCH other");
    assert!(done.code == 1 && done.err.contains("invalid signal: NOSUCH"), "{}", done.err);
    assert_eq!(fixture.ok("container kill -s 9 other"), "other\n");
    assert_eq!(running.wait().unwrap().code(), Some(137));
}

/// The command returns at once; the program runs on, and its output is dropped.
#[test]
fn programs_run_on_in_the_background() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", "mkfifo /go /done");
    let exec = |words: &[&str]| fixture.kiln(&[&["exec"], words].concat());
    // More output than a pipe or a terminal holds.
    let script = "seq 1 50000; echo err >&2; read x </go; echo $x $(test -t 0 && echo tty) >/done";
    for (flags, terminal) in [("-d", ""), ("-dt", " tty"), ("-dit", " tty")] {
        let done = exec(&[flags, "web", "sh", "-c", script]);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", ""));
        let done = exec(&["web", "sh", "-c", "echo heard >/go; cat /done"]);
        assert_eq!(done.out.trim_end(), format!("heard{terminal}"), "{flags}");
    }
    for (program, code, text) in [("nosuch", 127, "executable file not found"), ("/etc", 126, "hint: ")] {
        let done = exec(&["-d", "web", program]);
        assert!(done.code == code && done.err.contains(text), "{program}: {} {}", done.code, done.err);
    }
    assert_eq!(exec(&["--detach-keys", "nope", "web", "true"]).code, 1);
    // One that still runs ends with the container, and keeps it from nothing.
    assert_eq!(exec(&["-d", "web", "sleep", "1000"]).code, 0);
    end(&fixture, "web", running);
}
