//! `kill -9` at any moment.

use kiln_image::digest::Hasher;
use kiln_image::store::Store;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Moments of a build, spread over what it takes; not a wait for something, but the thing under test.
const MOMENTS: u64 = 10;

#[test]
fn killed_builds_leave_a_sound_store() {
    let bed = bed!();
    let steps: String =
        (0..6).map(|n| format!("RUN dd if=/dev/urandom of=/f{n} bs=64k count=8 2>/dev/null\n")).collect();
    let context = bed.context("c", &format!("FROM busybox\nCOPY data /data\n{steps}"));
    bed.write("c/data/file", &"content ".repeat(100_000));
    let arguments =
        ["build".as_ref(), "--no-cache".as_ref(), "-t".as_ref(), "c".as_ref(), context.as_os_str()];
    let begun = std::time::Instant::now();
    assert_eq!(bed.kiln(&arguments).code, 0);
    let whole = begun.elapsed();
    for moment in 0..MOMENTS {
        let mut child = bed.start(&arguments);
        std::thread::sleep(whole.mul_f64((moment as f64 + 0.5) / MOMENTS as f64));
        child.kill().unwrap();
        child.wait().unwrap();
        check_blobs(&bed.root());
        bed.build("c", &context);
    }
    let out = bed.kiln(&["run", "--rm", "c", "sh", "-c", "ls / | grep -c ^f && wc -c < /data/file"]).out;
    assert_eq!(out, "6\n800000\n");
    wait_until_clean(&bed);
}

/// Files below `folder` that hold `text`.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with(&entry.path(), text));
        } else if std::fs::read(entry.path()).is_ok_and(|bytes| bytes == text.as_bytes()) {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn secrets_of_killed_builds_are_removed() {
    let bed = bed!();
    let secrets = Path::new("/run/kiln/secrets");
    let text = format!("secret of {} {:?}", std::process::id(), std::thread::current().id());
    bed.write("secret", &text);
    let context = bed.context("c", "FROM busybox\nRUN --mount=type=secret,id=s sleep 1000\n");
    let flag = format!("id=s,src={}", bed.path("secret").display());
    let mut killed = bed.start(&["build", "--no-cache", "--secret", &flag, context.to_str().unwrap()]);
    while files_with(secrets, &text).is_empty() {
        assert!(killed.try_wait().unwrap().is_none(), "the build ended before its step began");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Another build's are not touched while that runs.
    bed.build("other", &bed.context("other", "FROM scratch\nCOPY Dockerfile /\n"));
    assert_eq!(files_with(secrets, &text).len(), 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    bed.build("other", &bed.context("other", "FROM scratch\nCOPY Dockerfile /\n"));
    assert_eq!(files_with(secrets, &text), Vec::<PathBuf>::new());
    wait_until_clean(&bed);
}

/// A stage that an image takes files of holds a secret in a layer: it is not there any more once the next command ran.
#[test]
fn private_layers_of_killed_builds_are_removed() {
    let bed = bed!();
    let text = format!("private of {} {:?}", std::process::id(), std::thread::current().id());
    bed.write("secret", &text);
    let context = bed.context(
        "c",
        "FROM busybox AS inner\nRUN --mount=type=secret,id=s cat /run/secrets/s >/leaked\nRUN touch /begun && sleep 1000\n\
         FROM busybox\nCOPY --from=inner /begun /\n",
    );
    let flag = format!("id=s,src={}", bed.path("secret").display());
    let arguments = ["build", "--progress=plain", "--secret", &flag, context.to_str().unwrap()];
    let mut killed = bed.start(&arguments);
    let layers = bed.root().join("layers");
    let begun = || {
        let work = std::fs::read_dir(bed.root().join("work")).into_iter().flatten().flatten();
        work.into_iter().any(|scratch| scratch.path().join("fs/begun").exists())
    };
    while !begun() {
        assert!(killed.try_wait().unwrap().is_none(), "the build ended before its last step began");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(files_with(&layers, &text).len(), 1);
    // Another command does not touch what belongs to a build that runs.
    bed.ok("images");
    assert_eq!(files_with(&layers, &text).len(), 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    bed.ok("images");
    assert_eq!(files_with(&bed.root(), &text), Vec::<PathBuf>::new());
    bed.ok("system check");
    wait_until_clean(&bed);
}

/// What a killed program started ends a moment later by itself.
fn wait_until_clean(bed: &crate::bed::Bed) {
    for _ in 0..100 {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bed.assert_clean())).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bed.assert_clean();
}

fn check_blobs(root: &Path) {
    let store = Store::open(root).unwrap();
    for digest in store.blobs().list().unwrap() {
        let bytes = std::fs::read(store.blobs().path(&digest)).unwrap();
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        assert_eq!(hasher.finish(), digest);
    }
}
