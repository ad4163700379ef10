//! Scratch: files and directories of a running process that are removed with it.
//!
//! All objects of the store are created here and renamed when they are complete. Each piece of scratch is locked by its
//! process; one without a lock belongs to an ended process, and is removed by the next process that opens the store.

use super::open::{make_dir, restrict_to_owner};
use crate::sys::{self, Call, CallError, Named};
use rustix::fd::OwnedFd;
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Directory for the scratch of all processes.
#[derive(Clone, Debug)]
pub(crate) struct ScratchArea {
    path: PathBuf,
}

/// A file or directory of scratch; removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    lock: Option<OwnedFd>,
}

/// A directory for temporary files of this process; removed when it is dropped, or after the process ended.
pub struct ScratchDir {
    pub(super) scratch: Scratch,
}

impl ScratchDir {
    /// Creates a directory in `area`, which is outside of stores and not accessible to other users.
    pub fn create_in(area: &Path) -> Result<ScratchDir, CallError> {
        make_dir(area)?;
        restrict_to_owner(area)?;
        Ok(ScratchDir { scratch: ScratchArea::new(area.to_owned()).dir()? })
    }

    /// Removes directories of ended processes in `area`, if that exists.
    pub fn remove_orphans(area: &Path) -> Result<(), CallError> {
        match ScratchArea::new(area.to_owned()).remove_orphans(&|_| {}) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }
}

impl ScratchArea {
    pub(crate) fn new(path: PathBuf) -> ScratchArea {
        ScratchArea { path }
    }

    /// Creates an empty directory.
    pub(crate) fn dir(&self) -> Call<Scratch> {
        self.make(|path| {
            fs::mkdir(path, Mode::from_raw_mode(0o700))?;
            let opened = fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            // Another process removed it as an orphan: try the next name.
            opened.map_err(|errno| if errno == Errno::NOENT { Errno::EXIST } else { errno })
        })
    }

    /// Creates an empty file; returns a handle for writing, too.
    pub(crate) fn file(&self) -> Call<(Scratch, std::fs::File)> {
        let scratch = self.make(|path| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            fs::open(path, flags, Mode::from_raw_mode(0o644))
        })?;
        let lock = scratch.lock.as_ref().expect("scratch holds its lock until it is moved");
        let file = std::fs::File::from(lock.try_clone().call("dup", &scratch.path)?);
        Ok((scratch, file))
    }

    fn make(&self, create: impl Fn(&Path) -> Result<OwnedFd, Errno>) -> Call<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(format!("{}-{number}", std::process::id()));
            let lock = match create(&path) {
                Err(Errno::EXIST) => continue,
                created => created.call("create", &path)?,
            };
            let locked = fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            // Another process may have removed it as an orphan before it was locked.
            if locked && fs::stat(&path).is_ok_and(|stat| is_same(&stat, &lock)) {
                return Ok(Scratch { path, lock: Some(lock) });
            }
        }
    }

    /// Removes scratch of ended processes; `before` is called first with the path of each piece.
    pub(crate) fn remove_orphans(&self, before: &dyn Fn(&Path)) -> Call<()> {
        let dir = sys::open_dir(&self.path)?;
        let names = sys::sorted_names(rustix::fd::AsFd::as_fd(&dir)).call("getdents", &self.path)?;
        for name in names {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let Ok(entry) = fs::openat(&dir, &name, flags, Mode::empty()) else { continue };
            if fs::flock(&entry, FlockOperation::NonBlockingLockExclusive).is_ok() {
                before(&self.path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
                // Another process may be removing it, too.
                let _ = sys::remove_all(rustix::fd::AsFd::as_fd(&dir), &name);
            }
        }
        Ok(())
    }
}

fn is_same(stat: &fs::Stat, fd: &OwnedFd) -> bool {
    fs::fstat(fd).is_ok_and(|open| (open.st_dev, open.st_ino) == (stat.st_dev, stat.st_ino))
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the file or directory to its final path, and releases the lock.
    ///
    /// The target must not exist, unless both are files.
    pub(crate) fn move_to(mut self, target: &Path) -> Call<()> {
        fs::rename(&self.path, target).call("rename", target)?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Scratch that cannot be removed now is an orphan for the next process.
            let _ = sys::remove_path(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_removed_unless_moved() {
        let root = tempfile::tempdir().unwrap();
        let area = ScratchArea::new(root.path().to_owned());
        let dir = area.dir().unwrap();
        std::fs::write(dir.path().join("x"), "").unwrap();
        let gone = dir.path().to_owned();
        area.remove_orphans(&|_| {}).unwrap();
        assert!(gone.exists(), "locked scratch is not an orphan");
        drop(dir);
        assert!(!gone.exists());
        let (file, _handle) = area.file().unwrap();
        let kept = root.path().join("kept");
        file.move_to(&kept).unwrap();
        assert!(kept.exists());
    }

    #[test]
    fn scratch_is_created_while_orphans_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let area = ScratchArea::new(root.path().to_owned());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    area.remove_orphans(&|_| {}).unwrap();
                }
            });
            for _ in 0..2000 {
                assert!(area.dir().unwrap().path().exists());
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn orphans_are_removed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("1-1/deep/er")).unwrap();
        std::fs::write(root.path().join("1-2"), "x").unwrap();
        ScratchArea::new(root.path().to_owned()).remove_orphans(&|_| {}).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
