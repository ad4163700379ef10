//! Health checks: that they run, when they run, and what of them is shown.

use crate::fixture::{Done, Fixture};
use std::time::{Duration, Instant};

/// Longest time until an event on a busy host.
const LONGEST: Duration = Duration::from_secs(60);
/// Flags of checks that are as quick as is useful.
const QUICK: &str = "--health-interval 50ms --health-retries 2 --health-timeout 30s";

/// Waits until a command's output is as wanted.
#[track_caller]
fn until(fixture: &Fixture, line: &str, is_there: impl Fn(&str) -> bool) -> String {
    let began = Instant::now();
    loop {
        let Done { out, err, .. } = fixture.words(line);
        if is_there(&out) {
            return out;
        }
        assert!(began.elapsed() < LONGEST, "kiln {line}: {out}{err}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a container whose program runs until it is stopped, with a check.
#[track_caller]
fn checked(fixture: &Fixture, name: &str, flags: &str, check: &str) {
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(flags.split_whitespace());
    words.extend([
        "--health-cmd",
        check,
        "busybox",
        "sh",
        "-c",
        "trap exit TERM; while :; do sleep 0.02; done",
    ]);
    let done = fixture.kiln(&words);
    assert_eq!(done.code, 0, "{}", done.err);
}

#[track_caller]
fn becomes(fixture: &Fixture, name: &str, status: &str) {
    until(fixture, &format!("inspect -f {{{{.State.Health.Status}}}} {name}"), |out| out.trim() == status);
}

/// Fills in a template, which may contain blanks.
#[track_caller]
fn shown(fixture: &Fixture, template: &str, name: &str) -> String {
    let done = fixture.kiln(&["inspect", "-f", template, name]);
    assert_eq!(done.code, 0, "{}", done.err);
    done.out
}

/// Waits until the codes of the last results are these.
#[track_caller]
fn results(fixture: &Fixture, name: &str, codes: &str) {
    let began = Instant::now();
    while shown(fixture, "{{range .State.Health.Log}}{{.ExitCode}},{{end}}", name).trim() != codes {
        assert!(began.elapsed() < LONGEST, "{codes}: {}", shown(fixture, "{{json .State.Health}}", name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn checks_decide_about_the_health() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    checked(&fixture, "web", QUICK, "echo look; echo more >&2; test -e /ready");
    becomes(&fixture, "web", "unhealthy");
    assert!(fixture.ok("ps").contains("(unhealthy)"), "{}", fixture.ok("ps"));
    let log = shown(&fixture, "{{json .State.Health}}", "web");
    assert!(log.contains(r#""ExitCode":1,"Output":"look\nmore\n"}"#), "{log}");
    fixture.ok("exec web touch /ready");
    becomes(&fixture, "web", "healthy");
    assert_eq!(
        fixture.ok("ps --filter health=healthy --format {{.Names}}/{{.HealthStatus}}"),
        "web/healthy\n"
    );
    assert_eq!(fixture.ok("ps -q --filter health=none"), "");
    assert_eq!(fixture.ok("inspect -f {{.State.Health.FailingStreak}} web"), "0\n");
    results(&fixture, "web", "0,0,0,0,0,");
    // What does not run is not healthy; the next start begins anew.
    fixture.ok("stop web");
    becomes(&fixture, "web", "unhealthy");
    assert_eq!(fixture.ok("ps -aq --filter health=healthy"), "");
    fixture.ok("start web");
    becomes(&fixture, "web", "healthy");
    fixture.ok("rm -f web");
}

#[test]
fn checks_wait_for_their_interval() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    checked(&fixture, "slow", "--health-interval 1h", "true");
    assert!(fixture.ok("ps").contains("(health: starting)"), "{}", fixture.ok("ps"));
    assert_eq!(shown(&fixture, "{{len .State.Health.Log}}", "slow"), "0\n");
    // In the start period they are frequent, and failures do not count.
    let early =
        "--health-interval 1h --health-start-period 1h --health-start-interval 30ms --health-retries 1";
    checked(&fixture, "early", early, "test -e /ready");
    results(&fixture, "early", "1,1,1,1,1,");
    assert_eq!(
        fixture.ok("inspect -f {{.State.Health.Status}}{{.State.Health.FailingStreak}} early"),
        "starting0\n"
    );
    fixture.ok("exec early touch /ready");
    becomes(&fixture, "early", "healthy");
    fixture.ok("rm -f slow early");
}

#[test]
fn a_check_that_hangs_or_floods_keeps_no_output_waiting() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    checked(
        &fixture,
        "hung",
        "--health-interval 20ms --health-timeout 300ms --health-retries 1",
        "echo begun; sleep 1000",
    );
    becomes(&fixture, "hung", "unhealthy");
    let log = shown(&fixture, "{{range .State.Health.Log}}{{.ExitCode}}:{{.Output}}{{end}}", "hung");
    assert!(log.starts_with("-1:Health check exceeded timeout (300ms): begun\n"), "{log}");
    // A killed check leaves no process in the container.
    until(&fixture, "exec hung ps", |out| out.matches("sleep 1000").count() <= 2);
    let mut words: Vec<&str> =
        "run -d --name flood --health-interval 20ms --health-retries 1 --health-timeout 1s"
            .split(' ')
            .collect();
    words.extend([
        "--health-cmd",
        "yes",
        "busybox",
        "sh",
        "-c",
        "echo first; while [ ! -e /go ]; do sleep 0.02; done; echo last; exec sleep 1000",
    ]);
    assert_eq!(fixture.kiln(&words).code, 0);
    until(&fixture, "logs flood", |out| out == "first\n");
    fixture.ok("exec flood touch /go");
    until(&fixture, "logs flood", |out| out == "first\nlast\n");
    becomes(&fixture, "flood", "unhealthy");
    let output = shown(&fixture, "{{range .State.Health.Log}}{{.Output}}{{end}}", "flood");
    let first = output.split("Health check").nth(1).unwrap_or_default();
    assert!(first.len() < 4200 && first.trim_end().ends_with("..."), "{} bytes", first.len());
    fixture.ok("rm -f hung flood");
}

#[test]
fn paused_containers_are_not_checked() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    checked(
        &fixture,
        "web",
        "--health-interval 20ms --health-timeout 2s --health-retries 1",
        "echo x >> /count",
    );
    becomes(&fixture, "web", "healthy");
    fixture.ok("pause web");
    assert!(fixture.ok("ps").contains("(Paused)"));
    // Longer than the timeout of a check.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(fixture.ok("inspect -f {{.State.Health.Status}} web"), "healthy\n");
    fixture.ok("unpause web");
    let before = fixture.ok("exec web wc -l /count");
    until(&fixture, "exec web wc -l /count", |out| out != before);
    assert!(fixture.ok("ps").contains("(healthy)"));
    fixture.ok("rm -f web");
}

#[test]
fn checks_of_images_run_in_their_shell_and_as_their_user() {
    let fixture = fixture!();
    let context = fixture.context(
        "shelled",
        "FROM busybox
RUN mkdir /own && chown 33 /own && printf '#!/bin/sh\\necho \"$1|$(id -u)|$PWD|$X\" > /own/seen\\n' > /sh2 && chmod 755 /sh2
SHELL [\"/sh2\"]
USER 33
WORKDIR /own
ENV X=y
HEALTHCHECK --interval=30ms CMD a b
CMD [\"/bin/sleep\", \"1000\"]
",
    );
    fixture.build("shelled", &context);
    fixture.ok("run -d --name web shelled");
    becomes(&fixture, "web", "healthy");
    assert_eq!(fixture.ok("exec web cat /own/seen"), "a b|33|/own|y\n");
    // Without its check nothing of it is shown.
    fixture.ok("run -d --name none --no-healthcheck shelled");
    assert!(!fixture.ok("ps --filter name=none").contains('('));
    assert_eq!(fixture.ok("inspect -f {{.State.Health}} none"), "<nil>\n");
    assert_eq!(fixture.ok("ps --filter health=none --format {{.Names}}"), "none\n");
    // A program that does not exist fails with the reason.
    let context =
        fixture.context("lost", "FROM busybox\nHEALTHCHECK --interval=30ms --retries=1 CMD [\"/lost\"]\n");
    fixture.build("lost", &context);
    fixture.ok("run -d --name lost lost sleep 1000");
    becomes(&fixture, "lost", "unhealthy");
    let log = shown(&fixture, "{{json .State.Health.Log}}", "lost");
    assert!(log.contains(r#""ExitCode":127"#) && log.contains("/lost"), "{log}");
    fixture.ok("rm -f web none lost");
}
