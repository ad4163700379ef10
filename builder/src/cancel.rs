//! Cancellation of builds and of their processes.

use rustix::fd::OwnedFd;
use rustix::process::{Signal, pidfd_send_signal};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cancels a build, on request of the user or after a step has failed. Clones cancel the same build.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    /// True when the user interrupted the build.
    interrupted: AtomicBool,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, OwnedFd>>,
}

/// A stream that fails when the build is canceled.
pub(crate) struct Stoppable<'a, R> {
    cancel: &'a Cancel,
    inner: R,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_stopped() {
            return Err(io::Error::other("canceled"));
        }
        self.inner.read(buffer)
    }
}

/// A running process that is killed when the build is canceled.
pub(crate) struct Running<'a> {
    cancel: &'a Cancel,
    id: u64,
}

impl Cancel {
    /// Kills all running processes and lets no new ones start.
    pub fn interrupt(&self) {
        self.shared.interrupted.store(true, Ordering::SeqCst);
        self.stop();
    }

    /// True when [`Cancel::interrupt`] was called.
    pub fn is_interrupted(&self) -> bool {
        self.shared.interrupted.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for process in self.running().values() {
            // The process may have exited already.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::SeqCst)
    }

    /// Wraps a stream so that it fails when the build is canceled.
    pub(crate) fn reader<R: Read>(&self, inner: R) -> Stoppable<'_, R> {
        Stoppable { cancel: self, inner }
    }

    /// Kills a process when the build is canceled, until the guard is dropped.
    pub(crate) fn watch(&self, process: OwnedFd) -> Running<'_> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let mut running = self.running();
        // The lock ensures that either this check or the interruption sees the process.
        if self.is_stopped() {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
        running.insert(id, process);
        Running { cancel: self, id }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, OwnedFd>> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.cancel.running().remove(&self.id);
    }
}
