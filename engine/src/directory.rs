//! Directories of containers: created, locked and removed while other processes look.
//!
//! A container's directory is visible under its id only while its record is complete: it is created as `.new-ID` and
//! renamed to the id, and renamed to `.dead-ID` before anything in it is removed. Both kinds are locked by their
//! process; one whose lock is free belongs to a process that died, and is removed by the next list.
//!
//! Lock order: a container's own lock, then the lock on all names, which is held for a few system calls only.

use crate::container::Records;
use crate::error::EngineError;
use kiln_image::sys::{self, CallError, Named};
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Prefix of directories that are being created.
const NEW: &str = ".new-";
/// Prefix of directories that are being removed.
const DEAD: &str = ".dead-";
/// Name of the directory of names.
pub(crate) const NAMES: &str = "names";
/// Length of an id, in hexadecimal digits.
const ID_LENGTH: usize = 64;

/// The outcome of an attempt to lock a container.
pub(crate) enum Lock {
    /// This process holds the lock.
    Held(OwnedFd),
    /// Another process runs the container, or removes it.
    Busy,
    /// The container has been removed.
    Gone,
}

/// Directory of a container that is being created; removed on drop unless it was finished.
pub(crate) struct Making {
    records: Records,
    id: String,
    /// Lock on the directory itself while it has its temporary name.
    _directory: OwnedFd,
    /// Lock of the container, held for its whole life.
    lock: Option<OwnedFd>,
}

impl Making {
    /// Creates and locks the directory of a container with a new id.
    pub(crate) fn begin(records: &Records, id: &str) -> Result<Making, CallError> {
        let path = records.path(&format!("{NEW}{id}"));
        let directory = loop {
            match fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
                // Another process takes it for an abandoned one and is removing it at this moment.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(CallError { call: "mkdir", path, errno }),
            }
            if let Some(directory) = lock_directory(&path)? {
                break directory;
            }
        };
        let mut making =
            Making { records: records.clone(), id: id.to_owned(), _directory: directory, lock: None };
        making.lock = match lock_file(&path)? {
            Lock::Held(lock) => Some(lock),
            Lock::Busy | Lock::Gone => {
                return Err(CallError { call: "flock", path, errno: Errno::WOULDBLOCK });
            }
        };
        Ok(making)
    }

    /// Temporary path of the directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.records.path(&format!("{NEW}{}", self.id))
    }

    /// Renames the directory to its id; returns the container's lock.
    pub(crate) fn finish(&mut self) -> Result<OwnedFd, CallError> {
        let path = self.records.path(&self.id);
        fs::rename(self.path(), &path).call("rename", &path)?;
        Ok(self.lock.take().expect("it is given up here alone, once"))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // A directory that cannot be removed now is left to the next list.
            let _ = self.records.discard(&self.path(), &self.id);
        }
    }
}

impl Records {
    /// Locks a container, without waiting.
    pub(crate) fn lock(&self, id: &str) -> Result<Lock, CallError> {
        lock_file(&self.path(id))
    }

    /// Locks all names. Other processes hold this lock only briefly.
    pub(crate) fn lock_names(&self) -> Result<OwnedFd, CallError> {
        let path = self.path(NAMES);
        locked(sys::open_dir(&path)?, &path, FlockOperation::LockExclusive)
    }

    /// Removes all of a container, whose lock the caller holds. A container that does not exist is a success.
    pub(crate) fn erase(&self, id: &str) -> Result<(), EngineError> {
        let path = self.path(id);
        // Another process holds it briefly: it removes the container too, or took the directory for an abandoned one.
        let _directory = loop {
            if let Some(directory) = lock_directory(&path)? {
                break directory;
            }
            if !path.exists() {
                return Ok(());
            }
            std::thread::sleep(crate::container::PAUSE);
        };
        let dead = self.path(&format!("{DEAD}{id}"));
        let container = self.read(id).ok().flatten();
        match fs::rename(&path, &dead) {
            Ok(()) => {
                self.discard(&dead, id)?;
                container.iter().for_each(|container| self.event(container, "destroy", &[]));
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(CallError { call: "rename", path, errno }.into()),
        }
    }

    /// Removes a directory that a dead process left behind, by its name.
    pub(crate) fn remove_dead(&self, name: &str) -> Result<(), EngineError> {
        let Some(id) = name.strip_prefix(NEW).or(name.strip_prefix(DEAD)) else { return Ok(()) };
        let path = self.path(name);
        let Some(_directory) = lock_directory(&path)? else { return Ok(()) };
        self.discard(&path, id)
    }

    /// Removes a directory that no container uses any more, its names and its pin.
    fn discard(&self, path: &Path, id: &str) -> Result<(), EngineError> {
        {
            let _names = self.lock_names()?;
            for name in self.names_of(id) {
                sys::remove_path(&self.path(NAMES).join(name))?;
            }
        }
        self.release(path, id)?;
        kiln_image::store::remove_pin(&self.root, id)?;
        Ok(sys::remove_path(path)?)
    }

    /// Names that point to a container: usually one.
    pub(crate) fn names_of(&self, id: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.path(NAMES)).into_iter().flatten().flatten();
        let own = names.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(id)));
        own.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// True when the name has the form of a container's id.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == ID_LENGTH && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Locks the directory at `path`. `None` when another process holds the lock, or when the path is another directory or
/// none.
fn lock_directory(path: &Path) -> Result<Option<OwnedFd>, CallError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match fs::open(path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(CallError { call: "open", path: path.to_owned(), errno }),
    };
    let is_locked = fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
    Ok((is_locked && is_at(&directory, path)).then_some(directory))
}

/// Locks the file at `path`, which is created if it is missing; waits for other processes.
pub(crate) fn lock_at(path: &Path, operation: FlockOperation) -> Result<OwnedFd, CallError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = fs::open(path, flags, Mode::from_raw_mode(0o600)).call("open", path)?;
    locked(file, path, operation)
}

/// Locks an open file or directory; waits for other processes.
fn locked(file: OwnedFd, path: &Path, operation: FlockOperation) -> Result<OwnedFd, CallError> {
    loop {
        match fs::flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CallError { call: "flock", path: path.to_owned(), errno }),
        }
    }
}

/// Opens and locks the lock file in the directory of a container.
fn lock_file(directory: &Path) -> Result<Lock, CallError> {
    let path = directory.join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match fs::open(&path, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Lock::Gone),
        Err(errno) => return Err(CallError { call: "open", path, errno }),
    };
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // Between opening and locking, its owner may have removed the container.
        Ok(()) if !is_at(&file, &path) => Ok(Lock::Gone),
        Ok(()) => Ok(Lock::Held(file)),
        Err(Errno::WOULDBLOCK) => Ok(Lock::Busy),
        Err(errno) => Err(CallError { call: "flock", path, errno }),
    }
}

/// True when the path still names the open file.
pub(crate) fn is_at(file: &OwnedFd, path: &Path) -> bool {
    let there = fs::statat(fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    let (Ok(open), Ok(there)) = (fs::fstat(file), there) else { return false };
    (open.st_dev, open.st_ino) == (there.st_dev, there.st_ino)
}
