//! `save` and `load`, and what other tools make of it.

use crate::bed::Done;
use std::path::Path;
use std::process::Command;

#[test]
fn saved_images_load_elsewhere() {
    let bed = bed!();
    let context = bed
        .context("c", "FROM busybox\nRUN echo content > /file && ln /file /hard\nCMD [\"cat\", \"/hard\"]\n");
    bed.build("c", &context);
    let (file, folder) = (bed.path("c.tar"), bed.path("layout"));
    bed.ok(&format!("save -o {} c", file.display()));
    bed.ok(&format!("save --format oci-dir -o {} c", folder.display()));
    for path in [&file, &folder] {
        let other = bed!();
        assert_eq!(other.ok(&format!("load -i {}", path.display())), "Loaded image: c:latest\n");
        assert_eq!(other.ok("images -q --no-trunc c"), bed.ok("images -q --no-trunc c"));
        assert_eq!(other.ok("run --rm c"), "content\n");
    }
    let again = bed.path("again.tar");
    bed.ok(&format!("save -o {} c", again.display()));
    assert_eq!(std::fs::read(file).unwrap(), std::fs::read(again).unwrap(), "the same image, the same bytes");
}

fn skopeo(arguments: &[&str]) -> Option<Done> {
    Command::new("skopeo").args(arguments).output().ok().map(Done::of)
}

#[test]
fn skopeo_reads_what_is_saved_and_its_archives_load() {
    let bed = bed!();
    if skopeo(&["--version"]).is_none() {
        skip!("needs skopeo");
    }
    let context = bed.context("c", "FROM busybox\nRUN echo content > /file\nCMD [\"cat\", \"/file\"]\n");
    bed.build("c", &context);
    let text = |path: &Path| path.display().to_string();
    let (file, folder) = (text(&bed.path("c.tar")), text(&bed.path("layout")));
    bed.ok(&format!("save -o {file} c"));
    bed.ok(&format!("save --format oci-dir -o {folder} c"));
    for source in [format!("docker-archive:{file}"), format!("oci-archive:{file}"), format!("oci:{folder}")] {
        let done = skopeo(&["inspect", "--config", &source]).unwrap();
        assert_eq!(done.code, 0, "{source}: {}", done.err);
        assert!(done.out.contains("buildkit.dockerfile.v0"), "{}", done.out);
    }
    // Compressed layers, and a manifest of another tool.
    let other = text(&bed.path("other.tar"));
    let done = skopeo(&[
        "copy",
        "-q",
        "--dest-compress",
        &format!("oci:{folder}"),
        &format!("oci-archive:{other}:other:1"),
    ]);
    assert_eq!(done.as_ref().map(|done| done.code), Some(0), "{done:?}");
    assert_eq!(bed.ok(&format!("load -i {other}")), "Loaded image: other:1\n");
    assert_eq!(bed.ok("run --rm other:1"), "content\n");
}
