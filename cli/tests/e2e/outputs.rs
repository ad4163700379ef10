//! `--output`, `--iidfile`, and contexts on standard input.

use crate::fixture::Fixture;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Runs a build that reads `input`.
#[track_caller]
fn piped(fixture: &Fixture, flags: &[&OsStr], input: &[u8]) -> crate::fixture::Done {
    let words: Vec<&OsStr> = [OsStr::new("build")].into_iter().chain(flags.iter().copied()).collect();
    let mut command = fixture.command(&words);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read to the end fails below.
    let _ = child.stdin.take().unwrap().write_all(input);
    crate::fixture::Done::of(child.wait_with_output().unwrap())
}

const FILES: &str = "FROM busybox AS made\nRUN mkdir /q && echo x > /q/f && chmod 600 /q/f && ln -s f /q/l\nFROM scratch\nCOPY --from=made /q /q\n";

#[test]
fn files_come_out() {
    let fixture = fixture!();
    let context = fixture.context("c", FILES);
    let dir = fixture.path("out");
    let done = fixture.kiln(&["build".as_ref(), "-o".as_ref(), dir.as_os_str(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(std::fs::read_to_string(dir.join("q/l")).unwrap(), "x\n");
    assert_eq!(std::fs::metadata(dir.join("q/f")).unwrap().permissions().mode() & 0o777, 0o600);
    let done =
        fixture.kiln(&["build".as_ref(), "-q".as_ref(), "-o".as_ref(), "-".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("q/f"), "a tar");

    let layout = format!("type=oci,tar=false,dest={}", fixture.path("layout").display());
    let done = fixture.kiln(&["build".as_ref(), "-o".as_ref(), layout.as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(fixture.path("layout/index.json").exists());
    let done = fixture.kiln(&["build".as_ref(), "--output=type=nosuch".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("exporter \"nosuch\" could not be found"), "{}", done.err);
}

#[test]
fn ids_go_to_files() {
    let fixture = fixture!();
    let context = fixture.context("c", FILES);
    let file = format!("--iidfile={}", fixture.path("id").display());
    let done = fixture.kiln(&[
        "build".as_ref(),
        "-q".as_ref(),
        "--load".as_ref(),
        file.as_ref(),
        context.as_os_str(),
    ]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(std::fs::read_to_string(fixture.path("id")).unwrap(), done.out.trim_end());
    let done = fixture.kiln(&["build".as_ref(), file.as_ref(), "-o=x".as_ref(), context.as_os_str()]);
    assert!(done.code == 1 && done.err.contains("incompatible with image ID file"), "{}", done.err);
}

#[test]
fn contexts_are_read_from_standard_input() {
    let fixture = fixture!();
    let done = piped(&fixture, &["-".as_ref()], b"FROM busybox\nCOPY . /c\nRUN test -z \"$(ls -A /c)\"\n");
    assert_eq!(done.code, 0, "{}", done.err);

    let context = fixture.context("c", "FROM busybox\nCOPY a /a\nRUN cat /a\n");
    fixture.write("c/a", "content\n");
    let done =
        piped(&fixture, &["-f".as_ref(), "-".as_ref(), context.as_os_str()], b"FROM scratch\nCOPY a /a\n");
    assert_eq!(done.code, 0, "{}", done.err);

    for flag in ["-c", "-cz", "-cj"] {
        let tar = Command::new("tar").args([flag, "-C"]).arg(&context).arg(".").output().unwrap();
        let done = piped(&fixture, &["-".as_ref()], &tar.stdout);
        assert!(done.code == 0 && done.err.contains("FROM docker.io/library/busybox"), "{}", done.err);
    }
    let done = piped(&fixture, &["-f".as_ref(), "-".as_ref(), "-".as_ref()], b"");
    assert!(done.code == 1 && done.err.contains("can't use stdin for both"), "{}", done.err);
}

/// As in the reference: owners of an archive are those of the files, whether it comes from standard input or the web.
#[test]
fn owners_in_archives_are_kept() {
    let fixture = fixture!();
    fixture.write("in/d/f", "x");
    fixture.write(
        "in/Dockerfile",
        "FROM busybox\nCOPY d /d\nCOPY d/f /f\nADD --chown=9 d/f /g\nRUN stat -c %u:%g /d /d/f /f /g\n",
    );
    let tar = Command::new("tar")
        .args(["-c", "--owner=7", "--group=8", "--numeric-owner", "-C"])
        .arg(fixture.path("in"))
        .arg(".")
        .output()
        .unwrap()
        .stdout;
    let done = piped(&fixture, &["-".as_ref()], &tar);
    assert_eq!(done.code, 0, "{}", done.err);
    let owners = |progress: &str| -> Vec<String> {
        let lines =
            progress.lines().filter_map(|line| Some(line.split_once(' ')?.1.split_once(' ')?.1.to_owned()));
        lines.filter(|text| text.split_once(':').is_some_and(|(uid, _)| uid.parse::<u32>().is_ok())).collect()
    };
    // A directory's contents are copied, not the directory.
    assert_eq!(owners(&done.err), ["0:0", "7:8", "7:8", "9:9"], "{}", done.err);
    let server =
        crate::web_server::Server::start(move |_| crate::web_server::Response::new(200, tar.clone()));
    let done = fixture.kiln(&["build", "--no-cache", &server.url("/c.tar")]);
    assert_eq!(owners(&done.err), ["0:0", "7:8", "7:8", "9:9"], "{}", done.err);
    let dir = fixture.path("in");
    let done = fixture.kiln(&["build".as_ref(), "--no-cache".as_ref(), dir.as_os_str()]);
    assert_eq!(owners(&done.err), ["0:0", "0:0", "0:0", "9:9"], "{}", done.err);
}

#[test]
fn old_ids_do_not_outlive_a_failed_build() {
    let fixture = fixture!();
    let id = fixture.path("id");
    for (name, text) in [("a", "FROM busybox\nRUN exit 3\n"), ("b", "FROMx busybox\n")] {
        fixture.write("id", "old");
        let context = fixture.context(name, text);
        let done =
            fixture.kiln(&["build".as_ref(), "--iidfile".as_ref(), id.as_os_str(), context.as_os_str()]);
        assert!(done.code == 1 && !id.exists(), "{name}: {}", done.err);
    }
    fixture.write("id", "old");
    let done =
        fixture.kiln(&["build".as_ref(), "--iidfile".as_ref(), id.as_os_str(), "/no/such/dir".as_ref()]);
    assert!(done.code == 1 && !id.exists(), "{}", done.err);
    let context = fixture.context("c", "FROM busybox\n");
    let done = fixture.kiln(&["build".as_ref(), "--iidfile".as_ref(), id.as_os_str(), context.as_os_str()]);
    assert!(done.code == 0 && std::fs::read_to_string(&id).unwrap().starts_with("sha256:"), "{}", done.err);
}

#[test]
fn archives_have_each_name_once() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM scratch\nLABEL a=b\n");
    let layout = fixture.path("layout");
    let output = format!("type=oci,tar=false,\"name=org/a:1,org/a:2,org/a:1\",dest={}", layout.display());
    let words = ["build", "-t", "org/a:2", "-o", &output];
    let words: Vec<&OsStr> =
        words.iter().map(|word| OsStr::new(*word)).chain([context.as_os_str()]).collect();
    let done = fixture.kiln(&words);
    assert_eq!(done.code, 0, "{}", done.err);
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let names = index["manifests"].as_array().unwrap().iter();
    let mut names: Vec<&str> =
        names.map(|it| it["annotations"]["io.containerd.image.name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["docker.io/org/a:1", "docker.io/org/a:2"]);
}

#[test]
fn archives_without_a_name_leave_no_image() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM scratch\nLABEL a=b\n");
    let archive = format!("type=oci,dest={}", fixture.path("a.tar").display());
    let layout = format!("type=oci,tar=false,dest={}", fixture.path("layout").display());
    let build = |flags: &[&str]| {
        let words: Vec<&OsStr> = ["build"].iter().chain(flags).map(OsStr::new).collect();
        let done = fixture.kiln(&[&words[..], &[context.as_os_str()]].concat());
        assert_eq!(done.code, 0, "{}", done.err);
    };
    build(&["-o", &archive, "-o", &layout]);
    assert_eq!(fixture.ok("images -aq"), "");
    // One that was there before stays.
    build(&[]);
    let there = fixture.ok("images -aq");
    assert_eq!(there.lines().count(), 1);
    build(&["-o", &archive]);
    assert_eq!(fixture.ok("images -aq"), there);
    build(&["-o", &archive, "-t", "named"]);
    assert!(fixture.ok("images").contains("named"));
}
