//! Containers whose monitor was killed, and containers after a boot of the host.

use crate::fixture::{Done, Fixture};
use crate::lifecycle::{shell, status, until};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;

/// Pids of the fixture's monitors.
pub fn monitors(fixture: &Fixture) -> Vec<i32> {
    let root = fixture.root().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let path = entry.path();
        let is_monitor = fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "kiln-monitor\n");
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let is_ours = environment.windows(root.len()).any(|window| window == root.as_bytes());
        (is_monitor && is_ours).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    processes.collect()
}

/// Kills the only monitor of the fixture, and waits for its end.
#[track_caller]
pub fn kill_monitor(fixture: &Fixture) {
    let found = monitors(fixture);
    assert_eq!(found.len(), 1, "{found:?}");
    let pid = rustix::process::Pid::from_raw(found[0]).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None)
        .unwrap();
}

/// Record of the container `name`.
fn record(fixture: &Fixture, name: &str) -> PathBuf {
    let id = fixture.ok(&format!("inspect -f {{{{.Id}}}} {name}"));
    fixture.root().join("containers").join(id.trim()).join("container.json")
}

const REPLACED: &str = "warning: the monitor of container web was killed, and is replaced";

#[test]
fn containers_survive_their_monitor() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    // The program would be ended by SIGPIPE, and then write nothing more.
    let script = "while true; do echo x; echo x >> /count; sleep 0.02; done";
    let done = shell(&fixture, "-d --name web", script);
    assert_eq!(done.code, 0, "{}", done.err);
    kill_monitor(&fixture);
    let file = record(&fixture, "web").with_file_name("layer/upper/count");
    let size = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
    let before = size();
    while size() == before {}
    assert_eq!(status(&fixture, "web"), "running/0");
    assert!(fixture.words("rm web").err.contains("container is running"));
    assert_eq!(monitors(&fixture), Vec::<i32>::new(), "lists and refusals change nothing");
    let done = fixture.words("start web");
    assert_eq!((done.code, done.out.as_str()), (0, "web\n"));
    assert!(done.err.starts_with(REPLACED), "{}", done.err);
    assert_eq!(fixture.words("start web").err, "");
    fixture.ok("stop -t 0 web");
    assert_eq!(status(&fixture, "web"), "exited/137");
    assert_eq!(fixture.ok("inspect -f {{.State.Error}} web"), "\n");
    fixture.ok("start web");
    assert_eq!(status(&fixture, "web"), "running/0");
    kill_monitor(&fixture);
    assert_eq!(fixture.ok("rm -f web"), "web\n");
    // A container that is to be removed at its end stays while its program runs.
    shell(&fixture, "-d --rm --name web", script);
    kill_monitor(&fixture);
    assert!(fixture.ok("ps").contains("web"));
    fixture.ok("kill web");
    until(&fixture, "ps -aq", |done| done.out.is_empty());
}

/// What the program writes while no monitor reads waits in its pipes, and its exit code is that of the program.
#[test]
fn further_monitors_go_on_with_logs_and_exit_codes() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "read first; echo $first; while [ ! -e /early ]; do sleep 0.02; done; echo early; touch /done; \
                  while [ ! -e /go ]; do sleep 0.02; done; echo late; read last; echo $last >&2; exit 9";
    shell(&fixture, "-d -i --name web", script);
    let attach = || {
        let mut command = fixture.command(&["attach", "web"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut attached = attach();
    attached.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    let mut line = String::new();
    BufReader::new(attached.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    kill_monitor(&fixture);
    let gone = Done::of(attached.wait_with_output().unwrap());
    assert!(gone.code == 125 && gone.err.contains("monitor of the container was killed"), "{gone:?}");
    let pid = fixture.ok("inspect -f {{.State.Pid}} web");
    let root = PathBuf::from(format!("/proc/{}/root", pid.trim()));
    fs::write(root.join("early"), "").unwrap();
    while !root.join("done").exists() {}
    assert_eq!(monitors(&fixture), Vec::<i32>::new());
    // Several commands notice it at once, and one monitor is made.
    let noticing: Vec<_> = (0..4).map(|_| fixture.start(&["start", "web"])).collect();
    for command in noticing {
        let done = Done::of(command.wait_with_output().unwrap());
        assert_eq!((done.code, done.out.as_str()), (0, "web\n"), "{}", done.err);
    }
    assert_eq!(monitors(&fixture).len(), 1);
    fs::write(root.join("go"), "").unwrap();
    let waiting = fixture.start(&["wait", "web"]);
    let mut following = fixture.start(&["logs", "-f", "web"]);
    let mut logs = BufReader::new(following.stdout.take().unwrap());
    line.clear();
    while !line.ends_with("late\n") {
        assert_ne!(logs.read_line(&mut line).unwrap(), 0, "{line}");
    }
    assert_eq!(line, "one\nearly\nlate\n");
    // The program has not noticed that its input had no other end for a while.
    let mut attached = attach();
    attached.stdin.as_mut().unwrap().write_all(b"two\n").unwrap();
    let ended = Done::of(attached.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.err.as_str()), (9, "two\n"));
    let done = Done::of(waiting.wait_with_output().unwrap());
    assert_eq!((done.code, done.out.as_str()), (0, "9\n"), "{}", done.err);
    assert!(following.wait().unwrap().success());
    assert_eq!(status(&fixture, "web"), "exited/9");
    fixture.ok("rm web");
}

#[test]
fn policies_hold_under_further_monitors() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "echo run >> /runs; while [ ! -e /go ]; do sleep 0.02; done; rm /go; exit 3";
    shell(&fixture, "-d --name web --restart on-failure:5", script);
    kill_monitor(&fixture);
    let done = fixture.words("exec web touch /go");
    assert!(done.code == 0 && done.err.starts_with(REPLACED), "{done:?}");
    until(&fixture, "inspect -f {{.RestartCount}}/{{.State.Status}} web", |done| done.out == "1/running\n");
    assert_eq!(fixture.ok("exec web cat /runs"), "run\nrun\n");
    // The second program is a child of its monitor again.
    kill_monitor(&fixture);
    fixture.ok("stop -t 0 web");
    assert_eq!(status(&fixture, "web"), "exited/137");
    fixture.ok("rm web");
    shell(&fixture, "-d --rm --name web", script);
    kill_monitor(&fixture);
    fixture.ok("exec web touch /go");
    until(&fixture, "ps -aq", |done| done.out.is_empty());
}

#[test]
fn ends_without_a_monitor_are_recorded_as_unknown() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    shell(&fixture, "-d --name web --pid host", "sleep 1000 & while [ ! -e /go ]; do sleep 0.02; done");
    let pid = fixture.ok("inspect -f {{.State.Pid}} web").trim().to_owned();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    kill_monitor(&fixture);
    fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
    let done =
        until(&fixture, "inspect -f {{.State.Status}}/{{.State.ExitCode}}/{{.State.Error}} web", |done| {
            done.out.starts_with("exited")
        });
    // Where the host's first process reaps none, the program can still be asked.
    let unknown = "exited/255/its monitor was killed, so its exit code is unknown\n";
    assert!([unknown, "exited/0/\n"].contains(&done.out.as_str()), "{}", done.out);
    let has_ended = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    for child in children.split_whitespace() {
        while !has_ended(child) {}
    }
    fixture.ok("rm web");
}

#[test]
fn lost_terminals_are_reported() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    shell(&fixture, "-dt --name web", "trap '' HUP; while true; do sleep 0.1; done");
    kill_monitor(&fixture);
    let refused = fixture.words("attach web");
    assert!(refused.code == 1 && refused.err.contains("its terminal is lost"), "{}", refused.err);
    let refused = fixture.words("attach web");
    assert!(refused.err.contains("the terminal of container web was lost"), "{}", refused.err);
    assert!(refused.err.contains("kiln restart web"), "{}", refused.err);
    fixture.ok("restart -t 0 web");
    assert_eq!(fixture.ok("inspect -f {{.State.Status}} web"), "running\n");
    fixture.ok("rm -f web");
}

#[test]
fn paused_containers_without_a_monitor_go_on_and_end() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let paused = || {
        shell(&fixture, "-d --name web", "trap 'exit 3' TERM; while true; do sleep 0.02; done");
        fixture.ok("pause web");
        kill_monitor(&fixture);
    };
    paused();
    assert_eq!(fixture.ok("unpause web"), "web\n");
    assert_eq!(status(&fixture, "web"), "running/0");
    assert_eq!(fixture.ok("rm -f web"), "web\n");
    paused();
    assert_eq!(fixture.ok("stop web"), "web\n");
    assert_eq!(status(&fixture, "web"), "exited/3");
    fixture.ok("rm web");
    paused();
    assert_eq!(fixture.ok("rm -f web"), "web\n");
    assert_eq!(fixture.ok("ps -aq"), "");
}

/// Makes the record of a container one of another boot. Its program must not run.
fn age(fixture: &Fixture, name: &str) {
    let path = record(fixture, name);
    let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let own = own.trim();
    assert!(text.contains(own), "{text}");
    fs::write(path, text.replace(own, "00000000-0000-0000-0000-000000000000")).unwrap();
}

#[test]
fn a_boot_starts_what_should_run() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
    for (name, policy) in [
        ("always", "always"),
        ("kept", "unless-stopped"),
        ("stopped", "unless-stopped"),
        ("never", "no"),
        ("failing", "on-failure"),
    ] {
        shell(&fixture, &format!("-d --name {name} --restart {policy}"), script);
    }
    fixture.ok("create --name new --restart always busybox true");
    fixture.ok("stop -t 0 always stopped");
    // Here the host is switched off.
    let pids = fixture.ok("inspect -f {{.State.Pid}} kept never failing");
    let files: Vec<PathBuf> =
        ["kept", "never", "failing"].iter().map(|name| record(&fixture, name)).collect();
    let records: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for pid in monitors(&fixture).into_iter().chain(pids.lines().map(|pid| pid.parse().unwrap())) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    until(&fixture, "ps -q", |done| done.out.is_empty());
    files.iter().zip(records).for_each(|(file, record)| fs::write(file, record).unwrap());
    let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(own.trim()), "{text}");
        fs::write(file, text.replace(own.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
    }
    assert_eq!(fixture.ok("ps -q"), "", "after a boot nothing runs");
    assert_eq!(
        fixture.ok("inspect -f {{.State.ExitCode}}/{{.State.Error}} never"),
        "255/the host was restarted while it ran, so its exit code is unknown\n"
    );
    let boots: Vec<_> = (0..3).map(|_| fixture.start(&["system", "boot"])).collect();
    let done: Vec<Done> = boots.into_iter().map(|boot| Done::of(boot.wait_with_output().unwrap())).collect();
    let mut lines: Vec<&str> = done.iter().flat_map(|done| done.out.lines()).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["started always", "started kept"], "{done:?}");
    assert!(done.iter().all(|done| done.code == 0 && done.err.is_empty()), "{done:?}");
    assert_eq!(fixture.ok("system boot"), "", "again it changes nothing");
    // A shutdown stops them without the user's wish that they stay stopped.
    assert_eq!(fixture.ok("system boot --stop"), "stopped always\nstopped kept\n");
    assert_eq!(fixture.ok("system boot"), "started always\nstarted kept\n");
    fixture.ok("rm -f always kept stopped never failing new");
}

#[test]
fn a_record_of_another_boot_names_no_process() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    shell(&fixture, "-d --name web", "while true; do sleep 0.1; done");
    let pid = fixture.ok("inspect -f {{.State.Pid}} web").trim().to_owned();
    kill_monitor(&fixture);
    // The process has the pid and the start time of the record by chance.
    age(&fixture, "web");
    assert_eq!(status(&fixture, "web"), "exited/255");
    assert_eq!(fixture.ok("rm -f web"), "web\n");
    assert!(fs::exists(format!("/proc/{pid}/root")).unwrap(), "a process of another kind is not killed");
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_boot_adopts_and_goes_on_after_failures() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let dir = fixture.path("mounted");
    fs::create_dir(&dir).unwrap();
    let mount = format!("type=bind,src={},dst=/data", dir.display());
    let flags = format!("-d --name bad --restart always --mount {mount}");
    shell(&fixture, &flags, "while true; do sleep 0.1; done");
    fixture.ok("stop -t 0 bad");
    fs::remove_dir(&dir).unwrap();
    shell(&fixture, "-d --name web", "while true; do sleep 0.1; done");
    kill_monitor(&fixture);
    let done = fixture.words("system boot");
    assert_eq!((done.code, done.out.as_str()), (1, "adopted web\n"), "{}", done.err);
    assert!(
        done.err.contains("container bad does not start:") && done.err.contains("mounted"),
        "{}",
        done.err
    );
    fixture.ok("stop -t 0 web");
    assert_eq!(status(&fixture, "web"), "exited/137");
    fixture.ok("rm bad web");
}

#[test]
fn units_are_written_and_printed() {
    let fixture = fixture!();
    let dir = fixture.path("units");
    let install = format!("system install-units --dir {}", dir.display());
    let failed = fixture.words(&install);
    assert!(failed.code == 1 && failed.err.contains("kiln.service"), "{}", failed.err);
    fs::create_dir(&dir).unwrap();
    let printed = fixture.ok(&format!("{install} --dry-run"));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert!(
        printed.contains(&format!("Environment=\"KILN_ROOT={}\"", fixture.root().display())),
        "{printed}"
    );
    let path = dir.join("kiln.service");
    let done = fixture.words(&install);
    assert_eq!((done.code, done.out), (0, format!("{}\n", path.display())));
    assert!(done.err.contains("systemctl enable --now kiln.service"), "{}", done.err);
    assert_eq!(fs::read_to_string(&path).unwrap(), printed);
    fixture.ok(&install);
    fs::write(&path, "[Service]\n").unwrap();
    let refused = fixture.words(&install);
    assert!(refused.code == 1 && refused.err.contains("--force"), "{}", refused.err);
    assert_eq!(fs::read_to_string(&path).unwrap(), "[Service]\n");
    fixture.ok(&format!("{install} --force"));
    assert_eq!(fs::read_to_string(&path).unwrap(), printed);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    let verify = std::process::Command::new("systemd-analyze").arg("verify").arg(&path).output();
    let Ok(verified) = verify else { skip!("needs a host with systemd-analyze") };
    let text = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !text.contains("kiln.service:"), "{text}");
}

/// The next container does not get the address of one whose monitor was killed, nor its link.
#[test]
fn addresses_stay_with_their_containers() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    shell(&fixture, "-d --name web", "while true; do sleep 0.1; done");
    let address = |name: &str| {
        let template = "{{.NetworkSettings.IPAddress}}";
        fixture.kiln(&["inspect", "-f", template, name]).out.trim().to_owned()
    };
    let first = address("web");
    kill_monitor(&fixture);
    shell(&fixture, "-d --name other", "while true; do sleep 0.1; done");
    assert_ne!(first, address("other"));
    let gateway = fixture.kiln(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "web"]).out;
    let done = fixture.kiln(&["exec", "web", "ping", "-c", "1", "-W", "9", gateway.trim()]);
    assert!(done.out.contains("1 packets received"), "{}{}", done.out, done.err);
    fixture.ok("rm -f web other");
}
