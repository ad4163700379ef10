//! `KILN_LOG`: the debug log of the program.

use crate::fixture::{Done, Fixture};

/// Runs a command line with a filter.
fn with_log(fixture: &Fixture, filter: &str, line: &str) -> Done {
    let words: Vec<&str> = line.split_whitespace().collect();
    Done::of(fixture.command(&words).env("KILN_LOG", filter).output().unwrap())
}

/// Lines of the log: a time, a level, and the module of an event.
fn events(done: &Done) -> Vec<&str> {
    let is_event = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|time| time.parse::<f64>().is_ok())
            && words.next().is_some_and(|level| ["debug", "trace"].contains(&level))
            && words.next().is_some_and(|module| module.ends_with(':'))
    };
    done.err.lines().filter(is_event).collect()
}

#[test]
fn the_log_names_the_decisions_of_a_build() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nRUN echo one\n");
    let build = format!("build -t built {}", context.display());
    let has = |events: &[&str], parts: &[&str]| {
        events.iter().any(|event| parts.iter().all(|part| event.contains(part)))
    };

    let first = with_log(&fixture, "debug", &build);
    let found = events(&first);
    for parts in [
        ["runtime::host:", "host and its cgroups", "kernel="],
        ["kiln::images:", "image is fetched from a registry", "busybox"],
        ["registry::pull:", "manifest", "is_mirror=true"],
        ["image::store::unpack:", "layer is unpacked", "diff_id=sha256:"],
        ["builder::step:", "miss: it has never run", "RUN echo one"],
    ] {
        assert!(has(&found, &parts), "{parts:?}: {}", first.err);
    }

    let second = with_log(&fixture, "builder=debug", &build);
    let found = events(&second);
    assert!(has(&found, &["hit", "RUN echo one", "layer="]), "{}", second.err);
    assert!(found.iter().all(|event| event.contains(" builder::")), "{}", second.err);

    let other = with_log(&fixture, "debug,builder=off", &format!("{build} --no-cache"));
    let found = events(&other);
    assert!(has(&found, &["kiln::images:", "image is in the store"]) && !has(&found, &["builder::"]));

    let none = fixture.words(&build);
    assert_eq!(events(&none), Vec::<&str>::new());
}

#[test]
fn containers_write_no_events() {
    let fixture = fixture!();
    let done = with_log(&fixture, "trace", "run --rm busybox sh -c");
    assert_ne!(done.code, 0);
    let words = ["run", "--rm", "busybox", "sh", "-c", "echo out; echo $KILN_LOG; exec 2>&1; echo end"];
    let done = Done::of(fixture.command(&words).env("KILN_LOG", "trace").output().unwrap());
    assert_eq!((done.code, done.out.as_str()), (0, "out\n\nend\n"), "{}", done.err);
    assert!(!events(&done).is_empty(), "{}", done.err);
}

#[test]
fn invalid_filters_are_refused() {
    let fixture = fixture!();
    for (filter, message) in
        [("loud", "\"loud\" is no level"), ("parser=debug", "there is no crate \"parser\"")]
    {
        let done = with_log(&fixture, filter, "images");
        assert_eq!(done.code, 1, "{filter}");
        assert!(done.err.contains(message) && done.err.contains("hint: it is a level"), "{}", done.err);
    }
}

#[test]
fn following_ends_when_the_container_is_removed() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.kiln(&["run", "-d", "--name", "web", "busybox", "sh", "-c", "echo first; exec sleep 1000"]);
    let mut following = fixture.start(&["logs", "-f", "web"]);
    let mut line = String::new();
    let mut output = std::io::BufReader::new(following.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "first\n");
    fixture.ok("rm -f web");
    assert_eq!(following.wait().unwrap().code(), Some(0));
}
