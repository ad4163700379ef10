//! `save` and `load`, with archives of other tools and by other tools.

use crate::fixture::Done;
use std::path::Path;
use std::process::Command;

#[test]
fn saved_images_load_elsewhere() {
    let fixture = fixture!();
    let context = fixture
        .context("c", "FROM busybox\nRUN echo content > /file && ln /file /hard\nCMD [\"cat\", \"/hard\"]\n");
    fixture.build("c", &context);
    let (file, dir) = (fixture.path("c.tar"), fixture.path("layout"));
    fixture.ok(&format!("save -o {} c", file.display()));
    fixture.ok(&format!("save --format oci-dir -o {} c", dir.display()));
    for path in [&file, &dir] {
        let other = fixture!();
        assert_eq!(other.ok(&format!("load -i {}", path.display())), "Loaded image: c:latest\n");
        assert_eq!(other.ok("images -q --no-trunc c"), fixture.ok("images -q --no-trunc c"));
        assert_eq!(other.ok("run --rm c"), "content\n");
    }
    let again = fixture.path("again.tar");
    fixture.ok(&format!("save -o {} c", again.display()));
    assert_eq!(std::fs::read(file).unwrap(), std::fs::read(again).unwrap(), "the same image, the same bytes");
}

fn skopeo(arguments: &[&str]) -> Option<Done> {
    Command::new("skopeo").args(arguments).output().ok().map(Done::of)
}

#[test]
fn skopeo_reads_what_is_saved_and_its_archives_load() {
    let fixture = fixture!();
    if skopeo(&["--version"]).is_none() {
        skip!("needs skopeo");
    }
    let context = fixture.context("c", "FROM busybox\nRUN echo content > /file\nCMD [\"cat\", \"/file\"]\n");
    fixture.build("c", &context);
    let text = |path: &Path| path.display().to_string();
    let (file, dir) = (text(&fixture.path("c.tar")), text(&fixture.path("layout")));
    fixture.ok(&format!("save -o {file} c"));
    fixture.ok(&format!("save --format oci-dir -o {dir} c"));
    for source in [format!("docker-archive:{file}"), format!("oci-archive:{file}"), format!("oci:{dir}")] {
        let done = skopeo(&["inspect", "--config", &source]).unwrap();
        assert_eq!(done.code, 0, "{source}: {}", done.err);
        assert!(done.out.contains("buildkit.dockerfile.v0"), "{}", done.out);
    }
    // Compressed layers, and a manifest of another tool.
    let other = text(&fixture.path("other.tar"));
    let done = skopeo(&[
        "copy",
        "-q",
        "--dest-compress",
        &format!("oci:{dir}"),
        &format!("oci-archive:{other}:other:1"),
    ]);
    assert_eq!(done.as_ref().map(|done| done.code), Some(0), "{done:?}");
    assert_eq!(fixture.ok(&format!("load -i {other}")), "Loaded image: other:1\n");
    assert_eq!(fixture.ok("run --rm other:1"), "content\n");
}

/// Runs a command that must end by itself.
fn bounded(fixture: &crate::fixture::Fixture, arguments: &[&str]) -> Done {
    let mut child = fixture.start(arguments);
    let begun = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > std::time::Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("kiln {arguments:?} waits");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Done::of(child.wait_with_output().unwrap())
}

fn fifo(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn fifos_in_place_of_files_do_not_block() {
    let fixture = fixture!();
    let text = |name: &str| fixture.path(name).display().to_string();
    fifo(&fixture.path("index/index.json"));
    fifo(&fixture.path("docker/manifest.json"));
    fifo(&fixture.path("marked/oci-layout"));
    fifo(&fixture.path("fifo"));
    fixture.build("c", &fixture.context("c", "FROM busybox\n"));
    fixture.ok(&format!("save --format oci-dir -o {} c", text("blob")));
    let blobs = fixture.path("blob/blobs/sha256");
    for blob in std::fs::read_dir(&blobs).unwrap().flatten() {
        std::fs::remove_file(blob.path()).unwrap();
        fifo(&blob.path());
    }
    for name in ["index", "docker", "marked", "fifo", "blob"] {
        let done = bounded(&fixture, &["load", "-i", &text(name)]);
        assert_eq!(done.code, 1, "{name}: {}", done.err);
        assert!(name == "marked" || done.err.contains("is a FIFO"), "{name}: {}", done.err);
    }
    let context = fixture.context("d", "FROM base\n").display().to_string();
    for name in ["index", "blob"] {
        let flag = format!("--build-context=base=oci-layout://{}", text(name));
        let done = bounded(&fixture, &["build", &flag, &context]);
        assert!(done.code == 1 && done.err.contains("is a FIFO"), "{name}: {}", done.err);
    }
    // Members of a context may be of any type.
    fifo(&fixture.path("e/f.tar"));
    let context = fixture.context("e", "FROM busybox\nADD f.tar /a/\nCOPY f.tar /b/\nRUN test -p /b/f.tar\n");
    let done = bounded(&fixture, &["build", &context.display().to_string()]);
    assert!(done.code == 0 || done.err.contains("f.tar"), "{}", done.err);
    fifo(&fixture.path("g/.dockerignore"));
    let context = fixture.context("g", "FROM busybox\nCOPY . /\n");
    bounded(&fixture, &["build", &context.display().to_string()]);
    // The shell's `<(…)` is a stream, like standard input.
    fixture.ok(&format!("save -o {} c", text("c.tar")));
    let script = format!("cat {} | '{}' load -i /dev/stdin", text("c.tar"), crate::fixture::kiln().display());
    let environment = fixture.command::<&str>(&[]);
    let variables = environment.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let done = Done::of(Command::new("sh").args(["-c", &script]).envs(variables).output().unwrap());
    assert_eq!(done.out, "Loaded image: c:latest\n", "{}", done.err);
}
