//! `kiln wait --condition` and `kiln run --wait`.

use crate::fixture::{Done, Fixture};
use std::io::{BufRead, BufReader};
use std::process::Child;

const FOREVER: &str = "trap exit TERM; while :; do sleep 0.02; done";

/// Starts a container with a shell script as its program.
#[track_caller]
fn started(fixture: &Fixture, flags: &str, script: &str) -> Done {
    let mut words = vec!["run", "-d"];
    words.extend(flags.split_whitespace());
    words.extend(["busybox", "sh", "-c", script]);
    fixture.kiln(&words)
}

fn waiting(fixture: &Fixture, condition: &str, name: &str) -> Child {
    fixture.start(&["wait", "--condition", condition, name])
}

#[track_caller]
fn answer(child: Child) -> (i32, String, String) {
    let Done { code, out, err } = Done::of(child.wait_with_output().unwrap());
    (code, out.trim().to_owned(), err)
}

#[test]
fn states_of_a_container_are_waited_for() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.kiln(&["create", "--name", "web", "busybox", "sh", "-c", FOREVER]);
    let (running, next) = (waiting(&fixture, "running", "web"), waiting(&fixture, "next-exit", "web"));
    let removed = waiting(&fixture, "removed", "web");
    let paused = waiting(&fixture, "paused", "web");
    fixture.ok("start web");
    assert_eq!(answer(running).1, "-1");
    fixture.ok("pause web");
    assert_eq!(answer(paused).1, "-1");
    fixture.ok("unpause web");
    fixture.ok("kill web");
    assert_eq!(answer(next).1, "137");
    assert_eq!(fixture.ok("wait web"), "137\n");
    assert_eq!(fixture.ok("wait --condition exited web"), "137\n");
    fixture.ok("rm web");
    assert_eq!(answer(removed).1, "137");
    // A container that is removed at its end has its code as well.
    started(&fixture, "--rm --name gone", "while [ ! -e /go ]; do sleep 0.02; done; exit 4");
    let (stopped, removed) = (waiting(&fixture, "stopped", "gone"), waiting(&fixture, "removed", "gone"));
    let healthy = waiting(&fixture, "healthy", "gone");
    let (code, _, err) = answer(healthy);
    assert!(code == 1 && err.contains("container gone has no health check"), "{err}");
    fixture.ok("exec gone touch /go");
    assert_eq!((answer(stopped).1, answer(removed).1), ("4".to_owned(), "4".to_owned()));
    let refused = fixture.words("wait --condition ready x");
    assert!(refused.code == 125 && refused.err.contains("one of stopped"), "{refused:?}");
}

#[test]
fn health_is_waited_for() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let check = "--health-interval 30ms --health-retries 2 --health-cmd";
    let flags = format!("--name web {check} ls${{IFS}}/check");
    started(&fixture, &flags, FOREVER);
    assert_eq!(answer(waiting(&fixture, "unhealthy", "web")).1, "-1");
    let healthy = waiting(&fixture, "healthy", "web");
    fixture.ok("exec web touch /check");
    assert_eq!(answer(healthy).1, "-1");
    let unhealthy = waiting(&fixture, "unhealthy", "web");
    fixture.ok("stop web");
    let (code, _, err) = answer(unhealthy);
    assert!(code == 1 && err.contains("container web ended with exit code"), "{err}");
    fixture.ok("rm web");
}

#[test]
fn run_waits_until_the_container_is_ready() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let check = "--wait --health-interval 30ms --health-retries 2 --health-cmd";
    let script = format!("sleep 0.2; touch /ready; {FOREVER}");
    let done = started(
        &fixture,
        &format!("--name web --health-start-period 1m --health-start-interval 30ms {check} ls${{IFS}}/ready"),
        &script,
    );
    assert_eq!((done.code, done.out.trim().len(), done.err.as_str()), (0, 64, ""));
    assert!(fixture.ok("ps").contains("(healthy)"));
    let done = started(&fixture, "--wait --name plain", FOREVER);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    // The last state is the reason of a failure, and the container stays.
    let done = started(&fixture, &format!("--name ended {check} false"), "sleep 0.05; exit 3");
    let is_ended =
        done.err.contains("container ended ended with exit code 3") || done.err.contains("is unhealthy");
    assert!(done.code == 1 && done.out.trim().len() == 64 && is_ended, "{done:?}");
    let done = started(&fixture, &format!("--name ill {check} ls${{IFS}}/none"), FOREVER);
    let reason = "container ill is unhealthy: its last check ended with exit code 1: ls: /none: No such file or directory";
    assert!(done.code == 1 && done.err.contains(reason), "{}", done.err);
    let done = started(
        &fixture,
        "--name slow --wait --wait-timeout 1 --health-cmd true --health-interval 1h",
        FOREVER,
    );
    assert!(done.code == 1 && done.err.contains("container slow is not ready yet"), "{}", done.err);
    for (flags, reason) in
        [("run --wait busybox true", "add -d"), ("run -d --wait-timeout 3 busybox true", "--wait")]
    {
        let done = fixture.words(flags);
        assert!(done.code == 125 && done.err.contains(reason), "{done:?}");
    }
    // The wait can be ended without the container.
    let mut words =
        vec!["run", "-d", "--name", "left", "--wait", "--health-cmd", "true", "--health-interval", "1h"];
    words.extend(["busybox", "sh", "-c", FOREVER]);
    let mut child = fixture.start(&words);
    let mut id = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut id).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(fixture.ok("ps -q --no-trunc").contains(id.trim()));
    fixture.ok("rm -f web plain ended ill slow left");
}
