//! `run --secret`: files in memory and variables, in no record and in no image.

use crate::fixture::Fixture;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const VALUE: &str = "q9-the-value-of-the-secret";

/// True when a file below a directory contains the value.
fn holds(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => holds(&path),
            (_, true) => String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(VALUE),
            _ => false,
        }
    })
}

fn run(fixture: &Fixture, flags: &[&str], script: &str) -> String {
    let words = [&["run", "--network", "none"], flags, &["busybox", "sh", "-c", script]].concat();
    let mut command = fixture.command(&words);
    let output = command.env("TOKEN", VALUE).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn secrets_are_files_in_memory_or_variables() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("value", VALUE);
    let file = format!("id=key,src={}", fixture.path("value").display());
    let script = "cat /run/secrets/key; stat -c ' %a %u:%g' /run/secrets/key; stat -f -c %T /run/secrets/key";
    assert_eq!(run(&fixture, &["--rm", "--secret", &file], script), format!("{VALUE} 444 0:0\ntmpfs\n"));
    let own = format!("{file},target=/etc/key,mode=0400,uid=7,gid=8");
    let done = run(
        &fixture,
        &["--rm", "--user", "7", "--secret", &own],
        "cat /etc/key; stat -c ' %a %u:%g' /etc/key",
    );
    assert_eq!(done, format!("{VALUE} 400 7:8\n"));
    let done = run(&fixture, &["--rm", "--secret", "id=TOKEN,type=env,target=KEY"], "echo $KEY");
    assert_eq!(done, format!("{VALUE}\n"));
    let done = run(
        &fixture,
        &["--rm", "--secret", "id=TOKEN"],
        "echo x >/run/secrets/TOKEN; cat /run/secrets/TOKEN",
    );
    assert!(done.contains("Read-only file system") && done.contains(VALUE), "{done}");
    for (text, reason) in [
        ("token", "there is no store of secrets"),
        ("id=NOSUCH", "the variable NOSUCH is not set here"),
        ("id=a,src=/no/such", "cannot read the secret \"a\" from `/no/such`: No such file"),
    ] {
        let done = fixture.kiln(&["run", "--rm", "--secret", text, "busybox", "true"]);
        assert!(done.code == 125 && done.err.contains(reason), "{text}: {} {}", done.code, done.err);
    }
}

#[test]
fn secrets_stay_out_of_records_images_and_archives() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("value", VALUE);
    let file = format!("id=key,src={}", fixture.path("value").display());
    let flags = ["--name", "web", "--secret", &file, "--secret", "id=TOKEN,type=env"];
    let script = "cat /run/secrets/key | wc -c; echo $TOKEN | wc -c";
    assert_eq!(run(&fixture, &flags, script), "26\n27\n");
    // Later starts need no source.
    fs::remove_file(fixture.path("value")).unwrap();
    let again = fixture.words("start -a web");
    assert_eq!((again.code, again.out.as_str()), (0, "26\n27\n"), "{}", again.err);
    assert!(!fixture.ok("inspect web").contains(VALUE));
    fixture.ok("commit web copy");
    assert_eq!(
        fixture.kiln(&["run", "--rm", "copy", "sh", "-c", "cat /run/secrets/key; echo $TOKEN"]).out,
        "\n"
    );
    fixture.ok(&format!("export -o {} web", fixture.path("web.tar").display()));
    fixture.ok(&format!("save -o {} copy", fixture.path("copy.tar").display()));
    for archive in ["web.tar", "copy.tar"] {
        let bytes = fs::read(fixture.path(archive)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(VALUE), "{archive}");
    }
    // The one place is a directory that only root reads.
    let id = fixture.ok("ps -aq --no-trunc");
    let dir = fixture.root().join("containers").join(id.trim()).join("secrets");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(holds(&dir));
    fixture.ok("rm web");
    assert!(!holds(&fixture.root()), "it goes with the container");
}
