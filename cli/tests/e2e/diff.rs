//! `diff` and `export`.

use crate::running::{end, start};
use std::fs;
use std::process::Command;

/// Names in a tar, sorted.
pub fn tar_names(tar: &[u8]) -> Vec<String> {
    let mut reader = kiln_image::tar::Reader::new(tar);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.name).unwrap());
    }
    names
}

#[test]
fn changes_are_listed_and_exported() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script =
        "rm /etc/group; echo x > /etc/passwd; mkdir -p /new/d; echo y > /new/d/f; touch /bin/x; rm /bin/x";
    assert_eq!(fixture.kiln(&["run", "--name", "stopped", "busybox", "sh", "-c", script]).code, 0);
    let running = start(&fixture, "running", &[], script);
    for name in ["stopped", "running"] {
        let diff = fixture.ok(&format!("diff {name}"));
        let expected = "C /bin\nC /etc\nD /etc/group\nC /etc/passwd\nA /new\nA /new/d\nA /new/d/f\n";
        assert_eq!(diff, expected, "{name}");
        let file = fixture.path("out.tar");
        fixture.ok(&format!("export -o {} {name}", file.display()));
        let tar = fs::read(&file).unwrap();
        let names = tar_names(&tar);
        let has = |name: &str| names.iter().any(|known| known == name);
        assert!(has("new/d/f") && has("bin/sh") && has("proc/") && !has("etc/group"), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("proc/1") || name.starts_with("sys/kernel")));
        assert_eq!(fixture.command(&["export", name]).output().unwrap().stdout, tar);
    }
    let listed = Command::new("tar").arg("-tf").arg(fixture.path("out.tar")).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    end(&fixture, "running", running);
    for (words, text) in [
        ("diff nosuch", "No such container: nosuch"),
        ("export nosuch", "No such container: nosuch"),
        ("export -o /no/such/dir/x stopped", "cannot write to"),
    ] {
        let done = fixture.words(words);
        assert!(done.code == 1 && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
}
