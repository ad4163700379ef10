//! `--output`, `--iidfile`, and contexts on standard input.

use crate::bed::Bed;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Runs a build that reads `input`.
#[track_caller]
fn piped(bed: &Bed, flags: &[&OsStr], input: &[u8]) -> crate::bed::Done {
    let words: Vec<&OsStr> = [OsStr::new("build")].into_iter().chain(flags.iter().copied()).collect();
    let mut command = bed.command(&words);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read to the end is told on, below.
    let _ = child.stdin.take().unwrap().write_all(input);
    crate::bed::Done::of(child.wait_with_output().unwrap())
}

const FILES: &str = "FROM busybox AS made\nRUN mkdir /q && echo x > /q/f && chmod 600 /q/f && ln -s f /q/l\nFROM scratch\nCOPY --from=made /q /q\n";

#[test]
fn files_come_out() {
    let bed = bed!();
    let context = bed.context("c", FILES);
    let folder = bed.path("out");
    let done = bed.kiln(&["build".as_ref(), "-o".as_ref(), folder.as_os_str(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(std::fs::read_to_string(folder.join("q/l")).unwrap(), "x\n");
    assert_eq!(std::fs::metadata(folder.join("q/f")).unwrap().permissions().mode() & 0o777, 0o600);
    let done = bed.kiln(&["build".as_ref(), "-q".as_ref(), "-o".as_ref(), "-".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("q/f"), "a tar");

    let layout = format!("type=oci,tar=false,dest={}", bed.path("layout").display());
    let done = bed.kiln(&["build".as_ref(), "-o".as_ref(), layout.as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(bed.path("layout/index.json").exists());
    let done = bed.kiln(&["build".as_ref(), "--output=type=nosuch".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("exporter \"nosuch\" could not be found"), "{}", done.err);
}

#[test]
fn ids_go_to_files() {
    let bed = bed!();
    let context = bed.context("c", FILES);
    let file = format!("--iidfile={}", bed.path("id").display());
    let done =
        bed.kiln(&["build".as_ref(), "-q".as_ref(), "--load".as_ref(), file.as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(std::fs::read_to_string(bed.path("id")).unwrap(), done.out.trim_end());
    let done = bed.kiln(&["build".as_ref(), file.as_ref(), "-o=x".as_ref(), context.as_os_str()]);
    assert!(done.code == 1 && done.err.contains("incompatible with image ID file"), "{}", done.err);
}

#[test]
fn contexts_are_read_from_standard_input() {
    let bed = bed!();
    let done = piped(&bed, &["-".as_ref()], b"FROM busybox\nCOPY . /c\nRUN test -z \"$(ls -A /c)\"\n");
    assert_eq!(done.code, 0, "{}", done.err);

    let context = bed.context("c", "FROM busybox\nCOPY a /a\nRUN cat /a\n");
    bed.write("c/a", "content\n");
    let done = piped(&bed, &["-f".as_ref(), "-".as_ref(), context.as_os_str()], b"FROM scratch\nCOPY a /a\n");
    assert_eq!(done.code, 0, "{}", done.err);

    for flag in ["-c", "-cz", "-cj"] {
        let tar = Command::new("tar").args([flag, "-C"]).arg(&context).arg(".").output().unwrap();
        let done = piped(&bed, &["-".as_ref()], &tar.stdout);
        assert!(done.code == 0 && done.err.contains("FROM docker.io/library/busybox"), "{}", done.err);
    }
    let done = piped(&bed, &["-f".as_ref(), "-".as_ref(), "-".as_ref()], b"");
    assert!(done.code == 1 && done.err.contains("can't use stdin for both"), "{}", done.err);
}
