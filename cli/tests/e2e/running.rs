//! Containers that run while a test looks at them.

use crate::fixture::Fixture;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// A container that runs a shell, which has printed that it is ready; `flags` are those of `run`.
pub fn start(fixture: &Fixture, name: &str, flags: &[&str], script: &str) -> Child {
    let script = format!("{script}\necho ready; while true; do sleep 0.05; done");
    let own = ["run", "--name", name];
    let words = [&own[..], flags, &["busybox", "sh", "-c", &script]].concat();
    let mut child = fixture.command(&words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// Removes a running container.
#[track_caller]
pub fn end(fixture: &Fixture, name: &str, mut child: Child) {
    fixture.ok(&format!("rm -f {name}"));
    child.wait().unwrap();
}
