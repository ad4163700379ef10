//! Locks between processes: files in `locks/` with flock(2).
//!
//! A lock's file is removed by the process that held the lock, so that the directory does not grow by a file for each
//! step and layer. A process that waited for a removed file opens the new one and waits again.

use super::{Store, StoreError};
use crate::sys::{Call, CallError, Named};
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::path::PathBuf;
use tracing::debug;

/// An acquired lock; released when dropped or when the process ends.
pub struct StoreLock {
    _file: OwnedFd,
    /// Path of the file if it is removed with the lock.
    path: Option<PathBuf>,
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A file that cannot be removed costs an inode only.
            let _ = fs::unlink(path);
        }
    }
}

/// Behaviour when another process has the lock.
enum Patience {
    Wait,
    Try,
}

impl Store {
    /// Waits for the lock `name`; `waiting` is called before a wait.
    ///
    /// # Errors
    /// Fails when the file cannot be created.
    pub fn lock(&self, name: &str, waiting: impl FnOnce()) -> Result<StoreLock, StoreError> {
        let path = self.lock_path(name);
        if let Some(file) = acquire(&path, FlockOperation::NonBlockingLockExclusive, &Patience::Try)? {
            return Ok(StoreLock { _file: file, path: Some(path) });
        }
        debug!(name, "waits for another process");
        waiting();
        loop {
            if let Some(file) = acquire(&path, FlockOperation::LockExclusive, &Patience::Wait)? {
                return Ok(StoreLock { _file: file, path: Some(path) });
            }
        }
    }

    /// Acquires a lock without waiting; `None` while another process has it.
    pub(super) fn try_lock(&self, name: &str) -> Result<Option<StoreLock>, StoreError> {
        let path = self.lock_path(name);
        let file = acquire(&path, FlockOperation::NonBlockingLockExclusive, &Patience::Try)?;
        Ok(file.map(|file| StoreLock { _file: file, path: Some(path) }))
    }

    /// Keeps layers without references from being removed while the lock is held.
    ///
    /// Builds and starts of containers hold it until the layers are referenced by an image, a cache record or a pin.
    pub fn use_layers(&self) -> Result<StoreLock, StoreError> {
        let path = self.lock_path("layers");
        let file = open(&path)?;
        wait(&file, FlockOperation::LockShared).call("flock", &path)?;
        Ok(StoreLock { _file: file, path: None })
    }

    /// Lock for removing layers; `None` while a process uses layers that may have no reference.
    pub(super) fn try_remove_layers(&self) -> Result<Option<StoreLock>, StoreError> {
        let file = open(&self.lock_path("layers"))?;
        let free = fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        Ok(free.then_some(StoreLock { _file: file, path: None }))
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }
}

/// Waits for the lock of a file, before the store is open.
pub(super) fn lock_at(path: &PathBuf) -> Call<StoreLock> {
    loop {
        if let Some(file) = acquire(path, FlockOperation::LockExclusive, &Patience::Wait)? {
            return Ok(StoreLock { _file: file, path: Some(path.clone()) });
        }
    }
}

fn open(path: &PathBuf) -> Call<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::from_raw_mode(0o600)).call("open", path)
}

fn wait(file: &OwnedFd, operation: FlockOperation) -> Result<(), Errno> {
    loop {
        match fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Locked file; `None` when another process has the lock, or removed the file during the wait.
fn acquire(path: &PathBuf, operation: FlockOperation, patience: &Patience) -> Call<Option<OwnedFd>> {
    loop {
        let file = open(path)?;
        match wait(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(CallError { call: "flock", path: path.clone(), errno }),
        }
        let named = fs::statat(fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW);
        let held = fs::fstat(&file).call("stat", path)?;
        if named.is_ok_and(|named| (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)) {
            return Ok(Some(file));
        }
        if matches!(patience, Patience::Wait) {
            return Ok(None);
        }
    }
}
