//! `pause` and `unpause`, and what other commands do with a paused container.

use crate::fixture::Fixture;
use crate::running::{end, start};

/// Number of lines that a container has written to its file.
fn lines(fixture: &Fixture, id: &str) -> usize {
    let file = fixture.root().join("containers").join(id).join("layer/upper/tmp/lines");
    std::fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[test]
fn paused_processes_do_nothing_until_they_go_on() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", &[], "(while true; do echo x >> /tmp/lines; done) &");
    let id = fixture.ok("ps -q --no-trunc").trim().to_owned();
    assert_eq!(fixture.ok("pause web"), "web\n");
    let before = lines(&fixture, &id);
    assert!(fixture.ok("ps").contains(" (Paused)"));
    assert_eq!(fixture.ok("ps --format {{.State}}"), "paused\n");
    assert_eq!(fixture.ok("ps -q --filter status=paused").trim(), &id[..12]);
    assert_eq!(fixture.ok("ps -q --filter status=running"), "");
    assert_eq!(
        fixture.ok("inspect -f {{.State.Status}}|{{.State.Paused}}|{{.State.Running}} web"),
        "paused|true|true\n"
    );
    for (words, text) in [
        ("pause web", "Container web is already paused"),
        ("exec web true", "Container web is paused, unpause the container before exec"),
        ("pause nosuch", "No such container: nosuch"),
    ] {
        let done = fixture.words(words);
        assert!(done.code == 1 && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
    assert_eq!(lines(&fixture, &id), before);
    assert_eq!(fixture.ok("container unpause web"), "web\n");
    while lines(&fixture, &id) <= before {}
    let done = fixture.words("unpause web");
    assert!(done.code == 1 && done.err.contains("Container web is not paused"), "{}", done.err);
    assert!(!fixture.ok("ps").contains("Paused"));
    end(&fixture, "web", running);
    fixture.ok("run --name done busybox true");
    for command in ["pause", "unpause"] {
        let done = fixture.words(&format!("{command} done nosuch"));
        assert!(done.code == 1 && done.err.contains("is not running"), "{}", done.err);
    }
}

#[test]
fn paused_containers_can_be_ended() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    for (words, code) in [("stop web", Some(3)), ("kill web", Some(137)), ("rm -f web", Some(137))] {
        let mut running = start(&fixture, "web", &[], "trap 'exit 3' TERM");
        fixture.ok("pause web");
        assert_eq!(fixture.ok(words), "web\n");
        assert_eq!(running.wait().unwrap().code(), code, "{words}");
        fixture.ok("rm -f web");
    }
    // A signal that does not end it lets it go on.
    let running = start(&fixture, "web", &[], "trap true USR1");
    fixture.ok("pause web");
    fixture.ok("kill -s USR1 web");
    assert_eq!(fixture.ok("ps --format {{.State}}"), "running\n");
    end(&fixture, "web", running);
}

/// A record that a killed command did not write is corrected by the next one: the kernel decides.
#[test]
fn the_kernel_decides_whether_a_container_is_paused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", &[], "true");
    fixture.ok("pause web");
    let id = fixture.ok("ps -q --no-trunc").trim().to_owned();
    let record = fixture.root().join("containers").join(&id).join("container.json");
    let text = std::fs::read_to_string(&record).unwrap();
    assert!(text.contains("\"paused\":true"), "{text}");
    std::fs::write(&record, text.replace("\"paused\":true", "\"paused\":false")).unwrap();
    assert_eq!(fixture.words("exec web true").code, 1);
    assert!(fixture.words("pause web").err.contains("already paused"));
    assert_eq!(fixture.ok("ps --format {{.State}}"), "paused\n");
    fixture.ok("unpause web");
    end(&fixture, "web", running);
}
