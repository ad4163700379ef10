//! The file tree of a container, running or not, by a handle on its root.
//!
//! The tree of a running container is that of its init process, with everything that is mounted there. That of a stopped
//! one is its overlay, mounted without a path for as long as the view exists, while the container is locked: it cannot be
//! started meanwhile. A container may be hostile and change its files at any time; users of a view resolve paths by
//! [`Tree`] only, which follows links inside the tree.

use crate::container::{Containers, PATIENCE, PAUSE};
use crate::directory::Lock;
use crate::error::EngineError;
use crate::exec::Live;
use crate::record::Container;
use crate::spec::Dirs;
use kiln_image::store::{ScratchDir, Syncs};
use kiln_image::sys::{self, CallError, Named};
use kiln_image::tree::Tree;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::time::Instant;

/// File tree of a container, readable and writable.
pub struct View {
    tree: Tree,
    /// Work directory of the overlay of a stopped container.
    _scratch: Option<ScratchDir>,
    /// Lock of a stopped container.
    _lock: Option<OwnedFd>,
}

impl View {
    /// The tree, whose links are resolved inside it.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Containers<'_> {
    /// Opens the file tree of a container.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`] when it has been removed, [`EngineError::Busy`] when another process holds its
    /// lock without running it, and failures to mount a stopped one.
    pub fn view(&self, container: &Container) -> Result<View, EngineError> {
        let missing = || EngineError::NoSuchContainer(container.name.clone());
        let began = Instant::now();
        loop {
            let record = self.read(&container.id)?.ok_or_else(missing)?;
            match self.live(&record).and_then(|live| live.root()) {
                Ok(root) => return Ok(View { tree: Tree::of(vec![root]), _scratch: None, _lock: None }),
                Err(EngineError::NotRunning(_)) => {}
                Err(error) => return Err(error),
            }
            match self.lock(&container.id)? {
                Lock::Held(lock) => return self.mounted(&record, lock),
                Lock::Gone => return Err(missing()),
                Lock::Busy if began.elapsed() > PATIENCE => return Err(EngineError::Busy(record.id)),
                Lock::Busy => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Mounts the overlay of a container that does not run.
    fn mounted(&self, container: &Container, lock: OwnedFd) -> Result<View, EngineError> {
        let dirs = Dirs::make(&self.path(&container.id))?;
        let stack = self.store.pinned_stack(&container.id)?;
        let scratch = self.store.scratch_dir()?;
        let work = scratch.path().join("work");
        std::fs::create_dir(&work).call("mkdir", &work)?;
        let mount = self.store.writable_mount(&stack, (&dirs.upper, &work), &[dirs.stubs], Syncs::Never);
        let root = kiln_runtime::view::detached(&mount).map_err(EngineError::View)?;
        Ok(View { tree: Tree::of(vec![root]), _scratch: Some(scratch), _lock: Some(lock) })
    }
}

impl Live {
    /// Root directory of the init process.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`] when it has ended.
    fn root(&self) -> Result<OwnedFd, EngineError> {
        // Until it has executed the program, its root may be the host's.
        self.wait_for_program()?;
        let path = format!("/proc/{}/root", self.pid);
        let root = sys::open_dir(path.as_ref());
        // The pid may be another process's by now.
        if self.has_ended() {
            return Err(EngineError::NotRunning(self.container.id.clone()));
        }
        let root = root?;
        let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let own = rustix::fs::stat("/").call("stat", "/")?;
        match identity(rustix::fs::fstat(&root).call("stat", &path)?) == identity(own) {
            false => Ok(root),
            true => {
                let errno = rustix::io::Errno::XDEV;
                Err(CallError { call: "open", path: path.into(), errno }.into())
            }
        }
    }

    /// True when the init process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(self.pidfd(), PollFlags::IN)];
        !matches!(poll(&mut polled, Some(&at_once)), Ok(0))
    }
}
