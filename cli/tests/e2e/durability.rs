//! Reported results are durable: lost and damaged indexes, full disks, kills, power cuts.
//!
//! `tests/powercut` cuts the power at many random moments.

use crate::fixture::{Done, Fixture};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time until a process in the background is done, on a busy host.
const LONGEST: Duration = Duration::from_secs(60);

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
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn at(fixture: &Fixture, root: &Path, line: &str) -> Done {
    let words: Vec<&str> = line.split_whitespace().collect();
    Done::of(fixture.command(&words).env("KILN_ROOT", root).output().unwrap())
}

#[track_caller]
fn ok_at(fixture: &Fixture, root: &Path, line: &str) -> String {
    let done = at(fixture, root, line);
    assert_eq!(done.code, 0, "kiln {line}: {}{}", done.out, done.err);
    done.out
}

#[test]
fn a_lost_or_damaged_index_is_made_anew() {
    let fixture = fixture!();
    fixture
        .build("built", &fixture.context("c", "FROM busybox\nRUN echo content >/f\nCMD [\"cat\", \"/f\"]\n"));
    fixture.ok("tag built other:1");
    fixture.ok("pull -q busybox");
    let list =
        || fixture.ok("images --no-trunc --digests --format {{.Repository}}:{{.Tag}}@{{.ID}}|{{.Digest}}");
    let before = list();
    let index = fixture.root().join("index.db");
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
    let done = fixture.words("run --rm other:1");
    assert_eq!((done.code, done.out.as_str()), (0, "content\n"), "{}", done.err);
    assert_eq!(list(), before);
    fixture.ok("builder prune -f");
    assert_eq!(fixture.ok("run --rm built"), "content\n");
    fixture.ok("system check");
}

#[test]
fn the_store_is_checked_and_repaired() {
    let fixture = fixture!();
    fixture.build("built", &fixture.context("c", "FROM busybox\nRUN echo content >/f\n"));
    assert!(fixture.ok("system check").ends_with(": all are sound\n"));
    let id = fixture.ok("images -q --no-trunc built").trim().replace("sha256:", "");
    fs::write(fixture.root().join("blobs/sha256").join(&id), "{}").unwrap();
    fs::create_dir(fixture.root().join("layers/half")).unwrap();
    let done = fixture.words("system check");
    assert_eq!(done.code, 1, "{}", done.out);
    assert!(done.out.contains(&id) && done.out.contains("layer half"), "{}", done.out);
    assert!(done.err.contains("kiln system check --repair"), "{}", done.err);
    fixture.ok("system check --repair");
    assert!(fixture.ok("system check").ends_with(": all are sound\n"));
    assert_eq!(fixture.ok("run --rm busybox echo fine"), "fine\n");
    fixture.build("built", &fixture.path("c"));
    assert_eq!(fixture.ok("run --rm built cat /f"), "content\n");
}

#[test]
fn full_disks_can_be_freed() {
    let fixture = fixture!();
    let options = ["-t", "tmpfs", "-o", "size=40m", "none"];
    let Some(mounted) = Mounted::new(fixture.path("disk"), &options) else { skip!("needs to mount a tmpfs") };
    let root = mounted.point.join("store");
    ok_at(&fixture, &root, "pull -q busybox");
    ok_at(&fixture, &root, "tag busybox other:1");
    let fill = || {
        let filler = fs::File::create(mounted.point.join("filler")).unwrap();
        std::io::copy(&mut std::io::repeat(1), &mut &filler).unwrap_err();
    };
    fill();
    ok_at(&fixture, &root, "builder prune -a -f");
    fill();
    ok_at(&fixture, &root, "rmi -f busybox:latest other:1");
    assert_eq!(ok_at(&fixture, &root, "images -q"), "");
    fs::remove_file(mounted.point.join("filler")).unwrap();
    ok_at(&fixture, &root, "pull -q busybox");
    assert_eq!(fs::metadata(root.join("reserve")).unwrap().len(), 1 << 20, "it is there for the next time");
}

/// A process goes on to take each free block. Blocks are smaller than pages: memory that is mapped from a file may have
/// no space.
#[test]
fn containers_and_images_are_managed_while_the_disk_stays_full() {
    let fixture = fixture!();
    let disk = fixture.path("disk.img");
    fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-b", "1024"]).arg(&disk).status();
    if !made.is_ok_and(|status| status.success()) {
        skip!("needs mkfs.ext4");
    }
    let options = ["-o", "loop", disk.to_str().unwrap()];
    let Some(mounted) = Mounted::new(fixture.path("live"), &options) else { skip!("needs loop devices") };
    let root = mounted.point.join("store");
    ok_at(&fixture, &root, "pull -q busybox");
    ok_at(&fixture, &root, "tag busybox other:1");
    ok_at(&fixture, &root, "run -d --name idle busybox sleep 1000");
    let script = ["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.02; done"];
    let mut words = vec!["run", "-d", "--name", "asked", "busybox"];
    words.extend(script);
    assert!(fixture.command(&words).env("KILN_ROOT", &root).output().unwrap().status.success());
    let is_full = std::sync::Barrier::new(2);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut filler = fs::File::create(mounted.point.join("filler")).unwrap();
            let zeros = [0u8; 1024];
            while std::io::Write::write_all(&mut filler, &zeros).is_ok() {}
            is_full.wait();
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::io::Write::write(&mut filler, &zeros);
            }
        });
        is_full.wait();
        let results = std::panic::catch_unwind(|| {
            assert_eq!(ok_at(&fixture, &root, "images -q").lines().count(), 2);
            ok_at(&fixture, &root, "pause idle");
            ok_at(&fixture, &root, "unpause idle");
            ok_at(&fixture, &root, "stop asked");
            assert_eq!(ok_at(&fixture, &root, "wait asked"), "3\n");
            ok_at(&fixture, &root, "kill idle");
            assert_eq!(ok_at(&fixture, &root, "wait idle"), "137\n");
            ok_at(&fixture, &root, "rm idle asked");
        });
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Err(panic) = results {
            at(&fixture, &root, "rm -f idle asked");
            std::panic::resume_unwind(panic);
        }
    });
    ok_at(&fixture, &root, "rmi -f busybox other:1");
    assert_eq!(ok_at(&fixture, &root, "images -q"), "");
    fs::remove_file(mounted.point.join("filler")).unwrap();
    ok_at(&fixture, &root, "system check");
}

#[test]
fn killed_removals_leave_nothing() {
    let fixture = fixture!();
    let many = "FROM busybox\nRUN i=0; while [ $i -lt 3000 ]; do mkdir /d$i; i=$((i+1)); done\n";
    let context = fixture.context("c", many);
    fixture.build("many", &context);
    let saved = fixture.path("many.tar");
    fixture.ok(&format!("save -o {} many", saved.display()));
    fixture.ok("rmi many");
    fixture.ok("builder prune -f");
    for moment in 0..6 {
        fixture.ok(&format!("load -q -i {}", saved.display()));
        let mut child = fixture.start(&["rmi", "many"]);
        std::thread::sleep(Duration::from_millis(moment * 12));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    fixture.words("rmi many");
    fixture.ok("rmi -f busybox");
    fixture.ok("builder prune -f");
    let left = fs::read_dir(fixture.root().join("layers")).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_dir(fixture.root().join("locks")).unwrap().count(), 1, "that of the layers alone");
}

/// With `KILN_DURABILITY=strict` a command ends when its results are on disk.
#[test]
fn power_cuts_lose_nothing_that_was_waited_for() {
    let fixture = fixture!();
    let disk = fixture.path("disk.img");
    fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status();
    if !made.is_ok_and(|status| status.success()) {
        skip!("needs mkfs.ext4");
    }
    let options = ["-o", "loop", disk.to_str().unwrap()];
    let Some(mounted) = Mounted::new(fixture.path("live"), &options) else { skip!("needs loop devices") };
    let root = mounted.point.join("store");
    let strict = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = fixture.command(&words);
        let done =
            Done::of(command.env("KILN_ROOT", &root).env("KILN_DURABILITY", "strict").output().unwrap());
        assert_eq!(done.code, 0, "kiln {line}: {}", done.err);
    };
    let context = fixture.context("c", "FROM busybox\nRUN head -c 3000000 /dev/urandom >/big\n");
    strict(&format!("build -q -t built {}", context.display()));
    strict("tag built other:1");
    // The device as it is at this moment: nothing more reaches it.
    fs::copy(&disk, fixture.path("cut.img")).unwrap();
    let cut = fixture.path("cut.img");
    let options = ["-o", "loop", cut.to_str().unwrap()];
    let Some(after) = Mounted::new(fixture.path("after"), &options) else { skip!("needs loop devices") };
    let root = after.point.join("store");
    let names = ok_at(&fixture, &root, "images --format {{.Repository}}:{{.Tag}}");
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["built:latest", "busybox:latest", "other:1"]);
    ok_at(&fixture, &root, "system check");
    assert_eq!(ok_at(&fixture, &root, "run --rm --network none other:1 wc -c /big"), "3000000 /big\n");
}

/// Every command reads the log of the index, so it is moved into the index in the background.
#[test]
fn the_log_of_the_index_stays_short() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    for number in 0..80 {
        fixture.ok(&format!("tag busybox t:{number}"));
    }
    let log = || fs::metadata(fixture.root().join("index.db-wal")).map_or(0, |found| found.len());
    let begun = Instant::now();
    // The process that syncs goes on after its command.
    while log() > 300_000 {
        assert!(begun.elapsed() < LONGEST, "the log has {} bytes", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fixture.ok("images --format {{.Tag}} t").lines().count(), 80);
    fixture.ok("system check");
}
