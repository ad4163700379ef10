//! `--log-driver journald`, with a socket and a `journalctl` of the test's own.

use crate::fixture::{Done, Fixture};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

/// Fields of a datagram in the journal's native form.
fn fields(mut bytes: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let (name, rest) = (&bytes[..line], &bytes[line + 1..]);
        if let Some(equals) = name.iter().position(|byte| *byte == b'=') {
            fields.push((text(&name[..equals]), text(&name[equals + 1..])));
            bytes = rest;
        } else {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            fields.push((text(name), text(&rest[8..8 + length])));
            bytes = &rest[8 + length + 1..];
        }
    }
    fields
}

fn command(fixture: &Fixture, arguments: &[&str]) -> Command {
    let mut command = fixture.command(arguments);
    command.env("KILN_TEST_JOURNAL_SOCKET", fixture.path("journal"));
    command
}

#[test]
fn output_becomes_entries_of_the_journal() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "echo one; sleep 0.1; echo two >&2; sleep 0.1; head -c 20000 /dev/zero | tr '\\0' x; echo";
    let arguments = [
        "run",
        "-d",
        "--name",
        "web",
        "--log-driver",
        "journald",
        "--log-opt",
        "tag=app/{{.Name}}",
        "--log-opt",
        "labels=com.tier",
        "--log-opt",
        "env=STAGE,NONE",
        "--label",
        "com.tier=front",
        "-e",
        "STAGE=test",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let refused = Done::of(command(&fixture, &arguments).output().unwrap());
    assert_eq!(refused.code, 125, "{}", refused.err);
    assert!(refused.err.contains("needs the journal of systemd"), "{}", refused.err);
    assert_eq!(fixture.ok("ps -aq"), "");
    let journal = UnixDatagram::bind(fixture.path("journal")).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let done = Done::of(command(&fixture, &arguments).output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);
    let id = done.out.trim();
    let mut buffer = vec![0; 1 << 18];
    let mut next = || {
        let length = journal.recv(&mut buffer).unwrap();
        fields(&buffer[..length])
    };
    let get = |fields: &[(String, String)], name: &str| {
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let first = next();
    for (name, value) in [
        ("MESSAGE", "one"),
        ("PRIORITY", "6"),
        ("CONTAINER_ID", &id[..12]),
        ("CONTAINER_ID_FULL", id),
        ("CONTAINER_NAME", "web"),
        ("CONTAINER_TAG", "app/web"),
        ("SYSLOG_IDENTIFIER", "app/web"),
        ("IMAGE_NAME", "busybox"),
        ("COM_TIER", "front"),
        ("STAGE", "test"),
        ("CONTAINER_PARTIAL_MESSAGE", ""),
    ] {
        assert_eq!(get(&first, name), value, "{name}: {first:?}");
    }
    let second = next();
    assert_eq!((get(&second, "MESSAGE"), get(&second, "PRIORITY")), ("two".to_owned(), "3".to_owned()));
    let long = next();
    assert_eq!(
        (get(&long, "MESSAGE").len(), get(&long, "CONTAINER_PARTIAL_MESSAGE")),
        (16384, "true".to_owned())
    );
    let rest = next();
    assert_eq!(
        (get(&rest, "MESSAGE").len(), get(&rest, "CONTAINER_PARTIAL_MESSAGE")),
        (20000 - 16384, String::new())
    );
    fixture.ok("wait web");
    // A journal that has gone loses entries, and stops no container from starting elsewhere.
    drop(journal);
    fs::remove_file(fixture.path("journal")).unwrap();
    let failed = Done::of(command(&fixture, &["start", "web"]).output().unwrap());
    assert!(failed.code == 1 && failed.err.contains("cannot open the log in"), "{}", failed.err);
    for option in ["max-size=1m", "tag={{.Nothing}}"] {
        let refused = fixture.words(&format!("create --log-driver journald --log-opt {option} busybox"));
        assert!(refused.code == 125 && refused.err.contains("log opt"), "{}", refused.err);
    }
    fixture.ok("rm web");
}

#[test]
fn logs_are_read_by_journalctl() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let _journal = UnixDatagram::bind(fixture.path("journal")).unwrap();
    let create = ["create", "--name", "web", "--log-driver", "journald", "busybox", "true"];
    let id = Done::of(command(&fixture, &create).output().unwrap()).out;
    let lines = [
        r#"{"MESSAGE":"one","PRIORITY":"6","SYSLOG_TIMESTAMP":"2026-01-02T15:04:05.5Z","__CURSOR":"a"}"#,
        r#"{"MESSAGE":[116,119,111],"PRIORITY":"3","__REALTIME_TIMESTAMP":"1767366246000000","__CURSOR":"b"}"#,
    ];
    let script = format!(
        "#!/bin/sh\necho \"$@\" > {}/arguments\ncat <<'END'\n{}\nEND\n",
        fixture.path("bin").display(),
        lines.join("\n")
    );
    fixture.write("bin/journalctl", &script);
    fs::set_permissions(fixture.path("bin/journalctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let logs = |arguments: &[&str], path: &str| {
        let words = [&["logs"], arguments, &["web"]].concat();
        Done::of(fixture.command(&words).env("PATH", path).output().unwrap())
    };
    let path = format!("{}:{}", fixture.path("bin").display(), std::env::var("PATH").unwrap());
    let done = logs(&["-t"], &path);
    assert_eq!(done.out, "2026-01-02T15:04:05.500000000Z one\n", "{}", done.err);
    assert_eq!(done.err, "2026-01-02T15:04:06.000000000Z two\n");
    let arguments = fs::read_to_string(fixture.path("bin/arguments")).unwrap();
    assert!(arguments.contains(&format!("CONTAINER_ID_FULL={}", id.trim())), "{arguments}");
    assert_eq!(logs(&["--until", "2026-01-02T15:04:06Z"], &path).err, "");
    assert_eq!(logs(&["-n", "1"], &path).code, 0);
    assert!(fs::read_to_string(fixture.path("bin/arguments")).unwrap().contains("--lines=1"));
    let refused = logs(&[], "/nowhere");
    assert!(refused.code == 1 && refused.err.contains("journalctl"), "{}", refused.err);
    fixture.ok("rm web");
}
