//! `ps` with its filters and formats.

use crate::fixture::Fixture;
use crate::running::{end, start};

/// Names that `ps` lists, in its order.
fn names(fixture: &Fixture, flags: &str) -> String {
    fixture.ok(&format!("ps --format {{{{.Names}}}} {flags}")).replace('\n', " ").trim_end().to_owned()
}

#[test]
fn conditions_choose_containers() {
    let fixture = fixture!();
    fixture.ok("run --name one --label a.b=x --label plain busybox true");
    fixture.kiln(&["run", "--name", "two", "--network", "none", "busybox", "sh", "-c", "exit 3"]);
    fixture.build("child", &fixture.context("c", "FROM busybox\nRUN echo x > /f\nEXPOSE 80\n"));
    let running = start(&fixture, "three", &["--label", "a.b=y"], "true");
    fixture.ok("run --name four child true");
    let id = fixture.ok("ps -q --no-trunc");
    for (flags, expected) in [
        ("", "three"),
        ("-a", "four three two one"),
        ("-n 2", "four three"),
        ("--last 0", "three"),
        ("-l", "four"),
        ("-n 1 --filter name=o", "four"),
        ("-a --filter name=o", "four two one"),
        ("-a --filter name=^/?o", "one"),
        ("-a --filter name=one --filter name=two", "two one"),
        (&format!("--filter id={}", &id[..20]), "three"),
        ("-a --filter label=plain", "one"),
        ("-a --filter label=a.b", "three one"),
        ("-a --filter label=a.b=x", "one"),
        ("-a --filter label=a.b=x --filter label=nope", ""),
        ("--filter status=exited", "four two one"),
        ("--filter status=running --filter status=created", "three"),
        ("--filter exited=3", "two"),
        ("-a --filter exited=0", "four one"),
        ("-a --filter network=none", "two"),
        ("-a --filter before=three", "two one"),
        ("-a --filter since=two", "four three"),
        ("-a --filter ancestor=child", "four"),
        ("-a --filter ancestor=busybox", "four three two one"),
        ("-a --filter ancestor=nosuch", ""),
        // As in the reference, a port of a container that does not run is not exposed.
        ("-a --filter expose=80", ""),
        ("-a --filter expose=70-90/tcp", ""),
        ("-a --filter publish=80", ""),
        ("-a --filter volume=x", ""),
        ("-a --filter health=none", "four three two one"),
        ("-a --filter health=healthy", ""),
        ("-a --filter is-task=false --filter name=one", "one"),
        ("-a --filter is-task=true", ""),
    ] {
        assert_eq!(names(&fixture, flags), expected, "{flags}");
    }
    for (flags, code, text) in [
        ("--filter foo=1", 1, "invalid filter 'foo'"),
        ("--filter status=up", 1, "invalid filter 'status=up'"),
        ("--filter exited=x", 1, "invalid filter 'exited=x'"),
        ("--filter before=nosuch", 1, "No such container: nosuch"),
        ("--filter name", 125, "expected KEY=VALUE"),
        ("-n x", 125, "invalid value"),
        ("--format {{.Nope}}", 1, "Nope"),
    ] {
        let done = fixture.words(&format!("ps {flags}"));
        assert!(done.code == code && done.err.contains(text), "{flags}: {} {}", done.code, done.err);
    }
    end(&fixture, "three", running);
}

#[test]
fn rows_have_every_field() {
    let fixture = fixture!();
    let command = [
        "run",
        "--name",
        "web",
        "--label",
        "a.b=x",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/zero of=/f bs=1k count=5",
    ];
    assert_eq!(fixture.kiln(&command).code, 0);
    let format = "{{.Label \"a.b\"}}|{{.Label \"c\"}}|{{.Labels}}|{{.Size}}|{{.Networks}}|{{.LocalVolumes}}|{{.Mounts}}|{{.Platform}}|{{.HealthStatus}}";
    let out = fixture.kiln(&["ps", "-a", "--format", format]).out;
    let virtual_size = fixture.ok("images --format {{.Size}}").trim().to_owned();
    assert!(
        out.starts_with("x||a.b=x|5.12kB (virtual ") && out.contains("|bridge|0||linux/"),
        "{out} {virtual_size}"
    );
    assert!(fixture.ok("ps -as").contains("SIZE\n"));
    assert!(fixture.ok("ps -as").trim_end().ends_with("MB)"), "{}", fixture.ok("ps -as"));
    let table = fixture.kiln(&["ps", "-a", "--format", "table {{.Names}}\\t{{.Label \"a.b\"}}"]).out;
    assert_eq!(table, "NAMES     b\nweb       x\n");
    let json: serde_json::Value = serde_json::from_str(&fixture.ok("ps -a --format json")).unwrap();
    assert_eq!(
        (&json["Names"], &json["LocalVolumes"], &json["Size"]),
        (&"web".into(), &"0".into(), &"0B".into())
    );
    // The image's name stands for another image now.
    fixture.build("busybox", &fixture.context("c", "FROM busybox\nLABEL x=y\n"));
    let image = fixture.ok("inspect -f {{.Image}} web");
    assert_eq!(fixture.ok("ps -a --format {{.Image}}").trim(), &image["sha256:".len()..][..12]);
    fixture.ok("rm web");
}
