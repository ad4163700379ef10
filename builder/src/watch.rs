//! Watches the files that builds depend on, by inotify.
//!
//! Only directories that a build reads from are watched, whatever else lies beside them. A directory that appears is read
//! when its watch exists, and what is found in it counts as changed, so that no file falls between the two. When the kernel
//! has dropped events, everything is watched anew and counts as changed.
//!
//! Weighed: the crate `notify`, which watches whole directories, ignored ones with many thousands of files included, and
//! leaves a gap between a new directory and its watch.

use crate::inputs::{Inputs, Reads};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr, OsString};
use std::fs::Metadata;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Changes that count. A file that stays open for writing, such as a log, counts when it is closed.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::EXCL_UNLINK);
/// Failure to watch files.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel allows no more watches.
    #[error("cannot watch `{dir}`: the limit of watched directories is reached", dir = dir.display())]
    Limit {
        /// Directory that is not watched.
        dir: PathBuf,
    },
    /// A system call failed.
    #[error("cannot watch `{dir}`", dir = dir.display())]
    Call {
        /// Directory that is not watched.
        dir: PathBuf,
        /// Cause of the failure.
        #[source]
        source: Errno,
    },
}

/// A changed file or directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Path of the file, which may not exist any more.
    pub path: PathBuf,
    /// Index of the [`Reads`] that reach it; `None` for the Dockerfile and the ignore files.
    pub reads: Option<usize>,
}

/// Watch on files; readable when there are events.
#[derive(Debug)]
pub struct Watcher {
    queue: OwnedFd,
    roots: Vec<Root>,
    /// Watched directories by their watch descriptors. One directory can belong to several roots.
    spots: BTreeMap<i32, Vec<Spot>>,
    changed: BTreeSet<Change>,
}

#[derive(Clone, Debug)]
struct Root {
    dir: PathBuf,
    filter: Filter,
}

#[derive(Clone, Debug)]
enum Filter {
    Reads(Reads),
    /// Names in the directory itself.
    Names(BTreeSet<OsString>),
}

/// A watched directory: its root, and its path relative to that one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    root: usize,
    path: PathBuf,
}

/// Files that count as changed when a directory is read.
#[derive(Clone, Copy)]
enum Since {
    Time(Duration),
    Always,
}

impl Watcher {
    /// Watches what a build depends on, and the files of `more`, which have the indices after those of the build's
    /// directories. Files that have changed since `since` count as changed.
    ///
    /// # Errors
    /// [`WatchError::Limit`], and [`WatchError::Call`] when a directory does not exist.
    pub fn open(inputs: &Inputs, more: &[Reads], since: SystemTime) -> Result<Watcher, WatchError> {
        let reads = inputs.dirs.iter().chain(more).cloned();
        let mut roots: Vec<Root> =
            reads.map(|reads| Root { dir: reads.dir().to_owned(), filter: Filter::Reads(reads) }).collect();
        let mut names: BTreeMap<&Path, BTreeSet<OsString>> = BTreeMap::new();
        for file in &inputs.files {
            if let (Some(dir), Some(name)) = (file.parent(), file.file_name()) {
                names.entry(dir).or_default().insert(name.to_owned());
            }
        }
        let files = names.into_iter();
        roots.extend(files.map(|(dir, names)| Root { dir: dir.to_owned(), filter: Filter::Names(names) }));
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let queue = new_queue()?;
        let mut watcher = Watcher { queue, roots, spots: BTreeMap::new(), changed: BTreeSet::new() };
        watcher.enter_all(Since::Time(since.saturating_sub(coarseness())))?;
        Ok(watcher)
    }

    /// Reads the events that there are.
    ///
    /// # Errors
    /// [`WatchError::Limit`] when there are too many new directories.
    pub fn read(&mut self) -> Result<(), WatchError> {
        let mut buffer = [MaybeUninit::uninit(); 64 << 10];
        let mut events: Vec<(i32, ReadFlags, OsString)> = Vec::new();
        let mut reader = inotify::Reader::new(&self.queue, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(CStr::to_bytes).unwrap_or_default();
                    events.push((event.wd(), event.events(), OsStr::from_bytes(name).to_owned()));
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if events.iter().any(|(_, flags, _)| flags.contains(ReadFlags::QUEUE_OVERFLOW)) {
            self.queue = new_queue()?;
            self.spots.clear();
            return self.enter_all(Since::Always);
        }
        for (watch, flags, name) in events {
            if flags.contains(ReadFlags::IGNORED) {
                self.spots.remove(&watch);
                continue;
            }
            for spot in self.spots.get(&watch).cloned().unwrap_or_default() {
                self.note(&spot, flags, &name)?;
            }
        }
        Ok(())
    }

    /// True when there are changes.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Changes since the last call, each once.
    pub fn take(&mut self) -> BTreeSet<Change> {
        std::mem::take(&mut self.changed)
    }

    /// Adds changes that were taken.
    pub fn put_back(&mut self, changes: BTreeSet<Change>) {
        self.changed.extend(changes);
    }

    fn note(&mut self, spot: &Spot, flags: ReadFlags, name: &OsStr) -> Result<(), WatchError> {
        if name.is_empty() {
            return Ok(());
        }
        let path = spot.path.join(name);
        let is_dir = flags.contains(ReadFlags::ISDIR);
        if !self.roots[spot.root].filter.reaches(&path, is_dir) {
            return Ok(());
        }
        self.change(spot.root, &path);
        if !is_dir || matches!(self.roots[spot.root].filter, Filter::Names(_)) {
            return Ok(());
        }
        if flags.intersects(ReadFlags::MOVED_FROM | ReadFlags::DELETE) {
            self.leave(spot.root, &path);
        }
        if flags.intersects(ReadFlags::MOVED_TO | ReadFlags::CREATE) {
            self.enter(spot.root, path, Since::Always)?;
        }
        Ok(())
    }

    fn change(&mut self, root: usize, path: &Path) {
        let found = &self.roots[root];
        let reads = matches!(found.filter, Filter::Reads(_)).then_some(root);
        self.changed.insert(Change { path: found.path_of(path), reads });
    }

    fn enter_all(&mut self, since: Since) -> Result<(), WatchError> {
        (0..self.roots.len()).try_for_each(|root| self.enter(root, PathBuf::new(), since))
    }

    /// Watches a directory and those below it that can have changes.
    fn enter(&mut self, root: usize, path: PathBuf, since: Since) -> Result<(), WatchError> {
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            let dir = self.roots[root].path_of(&path);
            let is_root = path.as_os_str().is_empty();
            let watch = match inotify::add_watch(&self.queue, &dir, CHANGES) {
                Ok(watch) => watch,
                // It has been removed or replaced meanwhile, which is another event.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) if !is_root => continue,
                Err(Errno::NOSPC) => return Err(WatchError::Limit { dir }),
                Err(source) => return Err(WatchError::Call { dir, source }),
            };
            let spot = Spot { root, path: path.clone() };
            let spots = self.spots.entry(watch).or_default();
            if !spots.contains(&spot) {
                spots.push(spot);
            }
            if since.includes(dir.metadata().ok().as_ref())
                && matches!(self.roots[root].filter, Filter::Reads(_))
            {
                self.change(root, &path);
            }
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = path.join(entry.file_name());
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if !self.roots[root].filter.reaches(&path, is_dir) {
                    continue;
                }
                match is_dir {
                    true => waiting.push(path),
                    false if since.includes(entry.metadata().ok().as_ref()) => self.change(root, &path),
                    false => {}
                }
            }
        }
        Ok(())
    }

    /// Forgets a directory that has gone, with those below it. One that was moved keeps its watch, with a path that is
    /// wrong from now on.
    fn leave(&mut self, root: usize, path: &Path) {
        for spots in self.spots.values_mut() {
            spots.retain(|spot| spot.root != root || !spot.path.starts_with(path));
        }
        let queue = &self.queue;
        self.spots.retain(|watch, spots| {
            if spots.is_empty() {
                // A removed directory has no watch any more.
                let _ = inotify::remove_watch(queue, *watch);
            }
            !spots.is_empty()
        });
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Root {
    fn path_of(&self, path: &Path) -> PathBuf {
        // Joining an empty path would add a slash.
        if path.as_os_str().is_empty() { self.dir.clone() } else { self.dir.join(path) }
    }
}

impl Filter {
    fn reaches(&self, path: &Path, is_dir: bool) -> bool {
        match self {
            Filter::Reads(reads) => reads.reaches(&path.to_string_lossy(), is_dir),
            Filter::Names(names) => names.contains(path.as_os_str()),
        }
    }
}

impl Since {
    fn includes(self, metadata: Option<&Metadata>) -> bool {
        let changed = |metadata: &Metadata| {
            Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec().max(0) as u32)
        };
        match self {
            Since::Always => true,
            Since::Time(time) => metadata.is_some_and(|metadata| changed(metadata) >= time),
        }
    }
}

/// Longest time by which the clock of files is behind: one tick of the kernel.
fn coarseness() -> Duration {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::RealtimeCoarse);
    Duration::new(tick.tv_sec.max(0) as u64, tick.tv_nsec as u32)
}

fn new_queue() -> Result<OwnedFd, WatchError> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
    queue.map_err(|source| WatchError::Call { dir: PathBuf::from("."), source })
}

#[cfg(test)]
mod tests;
