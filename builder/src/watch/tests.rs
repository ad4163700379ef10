use super::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A directory with `src/a`, and a watch on it.
fn watched(sources: &[&str]) -> (tempfile::TempDir, PathBuf, Watcher) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    fs::create_dir_all(path.join("src/deep")).unwrap();
    fs::write(path.join("src/a"), "1").unwrap();
    let all = Reads::all(&path);
    let dirs = sources.iter().map(|source| all.only(source)).collect();
    let inputs = Inputs { dirs, files: vec![path.join("Dockerfile")] };
    let later = SystemTime::now() + Duration::from_secs(60);
    let watcher = Watcher::open(&inputs, &[], later).unwrap();
    assert!(!watcher.has_changes());
    (dir, path, watcher)
}

/// Waits until the changes contain all of these paths; returns them relative to the directory.
#[track_caller]
fn changes(watcher: &mut Watcher, dir: &Path, wanted: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    while !wanted.iter().all(|path| found.contains(*path)) {
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&*watcher, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "no event: {found:?} of {wanted:?}");
        watcher.read().unwrap();
        let taken = watcher.take().into_iter();
        found.extend(taken.map(|change| change.path.strip_prefix(dir).unwrap().display().to_string()));
    }
    found
}

#[test]
fn edits_are_noticed_however_editors_save() {
    let (_dir, path, mut watcher) = watched(&["src"]);
    fs::write(path.join("src/a"), "2").unwrap();
    changes(&mut watcher, &path, &["src/a"]);
    // Beside, and renamed.
    fs::write(path.join("src/.a.new"), "3").unwrap();
    fs::rename(path.join("src/.a.new"), path.join("src/a")).unwrap();
    changes(&mut watcher, &path, &["src/a"]);
    fs::remove_file(path.join("src/a")).unwrap();
    changes(&mut watcher, &path, &["src/a"]);
    fs::write(path.join("Dockerfile"), "FROM scratch").unwrap();
    assert_eq!(changes(&mut watcher, &path, &["Dockerfile"]).len(), 1);
}

#[test]
fn other_files_are_not_noticed() {
    let (_dir, path, mut watcher) = watched(&["src"]);
    fs::create_dir_all(path.join("other/deep")).unwrap();
    fs::write(path.join("other/deep/f"), "1").unwrap();
    fs::write(path.join("README"), "1").unwrap();
    fs::write(path.join("src/a"), "2").unwrap();
    assert_eq!(changes(&mut watcher, &path, &["src/a"]), BTreeSet::from(["src/a".to_owned()]));
}

#[test]
fn new_moved_and_removed_directories_are_followed() {
    let (_dir, path, mut watcher) = watched(&[""]);
    // Files of a new directory count, whether they came before its watch or after it.
    fs::create_dir_all(path.join("new/below")).unwrap();
    fs::write(path.join("new/below/f"), "1").unwrap();
    changes(&mut watcher, &path, &["new", "new/below/f"]);
    fs::rename(path.join("new"), path.join("src/moved")).unwrap();
    changes(&mut watcher, &path, &["new", "src/moved", "src/moved/below/f"]);
    fs::write(path.join("src/moved/below/f"), "2").unwrap();
    let found = changes(&mut watcher, &path, &["src/moved/below/f"]);
    assert!(found.iter().all(|path| !path.starts_with("new")), "{found:?}");
    fs::remove_dir_all(path.join("src/moved")).unwrap();
    changes(&mut watcher, &path, &["src/moved"]);
    fs::create_dir_all(path.join("src/moved")).unwrap();
    changes(&mut watcher, &path, &["src/moved"]);
    fs::write(path.join("src/moved/g"), "2").unwrap();
    changes(&mut watcher, &path, &["src/moved/g"]);
}

#[test]
fn earlier_edits_count_from_the_given_time_on() {
    let (_dir, path, watcher) = watched(&["src"]);
    drop(watcher);
    let inputs = Inputs { dirs: vec![Reads::all(&path)], files: vec![path.join("Dockerfile")] };
    fs::write(path.join("Dockerfile"), "FROM scratch").unwrap();
    let mut watcher = Watcher::open(&inputs, &[], SystemTime::now() - Duration::from_secs(60)).unwrap();
    let found: Vec<PathBuf> = watcher.take().into_iter().map(|change| change.path).collect();
    assert!(found.contains(&path.join("src/a")) && found.contains(&path.join("Dockerfile")), "{found:?}");
}

#[test]
fn lost_events_make_everything_changed() {
    let (_dir, path, mut watcher) = watched(&["src"]);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 100_000 {
        eprintln!("SKIPPED: the host keeps {limit} events");
        return;
    }
    fs::write(path.join("src/b"), "1").unwrap();
    for number in 0..limit {
        // The kernel joins equal events in a row.
        let name = if number % 2 == 0 { "src/a" } else { "src/b" };
        let file = fs::File::open(path.join(name)).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::create_dir_all(path.join("src/late")).unwrap();
    watcher.read().unwrap();
    let found: Vec<PathBuf> = watcher.take().into_iter().map(|change| change.path).collect();
    assert!(found.contains(&path.join("src/a")), "{}", found.len());
    fs::write(path.join("src/late/f"), "1").unwrap();
    changes(&mut watcher, &path, &["src/late/f"]);
}

#[test]
fn a_missing_directory_is_an_error() {
    let inputs = Inputs { dirs: vec![Reads::all(Path::new("/nonexistent/dir"))], files: Vec::new() };
    let error = Watcher::open(&inputs, &[], SystemTime::now()).unwrap_err();
    assert_eq!(error.to_string(), "cannot watch `/nonexistent/dir`");
}
