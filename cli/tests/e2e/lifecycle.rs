//! Containers that outlive the command that started them: `run -d`, `create`, `start`, `restart`, `wait`, `attach`,
//! `logs`, and restart policies.

use crate::fixture::{Done, Fixture};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Longest time until an event on a busy host.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Waits until a command's output is as wanted.
#[track_caller]
pub fn until(fixture: &Fixture, line: &str, is_there: impl Fn(&Done) -> bool) -> Done {
    let began = Instant::now();
    loop {
        let done = fixture.words(line);
        if is_there(&done) {
            return done;
        }
        assert!(began.elapsed() < LONGEST, "kiln {line}: {}{}", done.out, done.err);
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn shell(fixture: &Fixture, flags: &str, script: &str) -> Done {
    let mut words = vec!["run"];
    words.extend(flags.split_whitespace());
    words.extend(["busybox", "sh", "-c", script]);
    fixture.kiln(&words)
}

#[track_caller]
pub fn status(fixture: &Fixture, name: &str) -> String {
    fixture.ok(&format!("inspect -f {{{{.State.Status}}}}/{{{{.State.ExitCode}}}} {name}")).trim().to_owned()
}

#[test]
fn detached_containers_live_on_and_start_again() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let done = shell(
        &fixture,
        "-d --name web",
        "echo out; echo err >&2; read x </tmp/none; while [ ! -e /go ]; do sleep 0.02; done; exit 3",
    );
    let id = done.out.trim_end();
    assert_eq!((done.code, id.len(), done.err.as_str()), (0, 64, ""));
    assert_eq!(fixture.ok("ps -q --no-trunc"), format!("{id}\n"));
    assert!(fixture.ok("ps").contains("Up "));
    let logs = until(&fixture, "logs web", |done| done.err.contains("none"));
    assert!(logs.out == "out\n" && logs.err.starts_with("err\n"), "{logs:?}");
    let refused = fixture.words("rm web");
    assert!(
        refused.code == 1 && refused.err.contains("cannot remove container \"/web\": container is running")
    );
    // Several wait, one follows the log, and one is attached: all notice the end.
    let waiting = fixture.start(&["wait", "web"]);
    let mut following = fixture.start(&["logs", "-f", "web"]);
    let attached = fixture.start(&["attach", "web"]);
    let mut first = String::new();
    BufReader::new(following.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    fixture.ok("exec web touch /go");
    assert_eq!(Done::of(waiting.wait_with_output().unwrap()).out, "3\n");
    assert_eq!(attached.wait_with_output().unwrap().status.code(), Some(3));
    assert_eq!((first.as_str(), following.wait().unwrap().code()), ("out\n", Some(0)));
    assert_eq!(status(&fixture, "web"), "exited/3");
    assert!(fixture.ok("ps -a").contains("Exited (3)"));
    assert_eq!(fixture.ok("ps -q"), "");
    assert_eq!(fixture.ok("wait web"), "3\n");
    // Started again it keeps its files, and its log goes on.
    assert_eq!(fixture.ok("start web"), "web\n");
    assert_eq!(fixture.ok("wait web"), "3\n");
    assert_eq!(fixture.words("logs web").out, "out\nout\n");
    let attached = fixture.words("start -a web");
    assert!(
        attached.code == 3 && attached.out == "out\n" && attached.err.starts_with("err\n"),
        "{attached:?}"
    );
    assert_eq!(fixture.ok("rm web"), "web\n");
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn killed_commands_stop_no_container() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done";
    let mut command = fixture.start(&["run", "--name", "web", "busybox", "sh", "-c", script]);
    let mut line = String::new();
    BufReader::new(command.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    command.kill().unwrap();
    command.wait().unwrap();
    let count = fixture.words("logs web").out.lines().count();
    until(&fixture, "logs web", |done| done.out.lines().count() > count);
    assert_eq!(status(&fixture, "web"), "running/0");
    let mut attached = fixture.start(&["attach", "--no-stdin", "web"]);
    let mut seen = BufReader::new(attached.stdout.take().unwrap());
    line.clear();
    seen.read_line(&mut line).unwrap();
    assert!(line.starts_with("line "), "{line}");
    assert_eq!(fixture.ok("stop -t 0 web"), "web\n");
    assert_eq!(attached.wait().unwrap().code(), Some(137));
    // Every line is there once, also those that were read by an attached command.
    let log = fixture.ok("logs web");
    let expected: Vec<String> = (1..=log.lines().count()).map(|number| format!("line {number}")).collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
    fixture.ok("rm web");
}

#[test]
fn policies_start_programs_again() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    shell(&fixture, "-d --name two --restart on-failure:2", "echo run; exit 4");
    let done = until(&fixture, "inspect -f {{.State.Status}}/{{.RestartCount}} two", |done| {
        done.out.starts_with("exited")
    });
    assert_eq!(done.out, "exited/2\n");
    assert_eq!(fixture.ok("logs two"), "run\nrun\nrun\n");
    shell(&fixture, "-d --name good --restart on-failure", "exit 0");
    assert_eq!(fixture.ok("wait good"), "0\n");
    assert_eq!(status(&fixture, "good"), "exited/0");
    // What the user stops, stays stopped, whether it runs or waits for its restart.
    shell(&fixture, "-d --name ever --restart always", "exit 5");
    until(&fixture, "ps", |done| done.out.contains("Restarting (5)"));
    fixture.ok("stop ever");
    assert_eq!(status(&fixture, "ever"), "exited/5");
    shell(&fixture, "-d --name up --restart unless-stopped", "while true; do sleep 1; done");
    fixture.ok("kill up");
    assert_eq!(fixture.ok("wait up"), "137\n");
    assert_eq!(status(&fixture, "up"), "exited/137");
    fixture.ok("rm -f two good ever up");
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn created_containers_are_started_later() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let file = fixture.path("id");
    let id = fixture.ok(&format!("create -i --name cat --cidfile {} busybox cat", file.display()));
    assert_eq!(fs::read_to_string(&file).unwrap(), id.trim_end());
    assert_eq!(status(&fixture, "cat"), "created/0");
    assert_eq!(fixture.ok("wait cat"), "0\n");
    let mut started = fixture.command(&["start", "-ai", "cat"]);
    let mut started = started.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    started.stdin.take().unwrap().write_all(b"over\n").unwrap();
    let done = Done::of(started.wait_with_output().unwrap());
    assert_eq!((done.code, done.out.as_str()), (0, "over\n"));
    let failed = fixture.words("start cat nosuch");
    assert_eq!((failed.code, failed.out.as_str()), (1, "cat\n"));
    assert!(failed.err.contains("No such container: nosuch"), "{}", failed.err);
    assert!(failed.err.ends_with("ERROR: failed to start containers: nosuch\n"), "{}", failed.err);
    let again = fixture.words(&format!("create --cidfile {} busybox", file.display()));
    assert!(again.code == 125 && again.err.contains("container ID file found"), "{}", again.err);
    fixture.ok("rm -f cat");
    // A program that does not exist: the container stays, with the reason.
    fixture.ok("create --name none busybox nosuchprogram");
    let failed = fixture.words("start none");
    assert!(failed.code == 1 && failed.err.contains("nosuchprogram"), "{}", failed.err);
    assert_eq!(status(&fixture, "none"), "created/127");
    fixture.ok("rm none");
}

#[test]
fn input_reaches_detached_containers() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("run -d -i --name cat busybox cat");
    let talk = |text: &str| {
        let mut attached = fixture.command(&["attach", "cat"]);
        let mut attached = attached.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = attached.stdin.take().unwrap();
        let mut back = vec![0; text.len()];
        // At once: the program writes while it reads, and pipes hold less than all.
        std::thread::scope(|scope| {
            scope.spawn(|| input.write_all(text.as_bytes()).unwrap());
            attached.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
        });
        assert_eq!(String::from_utf8(back).unwrap(), text);
        (attached, input)
    };
    let (mut first, input) = talk("one\n");
    // The end of one command's input is not that of the program's: others follow.
    drop(input);
    first.kill().unwrap();
    first.wait().unwrap();
    let long = "x".repeat(300_000) + "\n";
    let (mut second, _input) = talk(&long);
    fixture.ok("stop -t 0 cat");
    assert_eq!(second.wait().unwrap().code(), Some(137));
    assert_eq!(fixture.ok("logs cat"), format!("one\n{long}"));
    fixture.ok("rm cat");
}

#[test]
fn output_that_nothing_reads_ends_programs_of_the_foreground_only() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let mut run = fixture.start(&["run", "--rm", "busybox", "yes"]);
    let mut piece = [0; 4096];
    run.stdout.take().unwrap().read_exact(&mut piece).unwrap();
    assert_ne!(run.wait().unwrap().code(), Some(0));
    // A command that reads nothing delays the program, and what it has not read is not lost.
    let script = format!("yes {} | head -n 6000", "x".repeat(1000));
    let mut run = fixture.start(&["run", "--name", "slow", "busybox", "sh", "-c", &script]);
    let logged = |fixture: &Fixture| fixture.words("logs slow").out.len();
    let (mut before, mut same) = (0, 0);
    while same < 20 {
        let now = logged(&fixture);
        same = if now == before && now > 0 { same + 1 } else { 0 };
        before = now;
    }
    assert_eq!(status(&fixture, "slow"), "running/0");
    let mut text = String::new();
    run.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(text.lines().count(), 6_000);
    assert_eq!(fixture.ok("logs slow"), text);
    fixture.ok("rm slow");
}

#[test]
fn logs_are_selected_by_time_and_number() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "echo one; sleep 1.1; echo two; echo three; printf 'no end'";
    assert_eq!(shell(&fixture, "--name web", script).code, 0);
    assert_eq!(fixture.ok("logs -n 2 web"), "three\nno end");
    assert_eq!(fixture.ok("logs --tail 0 web"), "");
    assert_eq!(fixture.ok("logs --tail all web"), "one\ntwo\nthree\nno end");
    let stamped = fixture.ok("logs -t web");
    let time = |line: usize| stamped.lines().nth(line).unwrap().split(' ').next().unwrap();
    assert_eq!(time(0).len(), "2026-01-02T15:04:05.123456789Z".len());
    assert_eq!(fixture.ok(&format!("logs --since {} web", time(1))), "two\nthree\nno end");
    assert_eq!(fixture.ok(&format!("logs --until {} web", time(1))), "one\n");
    assert_eq!(fixture.ok("logs --since 1h web"), "one\ntwo\nthree\nno end");
    assert_eq!(fixture.ok("logs --until 1h web"), "");
    for (words, gist) in [
        (
            "logs --since xx web",
            "invalid value for \"since\": failed to parse value as time or duration: \"xx\"",
        ),
        ("logs --until yesterday web", "invalid value for \"until\""),
        ("logs -n many web", "invalid value for --tail"),
        ("logs wbe", "No such container: wbe"),
    ] {
        let done = fixture.words(words);
        assert!(done.code == 1 && done.err.contains(gist), "kiln {words}: {}", done.err);
    }
    fixture.ok("rm web");
    // A log has limits, and may be none.
    shell(&fixture, "--name small --log-opt max-size=2k --log-opt max-file=2", "seq 1 1000");
    let log = fixture.ok("logs small");
    assert!(log.ends_with("999\n1000\n") && log.len() < 400, "{log}");
    shell(&fixture, "--name none --log-driver none", "echo x");
    let refused = fixture.words("logs none");
    assert!(refused.code == 1 && refused.err.contains("does not support reading"), "{}", refused.err);
    fixture.ok("rm small none");
}

#[test]
fn conflicting_and_unknown_flags_are_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("create --name idle busybox");
    for (words, code, gist) in [
        ("run -d -a stdout busybox", 1, "conflicting options: cannot specify both --attach and --detach"),
        ("run --rm --restart always busybox", 125, "cannot specify both --restart and --rm"),
        ("run --restart sometimes busybox", 125, "unknown policy 'sometimes'"),
        ("run --restart always:3 busybox", 125, "maximum retry count can only be used with 'on-failure'"),
        ("run --restart on-failure:-1 busybox", 125, "maximum retry count cannot be negative"),
        ("run --log-driver syslog busybox", 125, "the log driver \"syslog\" is not supported"),
        ("run --log-opt max-size=0 busybox", 125, "invalid log opt"),
        ("run -a nothing busybox", 125, "valid streams are STDIN, STDOUT and STDERR"),
        ("run -d --detach-keys ctrl-1 busybox", 125, "invalid detach keys"),
        ("attach idle", 1, "cannot attach to a stopped container, start it first"),
        ("start -a idle idle", 1, "you cannot start and attach multiple containers at once"),
        ("wait nosuch", 1, "No such container: nosuch"),
        ("restart nosuch", 1, "No such container: nosuch"),
        ("start -ai nosuch", 1, "No such container: nosuch"),
        ("attach nosuch", 1, "No such container: nosuch"),
    ] {
        let done = fixture.words(words);
        assert_eq!(done.code, code, "kiln {words}: {}", done.err);
        assert!(done.err.contains(gist), "kiln {words}: {}", done.err);
    }
    assert_eq!(fixture.ok("ps -a -q").lines().count(), 1);
    fixture.ok("rm idle");
}

#[test]
fn many_containers_start_and_stop_at_once() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let fixture = &fixture;
    let names: Vec<String> = (0..12).map(|number| format!("c{number:02}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || {
                let done = shell(fixture, &format!("-d --name {name}"), "while true; do sleep 1; done");
                assert_eq!(done.code, 0, "{}", done.err);
            });
        }
    });
    assert_eq!(fixture.ok("ps -q").lines().count(), names.len(), "{}", fixture.ok("ps -a"));
    assert_eq!(fixture.ok(&format!("restart -t 0 {}", names.join(" "))), names.join("\n") + "\n");
    assert_eq!(fixture.ok("ps -q").lines().count(), names.len(), "{}", fixture.ok("ps -a"));
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || fixture.ok(&format!("rm -f {name}")));
        }
    });
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn a_new_container_can_take_the_place_of_another() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    shell(&fixture, "-d --name web --network none", "sleep 1000");
    let taken = fixture.words("run --name web busybox true");
    let id = fixture.ok("ps -q");
    assert_eq!(taken.code, 125);
    for text in [
        &format!("it is {}, of the image busybox, in the state: Up ", id.trim()),
        "`kiln rm -f web`",
        "--replace",
    ] {
        assert!(taken.err.contains(text), "{text}: {}", taken.err);
    }
    let done = fixture.words("run --replace --name web --network none busybox echo new");
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "new\n", ""));
    assert_eq!(fixture.ok("ps -a --format {{.Names}}:{{.State}}"), "web:exited\n");
    let before = fixture.ok("ps -aq");
    assert!(fixture.words("create --name web busybox true").err.contains("`kiln rm web`"));
    // An image that there is not, or flags that are wrong, leave the other one.
    for words in [
        "run --replace --name web --pull never nosuch",
        "run --replace --name web -m 1 busybox",
        "run --replace --name web --mount type=bind,src=/nowhere,dst=/x busybox",
        "run --replace --name web --pid container:nosuch busybox",
        "run --replace --name web --volumes-from nosuch busybox",
    ] {
        assert_eq!(fixture.words(words).code, 125, "{words}");
    }
    assert_eq!(fixture.ok("ps -aq"), before);
    fixture.ok("create --replace --name web busybox true");
    assert_eq!(fixture.ok("ps -a --format {{.Names}}:{{.State}}"), "web:created\n");
    // Its name alone counts, not the beginning of an id.
    let beginning = &fixture.ok("ps -aq")[..4];
    fixture.ok(&format!("create --replace --name {beginning} busybox true"));
    assert_eq!(fixture.ok("ps -aq").lines().count(), 2);
    assert_eq!(fixture.words("run --replace busybox true").code, 125);
    // Several at once: each is created, and one is left.
    let all: Vec<_> =
        (0..6).map(|_| fixture.start(&["create", "--replace", "--name", "web", "busybox"])).collect();
    for child in all {
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!((done.code, done.err.as_str()), (0, ""));
    }
    assert_eq!(fixture.ok("ps -aq").lines().count(), 2);
    fixture.ok(&format!("rm web {beginning}"));
}

#[test]
fn a_created_container_that_is_removed_at_its_end_waits_for_its_start() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("create --rm --name once --network none busybox echo ran");
    assert_eq!(fixture.ok("ps -a --format {{.Names}}:{{.State}}"), "once:created\n");
    assert_eq!(fixture.ok("start -a once"), "ran\n");
    assert_eq!(fixture.ok("ps -aq"), "");
}

/// A removal by force ends restarts, also in the time before one; without force it is refused.
#[test]
fn containers_that_start_again_are_removed_by_force() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    shell(&fixture, "-d --name runs --restart always", "sleep 1000");
    shell(&fixture, "-d --name fails --restart always", "exit 1");
    until(&fixture, "inspect -f {{.State.Status}}/{{.RestartCount}} fails", |done| {
        // By then the time before the next start is longer than the command takes.
        done.out.starts_with("restarting/4")
    });
    let refused = fixture.words("rm fails");
    let text = "container is restarting: stop the container before removing or force remove";
    assert!(refused.code == 1 && refused.err.contains(text), "{}", refused.err);
    // Before, the monitor started the program again after each kill, and the command failed.
    assert_eq!(fixture.ok("rm -f runs fails"), "runs\nfails\n");
    assert_eq!(fixture.ok("ps -aq"), "");
}

/// A container that is removed at its end survives a restart, and is removed at the end after it.
#[test]
fn restarts_keep_containers_that_are_removed_at_their_end() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let id = fixture.ok("create --rm --name web busybox sleep 1000");
    fixture.ok("start web");
    fixture.ok("restart -t 0 web");
    assert_eq!(fixture.ok("ps -q --no-trunc --filter name=web"), id);
    fixture.ok("restart -t 0 web");
    assert_eq!(status(&fixture, "web"), "running/0");
    fixture.ok("stop -t 0 web");
    until(&fixture, "ps -aq", |done| done.out.is_empty());
}

/// Regression: a command panicked when the end of its time was beyond the clock.
#[test]
fn times_beyond_the_clock_are_no_limit() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let longest = i64::MAX;
    for stop in [format!("stop -t {longest} web"), format!("restart -t {longest} web")] {
        shell(&fixture, "-d --name web", script);
        assert_eq!(fixture.ok(&stop), "web\n");
        fixture.ok("rm -f web");
    }
    let wait = format!("-d --name web --stop-timeout {longest} --wait --wait-timeout {}", u64::MAX);
    assert_eq!(shell(&fixture, &wait, script).code, 0);
    assert_eq!(fixture.ok("stop web"), "web\n");
    fixture.ok("rm web");
}
