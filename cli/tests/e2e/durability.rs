//! Reported results are durable: lost and damaged indexes, full disks, kills, power cuts.
//!
//! `tests/powercut` cuts the power at many random moments.

use crate::bed::{Bed, Done};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system that is mounted for a test.
struct Mounted {
    point: PathBuf,
}

impl Mounted {
    fn new(point: PathBuf, arguments: &[&str]) -> Option<Mounted> {
        fs::create_dir_all(&point).unwrap();
        let done = Command::new("mount").args(arguments).arg(&point).output().ok()?;
        done.status.success().then_some(Mounted { point })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A sync that goes on keeps it busy for a moment.
        for _ in 0..100 {
            if Command::new("umount")
                .arg(&self.point)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|it| it.success())
            {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn at(bed: &Bed, root: &Path, line: &str) -> Done {
    let words: Vec<&str> = line.split_whitespace().collect();
    Done::of(bed.command(&words).env("KILN_ROOT", root).output().unwrap())
}

#[track_caller]
fn ok_at(bed: &Bed, root: &Path, line: &str) -> String {
    let done = at(bed, root, line);
    assert_eq!(done.code, 0, "kiln {line}: {}{}", done.out, done.err);
    done.out
}

#[test]
fn a_lost_or_damaged_index_is_made_anew() {
    let bed = bed!();
    bed.build("built", &bed.context("c", "FROM busybox\nRUN echo content >/f\nCMD [\"cat\", \"/f\"]\n"));
    bed.ok("tag built other:1");
    bed.ok("pull -q busybox");
    let list = || bed.ok("images --no-trunc --digests --format {{.Repository}}:{{.Tag}}@{{.ID}}|{{.Digest}}");
    let before = list();
    let index = bed.root().join("index.db");
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(index.with_file_name(format!("index.db{suffix}"))).unwrap();
    }
    assert_eq!(list(), before);
    // Damaged pages: the command that reads them continues with a new index.
    let _ = fs::remove_file(index.with_file_name("index.db-wal"));
    let mut bytes = fs::read(&index).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0x5a);
    bytes.resize(bytes.len().max(64 << 10), 0x5a);
    fs::write(&index, bytes).unwrap();
    let done = bed.words("run --rm other:1");
    assert_eq!((done.code, done.out.as_str()), (0, "content\n"), "{}", done.err);
    assert_eq!(list(), before);
    bed.ok("builder prune -f");
    assert_eq!(bed.ok("run --rm built"), "content\n");
    bed.ok("system check");
}

#[test]
fn the_store_is_checked_and_repaired() {
    let bed = bed!();
    bed.build("built", &bed.context("c", "FROM busybox\nRUN echo content >/f\n"));
    assert!(bed.ok("system check").ends_with(": all are sound\n"));
    let id = bed.ok("images -q --no-trunc built").trim().replace("sha256:", "");
    fs::write(bed.root().join("blobs/sha256").join(&id), "{}").unwrap();
    fs::create_dir(bed.root().join("layers/half")).unwrap();
    let done = bed.words("system check");
    assert_eq!(done.code, 1, "{}", done.out);
    assert!(done.out.contains(&id) && done.out.contains("layer half"), "{}", done.out);
    assert!(done.err.contains("kiln system check --repair"), "{}", done.err);
    bed.ok("system check --repair");
    assert!(bed.ok("system check").ends_with(": all are sound\n"));
    assert_eq!(bed.ok("run --rm busybox echo fine"), "fine\n");
    bed.build("built", &bed.path("c"));
    assert_eq!(bed.ok("run --rm built cat /f"), "content\n");
}

#[test]
fn full_disks_can_be_freed() {
    let bed = bed!();
    let options = ["-t", "tmpfs", "-o", "size=40m", "none"];
    let Some(mounted) = Mounted::new(bed.path("disk"), &options) else { skip!("needs to mount a tmpfs") };
    let root = mounted.point.join("store");
    ok_at(&bed, &root, "pull -q busybox");
    ok_at(&bed, &root, "tag busybox other:1");
    let fill = || {
        let filler = fs::File::create(mounted.point.join("filler")).unwrap();
        std::io::copy(&mut std::io::repeat(1), &mut &filler).unwrap_err();
    };
    fill();
    ok_at(&bed, &root, "builder prune -a -f");
    fill();
    ok_at(&bed, &root, "rmi -f busybox:latest other:1");
    assert_eq!(ok_at(&bed, &root, "images -q"), "");
    fs::remove_file(mounted.point.join("filler")).unwrap();
    ok_at(&bed, &root, "pull -q busybox");
    assert_eq!(fs::metadata(root.join("reserve")).unwrap().len(), 1 << 20, "it is there for the next time");
}

#[test]
fn killed_removals_leave_nothing() {
    let bed = bed!();
    let many = "FROM busybox\nRUN i=0; while [ $i -lt 3000 ]; do mkdir /d$i; i=$((i+1)); done\n";
    let context = bed.context("c", many);
    bed.build("many", &context);
    let saved = bed.path("many.tar");
    bed.ok(&format!("save -o {} many", saved.display()));
    bed.ok("rmi many");
    bed.ok("builder prune -f");
    for moment in 0..6 {
        bed.ok(&format!("load -q -i {}", saved.display()));
        let mut child = bed.start(&["rmi", "many"]);
        std::thread::sleep(std::time::Duration::from_millis(moment * 12));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    bed.words("rmi many");
    bed.ok("rmi -f busybox");
    bed.ok("builder prune -f");
    let left = fs::read_dir(bed.root().join("layers")).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_dir(bed.root().join("locks")).unwrap().count(), 1, "that of the layers alone");
}

/// With `KILN_DURABILITY=strict` a command ends when its results are on disk.
#[test]
fn power_cuts_lose_nothing_that_was_waited_for() {
    let bed = bed!();
    let disk = bed.path("disk.img");
    fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status();
    if !made.is_ok_and(|status| status.success()) {
        skip!("needs mkfs.ext4");
    }
    let options = ["-o", "loop", disk.to_str().unwrap()];
    let Some(mounted) = Mounted::new(bed.path("live"), &options) else { skip!("needs loop devices") };
    let root = mounted.point.join("store");
    let strict = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = bed.command(&words);
        let done =
            Done::of(command.env("KILN_ROOT", &root).env("KILN_DURABILITY", "strict").output().unwrap());
        assert_eq!(done.code, 0, "kiln {line}: {}", done.err);
    };
    let context = bed.context("c", "FROM busybox\nRUN head -c 3000000 /dev/urandom >/big\n");
    strict(&format!("build -q -t built {}", context.display()));
    strict("tag built other:1");
    // The device as it is at this moment: nothing more reaches it.
    fs::copy(&disk, bed.path("cut.img")).unwrap();
    let cut = bed.path("cut.img");
    let options = ["-o", "loop", cut.to_str().unwrap()];
    let Some(after) = Mounted::new(bed.path("after"), &options) else { skip!("needs loop devices") };
    let root = after.point.join("store");
    let names = ok_at(&bed, &root, "images --format {{.Repository}}:{{.Tag}}");
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["built:latest", "busybox:latest", "other:1"]);
    ok_at(&bed, &root, "system check");
    assert_eq!(ok_at(&bed, &root, "run --rm --network none other:1 wc -c /big"), "3000000 /big\n");
}
