//! `container prune`, `system prune` and `system df`.

use crate::running::{end, start};

#[test]
fn unused_things_are_listed_and_removed() {
    let fixture = fixture!();
    fixture.kiln(&[
        "run",
        "--name",
        "old",
        "--label",
        "keep=1",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/zero of=/f bs=1k count=5",
    ]);
    fixture.ok("run --name plain busybox true");
    fixture.build("app", &fixture.context("c", "FROM busybox\nRUN echo 1 > /f\n"));
    fixture.build("app", &fixture.context("c", "FROM busybox\nRUN echo 2 > /f\n"));
    let running = start(&fixture, "web", &[], "true");
    let df = fixture.ok("system df");
    let row = |name: &str| {
        let line = df.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("TYPE"), ["TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!(row("Images")[..2], ["3", "1"]);
    assert_eq!(row("Containers"), ["3", "1", "5.12kB", "5.12kB", "(100%)"]);
    assert_eq!(row("Local Volumes"), ["0", "0", "0B", "0B"]);
    let verbose = fixture.ok("system df -v");
    for text in
        ["Images space usage:", "Containers space usage:", "Local Volumes space usage:", "Build cache usage:"]
    {
        assert!(verbose.contains(text), "{verbose}");
    }
    assert_eq!(fixture.ok("system df --format {{.Type}}:{{.TotalCount}}").lines().next(), Some("Images:3"));
    assert_eq!(fixture.words("system df -v --format json").code, 125);
    // Without an answer nothing is removed.
    let done = fixture.words("container prune");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("WARNING! This will remove all stopped containers."), "{}", done.out);
    let done = fixture.words("system prune");
    assert!(
        done.out.contains("  - all stopped containers\n  - all networks not used by at least one container\n  - all dangling images\n  - unused build cache\n"),
        "{}",
        done.out
    );
    assert_eq!(fixture.ok("ps -aq").lines().count(), 3);
    for (words, code, text) in [
        ("container prune -f --filter foo=1", 1, "invalid filter 'foo'"),
        ("container prune -f --filter until=xx", 1, "failed to parse value as time or duration"),
        ("system prune -f --filter dangling=true", 1, "invalid filter"),
        (
            "prune -f",
            1,
            "`kiln container prune`, `kiln volume prune`, `kiln network prune`, `kiln builder prune`, `kiln system prune`",
        ),
    ] {
        let done = fixture.words(words);
        assert!(done.code == code && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
    let plain = fixture.ok("ps -aq --no-trunc --filter name=plain");
    let out = fixture.ok("container prune -f --filter label!=keep");
    assert_eq!(out, format!("Deleted Containers:\n{plain}\nTotal reclaimed space: 0B\n"));
    assert_eq!(fixture.ok("container prune -f --filter until=1h"), "Total reclaimed space: 0B\n");
    let out = fixture.ok("system prune -f");
    assert!(out.starts_with("Deleted Containers:\n") && out.contains("\nDeleted Images:\n"), "{out}");
    assert_eq!(fixture.ok("ps -a --format {{.Names}}"), "web\n");
    assert_eq!(fixture.ok("images -q").lines().count(), 2);
    let out = fixture.ok("system prune -af");
    assert!(out.contains("untagged: app:latest"), "{out}");
    assert_eq!(fixture.ok("images --format {{.Repository}}"), "busybox\n");
    end(&fixture, "web", running);
}

#[test]
fn misspelt_commands_are_not_guessed() {
    let fixture = fixture!();
    for (words, text) in [
        ("built -t x .", "did you mean `kiln build`?"),
        ("container renam a b", "did you mean `kiln container rename`?"),
        ("prune", "one of "),
    ] {
        let done = fixture.words(words);
        assert!(done.code == 1 && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
}
