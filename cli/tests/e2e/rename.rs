//! `rename`, and names that killed commands left behind.

use crate::running::{end, start};

#[test]
fn containers_are_found_by_their_new_name() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", &[], "true");
    fixture.ok("run --name other busybox true");
    assert_eq!(fixture.ok("rename web new"), "");
    assert_eq!(fixture.ok("ps --format {{.Names}}"), "new\n");
    assert_eq!(fixture.kiln(&["exec", "new", "echo", "x"]).out, "x\n");
    for (words, text) in [
        ("rename new other", "The container name \"/other\" is already in use by container"),
        ("rename new new", "same name as its current name"),
        ("rename new -x", ""),
        ("rename new a/b", "Invalid container name (a/b)"),
        ("rename new x", "Invalid container name (x)"),
        ("rename web y1", "No such container: web"),
    ] {
        let done = fixture.words(words);
        assert!(done.code != 0 && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
    assert_eq!(fixture.words("rename new").code, 1);
    // The old name is free, and the end of the container keeps the new one.
    fixture.ok("run --rm --name web busybox true");
    fixture.ok("stop -t 0 new");
    let mut running = running;
    running.wait().unwrap();
    assert_eq!(fixture.ok("ps -a --filter name=new --format {{.Names}}:{{.State}}"), "new:exited\n");
    fixture.ok("container rename new /again");
    fixture.ok("rm again other");
    let again = start(&fixture, "again", &[], "true");
    end(&fixture, "again", again);
}

/// A process that is killed between its steps leaves one link too many: such a name is free.
#[test]
fn names_left_behind_are_free() {
    let fixture = fixture!();
    fixture.ok("run --name web busybox true");
    let id = fixture.ok("ps -aq --no-trunc");
    let names = fixture.root().join("containers/names");
    for left in ["before", "after"] {
        std::os::unix::fs::symlink(id.trim(), names.join(left)).unwrap();
    }
    fixture.ok("rename web before");
    assert_eq!(fixture.ok("ps -a --format {{.Names}}"), "before\n");
    fixture.ok("run --name after busybox true");
    let done = fixture.words("run --name before busybox true");
    assert!(done.code == 125 && done.err.contains("already in use"), "{}", done.err);
    fixture.ok("rm before after");
    assert_eq!(std::fs::read_dir(&names).unwrap().count(), 0);
}
