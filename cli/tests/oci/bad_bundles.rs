//! Bundles that are wrong as a whole: programs that are no programs, and files that are no configuration.

use crate::fixture::{Bundle, Done, Fixture, new_id};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// Runs a bundle that must be refused; checks that there is one line and that nothing is left.
pub fn refused(fixture: &Fixture, bundle: &Bundle, name: &str, what: &str) -> Done {
    let started = Instant::now();
    let id = new_id(name);
    let done = fixture.oci(&["run", "--bundle", bundle.write(), &id]);
    assert_ne!(done.code, 0, "{what}: {done:?}");
    assert_eq!(done.out, "", "{what}: the program ran");
    assert_eq!(done.err.lines().count(), 1, "{what}: {done:?}");
    assert!(done.err.starts_with("kiln oci: "), "{what}: {done:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{what}: took {:?}", started.elapsed());
    assert!(!fixture.root().join(&id).exists(), "{what}: state is left");
    done
}

#[test]
fn programs_that_cannot_be_run() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("");
    let file = |name: &str, text: &[u8], mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = bundle.rootfs().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("script", b"#!/no/such/shell -e\necho hi\n", 0o755);
    file("windows", b"#!/bin/sh\r\necho hi\r\n", 0o755);
    file("text", b"just text\n", 0o755);
    file("plain", b"#!/bin/sh\n", 0o644);
    let mut elf = fs::read(bundle.rootfs().join("bin/busybox")).unwrap();
    // e_machine of an ELF file: VAX.
    elf[18] = 75;
    file("vax", &elf[..4096], 0o755);
    file("empty", b"", 0o755);
    for (program, code, expected) in [
        ("/no/such", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("no-such", 127, "exec: \"no-such\": executable file not found in $PATH"),
        ("", 127, "exec: \"\": executable file not found in $PATH"),
        ("/etc/passwd/x", 127, "exec: \"/etc/passwd/x\""),
        ("/plain", 126, "exec: \"/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": permission denied"),
        ("/script", 127, "exec: \"/script\": its interpreter \"/no/such/shell\" does not exist"),
        (
            "/windows",
            127,
            "exec: \"/windows\": its interpreter \"/bin/sh\" does not exist (the line ends with a carriage return)",
        ),
        ("/text", 126, "exec: \"/text\": exec format error"),
        ("/vax", 126, "exec: \"/vax\": exec format error"),
        ("/empty", 126, "exec: \"/empty\": exec format error"),
    ] {
        bundle.config["process"]["args"] = json!([program]);
        let done = refused(&fixture, &bundle, "programs-that-cannot-be-run", program);
        assert_eq!(done.code, code, "{program:?}: {done:?}");
        let told = format!("kiln oci: unable to start container process: {expected}\n").replace(
            "exec: \"/etc/passwd/x\"\n",
            "exec: \"/etc/passwd/x\": stat /etc/passwd/x: no such file or directory\n",
        );
        // What kind of file it is follows.
        let is_format = expected.ends_with("exec format error") && done.err.starts_with(told.trim_end());
        assert!(done.err == told || is_format, "{program:?}: {done:?}");
        // And in two steps: `create` reports what is missing, `start` the rest.
        let id = new_id("programs-that-cannot-be-run");
        let mut done = fixture.detached(&["create", "--bundle", bundle.write(), &id]);
        if done.code == 0 {
            done = fixture.detached(&["start", &id]);
        }
        assert_ne!(done.code, 0, "{program:?}: {done:?}");
        assert!(done.err.contains("exec: "), "{program:?}: {done:?}");
        assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    }
    assert!(fixture.traces("programs-that-cannot-be-run").is_empty());
}

#[test]
fn files_that_are_no_configuration() {
    let fixture = fixture!();
    let bundle = fixture.bundle("echo ok");
    let good = bundle.config.to_string();
    let deep = |depth: usize| {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        good.replacen("\"process\":{", &format!("\"process\":{{\"rlimits\":{nested},"), 1)
    };
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("empty", Vec::new(), "EOF while parsing a value at line 1 column 0"),
        ("truncated", good.as_bytes()[..good.len() / 2].to_vec(), "at line 1 column"),
        ("second line", b"{\n  \"ociVersion\": 1.0.0\n}".to_vec(), "at line 2 column"),
        (
            "no UTF-8",
            good.replace("echo ok", "echo \u{1}")
                .into_bytes()
                .iter()
                .map(|b| if *b == 1 { 0xff } else { *b })
                .collect(),
            "at line 1 column",
        ),
        ("no JSON", b"ociVersion: 1.0.0".to_vec(), "expected value at line 1 column 1"),
        (
            "another kind",
            b"17".to_vec(),
            "invalid type: integer `17`, expected struct Spec at line 1 column 2",
        ),
        ("deep", deep(100_000).into_bytes(), "at line 1 column"),
        ("large", format!("{good}{}", " ".repeat(17 << 20)).into_bytes(), "it is larger than 16 MiB"),
    ];
    for (what, text, expected) in cases {
        fs::write(bundle.dir.join("config.json"), text).unwrap();
        let started = Instant::now();
        let done = fixture.oci(&[
            "run",
            "--bundle",
            bundle.dir.to_str().unwrap(),
            &new_id("files-that-are-no-configuration"),
        ]);
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{what}: {done:?}");
        assert_eq!(done.err.lines().count(), 1, "{what}: {done:?}");
        assert!(
            done.err.contains("config.json` is not a valid container configuration: "),
            "{what}: {done:?}"
        );
        assert!(done.err.contains(expected), "{what}: {done:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{what}: {:?}", started.elapsed());
    }
    assert!(fixture.traces("files-that-are-no-configuration").is_empty());
}

#[test]
fn ten_megabytes_of_configuration() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("echo ok");
    // Many notes for other tools: read and skipped.
    let notes: serde_json::Map<String, Value> =
        (0..100_000).map(|number| (format!("note.{number}"), json!("x".repeat(80)))).collect();
    bundle.config["annotations"] = Value::Object(notes);
    let started = Instant::now();
    let done = fixture.run(&bundle);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "ok\n", ""));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // More environment than the kernel takes.
    bundle.config["annotations"] = json!({});
    let environment: Vec<String> =
        (0..100_000).map(|number| format!("V{number}={}", "x".repeat(80))).collect();
    bundle.config["process"]["env"] = json!(environment);
    let done = refused(&fixture, &bundle, "ten-megabytes-of-configuration", "environment");
    assert_eq!(
        done.err,
        "kiln oci: unable to start container process: exec: \"/bin/sh\": argument list too long\n"
    );
}
