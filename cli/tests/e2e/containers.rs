//! `run`, `ps`, `rm`, and `inspect` of containers.

use crate::fixture::{Done, Fixture, kiln};
use std::io::Write;
use std::process::{Command, Stdio};

fn with_input(fixture: &Fixture, arguments: &[&str], input: &str) -> Done {
    let mut child = fixture
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Done::of(child.wait_with_output().unwrap())
}

#[test]
fn exit_codes_come_through() {
    let fixture = fixture!();
    let code = |line: &str| fixture.words(line).code;
    assert_eq!(code("run --rm busybox true"), 0);
    assert_eq!(fixture.kiln(&["run", "--rm", "busybox", "sh", "-c", "exit 3"]).code, 3);
    // The first process of a container cannot be killed from inside; its child can.
    assert_eq!(
        fixture.kiln(&["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code,
        137
    );
    assert_eq!(code("run --rm busybox nosuchprogram"), 127);
    assert_eq!(code("run --rm busybox /nosuchprogram"), 127);
    assert_eq!(code("run --rm busybox /etc/passwd"), 126);
    assert_eq!(code("run --rm busybox /etc"), 126);
    assert_eq!(code("run --rm nosuchimage"), 125);
    assert_eq!(code("run --nosuchflag busybox"), 125);
    assert_eq!(code("run"), 1);
    assert_eq!(code("nosuchcommand"), 1);
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn settings_reach_the_program() {
    let fixture = fixture!();
    let out = |arguments: &[&str]| {
        let done = fixture.kiln(arguments);
        assert_eq!(done.code, 0, "{}", done.err);
        done.out
    };
    assert_eq!(out(&["run", "--rm", "-w", "/made/here", "busybox", "pwd"]), "/made/here\n");
    assert_eq!(out(&["run", "--rm", "-u", "nobody", "busybox", "id", "-un"]), "nobody\n");
    assert_eq!(out(&["run", "--rm", "-u", "12:34", "busybox", "id", "-g"]), "34\n");
    assert_eq!(out(&["run", "--rm", "--hostname", "box", "busybox", "hostname"]), "box\n");
    assert_eq!(
        out(&["run", "--rm", "-e", "A=1", "-e", "B=x y", "busybox", "sh", "-c", "echo $A$B"]),
        "1x y\n"
    );
    assert_eq!(out(&["run", "--rm", "--entrypoint", "echo", "busybox", "-n", "hi"]), "hi");
    assert_eq!(out(&["run", "--rm", "busybox", "echo", "--rm", "-e"]), "--rm -e\n");
    assert_eq!(out(&["run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net"]), "lo\n");
    assert!(out(&["run", "--rm", "busybox", "ls", "/sys/class/net"]).contains("eth0"));
    assert_eq!(out(&["run", "--rm", "busybox", "cat"]), "", "without -i there is no input");
    let done = with_input(&fixture, &["run", "--rm", "-i", "busybox", "cat"], "through\n");
    assert_eq!(done.out, "through\n");
}

#[test]
fn a_first_process_reaps_and_passes_signals_on() {
    let fixture = fixture!();
    // The program itself is in the container, with the libraries of its image: one that has them.
    let done = fixture.kiln(&[
        "run",
        "--rm",
        "--init",
        "debian:bookworm",
        "sh",
        "-c",
        "cat /proc/1/comm; (sleep 0.1 &); exit 3",
    ]);
    assert_eq!((done.code, done.out.as_str()), (3, "docker-init\n"), "{}", done.err);
    let done =
        fixture.kiln(&["run", "--rm", "--init", "debian:bookworm", "sh", "-c", "kill -TERM 1; sleep 60"]);
    assert_eq!(done.code, 128 + 15, "{}", done.err);
    assert_eq!(fixture.kiln(&["run", "--rm", "--init", "debian:bookworm", "no-such"]).code, 127);
}

/// The init process of `--init` blocks signals to receive them: the program must not inherit that.
#[test]
fn a_first_process_leaves_no_trace_in_the_program() {
    let fixture = fixture!();
    fixture.ok("pull -q debian:bookworm");
    let signals = |init: &[&str]| {
        let program = ["debian:bookworm", "grep", "^Sig[BI]", "/proc/self/status"];
        let arguments: Vec<&str> = ["run", "--rm"].iter().chain(init).chain(&program).copied().collect();
        fixture.kiln(&arguments).out
    };
    assert_eq!(signals(&["--init"]), signals(&[]));
    assert!(signals(&["--init"]).contains("SigBlk:\t0000000000000000"));
    let script = "sleep 0.01 & wait; echo after";
    let done = fixture.kiln(&["run", "--rm", "--init", "debian:bookworm", "sh", "-c", script]);
    assert_eq!((done.code, done.out.as_str()), (0, "after\n"), "{}", done.err);
}

#[test]
fn a_first_process_passes_every_signal_on_and_reaps_orphans() {
    let fixture = fixture!();
    fixture.ok("pull -q debian:bookworm");
    let run =
        |script: &str| fixture.kiln(&["run", "--rm", "--init", "debian:bookworm", "bash", "-c", script]);
    // Real-time signals have numbers and no names.
    for signal in ["USR1", "RTMIN+3", "HUP", "ALRM"] {
        let script =
            format!("trap 'echo got; exit 7' {signal}; kill -s {signal} 1; while :; do sleep 0.01; done");
        let done = run(&script);
        assert_eq!((done.code, done.out.as_str()), (7, "got\n"), "{signal}: {}", done.err);
    }
    assert_eq!(run("kill -KILL $$").code, 128 + 9);
    assert_eq!(run("kill -RTMIN+3 $$").code, 128 + 37);
    // Orphans become children of the init process, and are reaped.
    let script = "(sleep 0.01 & echo $!) > /tmp/pid; pid=$(cat /tmp/pid); while [ -e /proc/$pid ]; do sleep 0.01; done; \
                  echo reaped";
    assert_eq!(run(script).out, "reaped\n");
    let mut child = fixture.start(&[
        "run",
        "--rm",
        "--init",
        "debian:bookworm",
        "bash",
        "-c",
        "echo ready; while :; do sleep 0.01; done",
    ]);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15), "nothing handles it: it ends the program");
}

#[test]
fn errors_explain_why_a_program_cannot_run() {
    let fixture = fixture!();
    fixture.write("c/text", "echo hi\n");
    fixture.write("c/mark", "\u{feff}#!/bin/sh\n");
    fixture.write("c/empty", "");
    let mut elf = vec![0u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 22;
    std::fs::write(fixture.path("c/other"), elf).unwrap();
    fixture.build("odd", &fixture.context("c", "FROM busybox\nCOPY --chmod=755 text mark empty other /\n"));
    for (program, reason) in [
        ("/text", "whose first line is not `#!` with an interpreter"),
        ("/mark", "a byte order mark stands before"),
        ("/empty", "the file is empty"),
        ("/other", "it is a program for s390x, this host is "),
    ] {
        let done = fixture.words(&format!("run --rm odd {program}"));
        assert_eq!(done.code, 126, "{}", done.err);
        let told = format!("exec: \"{program}\": exec format error: ");
        assert!(done.err.contains(&told) && done.err.contains(reason), "{}", done.err);
    }
    let text = "FROM odd\nRUN [\"/text\"]\n";
    assert!(fixture.fails(&fixture.context("r", text)).err.contains("exec format error: it is a text"));
}

#[test]
fn host_names_with_a_domain_are_known_without_it() {
    let fixture = fixture!();
    let hosts =
        |name: &str| fixture.kiln(&["run", "--rm", "-h", name, "busybox", "tail", "-n1", "/etc/hosts"]).out;
    assert!(hosts("web.example.org").ends_with("\tweb.example.org web\n"));
    assert!(hosts("box").ends_with("\tbox\n"));
}

/// Without other name servers, those of the reference engine, with one warning for any number of containers.
#[test]
fn hosts_with_local_name_servers_alone_are_helped_out() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("resolv.conf", "nameserver 127.0.0.1\nsearch lan\n");
    fixture.write("empty", "");
    let text = "FROM busybox\nRUN cat /etc/resolv.conf\nRUN grep 8.8 /etc/resolv.conf\n";
    let context = fixture.context("c", text).display().to_string();
    let run = |words: &str| {
        let resolved = "/run/systemd/resolve/resolv.conf";
        let script = format!(
            "mount --bind {} /etc/resolv.conf; [ ! -e {resolved} ] || mount --bind {} {resolved}; exec {} {words}",
            fixture.path("resolv.conf").display(),
            fixture.path("empty").display(),
            kiln().display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
        for (name, value) in fixture.command::<&str>(&[]).get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Done::of(command.output().unwrap())
    };
    let servers = "search lan\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";
    let done = run("run --rm busybox cat /etc/resolv.conf");
    assert_eq!((done.code, done.out.as_str()), (0, servers), "{}", done.err);
    assert_eq!(done.err.matches("8.8.8.8 and 8.8.4.4").count(), 1, "{}", done.err);
    let done = run("run --rm --network none busybox true");
    assert_eq!(done.err, "", "without a network nothing is asked");
    let done = run(&format!("build {context}"));
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(done.err.matches("they ask 8.8.8.8 and 8.8.4.4").count(), 1, "{}", done.err);
}

#[test]
fn output_and_errors_stay_apart() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let done = fixture.kiln(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_terminal_is_a_terminal() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = format!("{} run --rm -it busybox sh -c 'tty; exit 5'", kiln().display());
    let done = Command::new("script")
        .args(["-qec", &script, "/dev/null"])
        .env("KILN_ROOT", fixture.root())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = done else { skip!("needs script(1) for a terminal") };
    let done = Done::of(output);
    assert_eq!(done.code, 5, "{}", done.out);
    assert!(done.out.contains("/dev/pts/0"), "{}", done.out);
    assert_eq!(fixture.words("run --rm -it busybox true").code, 1, "-t needs a terminal");
}

#[test]
fn signals_are_passed_on() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let program = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = fixture.start(&["run", "--rm", "busybox", "sh", "-c", program]);
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "ready\ngot it\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn containers_are_kept_listed_and_removed() {
    let fixture = fixture!();
    assert_eq!(fixture.words("run --name one busybox sh -c true").code, 0);
    assert_eq!(fixture.kiln(&["run", "--name", "two", "busybox", "sh", "-c", "echo x > /f; exit 4"]).code, 4);
    assert_eq!(fixture.ok("ps -q"), "");
    let list = fixture.kiln(&["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.State}}"]);
    assert_eq!(list.out, "two busybox exited\none busybox exited\n");
    let taken = fixture.words("run --name one busybox true");
    assert_eq!(taken.code, 125);
    assert!(taken.err.contains("The container name \"/one\" is already in use"), "{}", taken.err);
    let state = fixture.kiln(&["inspect", "-f", "{{.Name}} {{.State.ExitCode}} {{.State.Status}}", "two"]);
    assert_eq!(state.out, "/two 4 exited\n");
    for (template, expected) in [
        ("{{.HostConfig.NanoCPUs}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy}}", ""),
        ("{{.HostConfig.NanoCPUs}} {{.HostConfig.RestartPolicy}} {{.HostConfig.Init}}", "0 {no 0} <nil>"),
        ("{{.HostConfig.CpuShares}} {{json .HostConfig.Ulimits}} {{.HostConfig.UsernsMode}}|", "0 [] |"),
        ("{{.State.Health}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "<nil> none"),
        ("{{.NetworkSettings.Ports}} {{.NetworkSettings.SandboxID}}|{{.Mounts}}", "map[] |[]"),
        ("{{.Config.ExposedPorts}} {{.Config.StopTimeout}} {{.Config.Shell}}", "map[] <nil> []"),
        ("{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}", "bridge"),
    ] {
        let shown = fixture.kiln(&["inspect", "-f", template, "two"]);
        assert_eq!(shown.out.trim_end(), expected, "{template}: {}", shown.err);
    }
    assert_eq!(fixture.words("rmi busybox").code, 1, "containers use it");
    assert_eq!(fixture.ok("rm one two"), "one\ntwo\n");
    assert_eq!(fixture.ok("ps -aq"), "");
    let gone = fixture.words("rm one");
    let expected =
        "ERROR: No such container: one\nhint: `kiln ps -a` lists the containers, those that have ended too\n";
    assert_eq!((gone.code, gone.err.as_str()), (1, expected));
    fixture.ok("rmi busybox");
    assert_eq!(fixture.ok("images -q"), "");
}

#[test]
fn running_containers_are_removed_only_by_force() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let mut child =
        fixture.start(&["run", "--name", "runs", "busybox", "sh", "-c", "echo ready; sleep 1000"]);
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(fixture.kiln(&["ps", "--format", "{{.Names}} {{.State}}"]).out, "runs running\n");
    let refused = fixture.words("rm runs");
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("container is running"), "{}", refused.err);
    fixture.ok("rm -f runs");
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(fixture.ok("ps -aq"), "");
}

/// Owner and mode of the root are the same for every image, as in the reference engine.
#[test]
fn the_root_directory_belongs_to_root() {
    let fixture = fixture!();
    fixture.build("c", &fixture.context("c", "FROM busybox\nRUN chmod 711 / && chown 5:6 / && touch /x\n"));
    assert_eq!(fixture.kiln(&["run", "--rm", "c", "stat", "-c", "%a %u %g", "/"]).out, "755 0 0\n");
}

#[test]
fn a_damaged_record_blocks_no_other_container() {
    let fixture = fixture!();
    fixture.ok("run --name good busybox true");
    fixture.ok("run --name torn busybox true");
    let id = fixture.ok("ps -aq --no-trunc --format {{.ID}}").lines().next().unwrap().to_owned();
    let short = &id[..12];
    std::fs::write(fixture.root().join("containers").join(&id).join("container.json"), "").unwrap();
    let warning = format!("warning: container {short} is damaged: ");
    let list = fixture.words("ps -a --format {{.ID}}|{{.Names}}|{{.State}}|{{.Status}}");
    assert!(list.out.starts_with(&format!("{short}|torn|dead|Dead\n")), "{}", list.out);
    assert!(list.err.starts_with(&warning) && list.err.lines().count() == 1, "{}", list.err);
    assert!(list.err.ends_with(&format!("`kiln rm {short}` removes it\n")), "{}", list.err);
    assert_eq!(fixture.ok("inspect -f {{.State.Status}} torn"), "dead\n");
    assert_eq!(fixture.ok("inspect -f {{.State.Status}} good"), "exited\n");
    fixture.ok("rm good");
    fixture.ok("run --rm busybox true");
    let info = fixture.words("info --format {{.Containers}}");
    assert_eq!((info.code, info.out.trim()), (0, "1"), "{}", info.err);
    // Its layers stay until it is removed.
    fixture.ok("rmi busybox");
    let layers = || {
        let entries = std::fs::read_dir(fixture.root().join("layers")).unwrap().flatten();
        entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
    };
    assert_ne!(layers(), 0);
    assert_eq!(fixture.ok("rm torn"), "torn\n");
    assert_eq!(fixture.ok("ps -aq"), "");
}
