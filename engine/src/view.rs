//! The file tree of a container, running or not, by a handle on its root.
//!
//! The tree of a running container is that of its init process, with everything that is mounted there. That of a stopped
//! one is its overlay with its volumes and host directories, mounted without a path for as long as the view exists, while
//! the container is locked: it cannot be started meanwhile. A container may be hostile and change its files at any time;
//! users of a view resolve paths by [`Tree`] only, which follows links inside the tree.

use crate::container::{Containers, PATIENCE, PAUSE, Records};
use crate::copy::{Place, make_dirs};
use crate::directory::Lock;
use crate::error::EngineError;
use crate::exec::Live;
use crate::mount::{MountPoint, Source};
use crate::record::Container;
use crate::spec::Dirs;
use crate::volume::VolumeFiles;
use kiln_image::store::{ScratchDir, Syncs};
use kiln_image::sys::{self, CallError, Named};
use kiln_image::tree::Tree;
use kiln_runtime::view;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::path::PathBuf;
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
        let root = view::detached(&mount).map_err(EngineError::View)?;
        let root = self.with_mounts(container, root)?;
        Ok(View { tree: Tree::of(vec![root]), _scratch: Some(scratch), _lock: Some(lock) })
    }
}

impl Records {
    /// Adds the volumes and host directories of a container to its tree, as they are mounted while it runs. Directories to mount
    /// them on are created. What is not there any more, or only while it runs, is left out.
    fn with_mounts(&self, container: &Container, root: OwnedFd) -> Result<OwnedFd, EngineError> {
        let failed = |call| move |errno| CallError { call, path: container.name.as_str().into(), errno };
        let mut points: Vec<&MountPoint> = container.settings.mounts.iter().collect();
        // Directories before those below them.
        points.sort_by_key(|point| point.target.matches('/').count());
        let mut mounts = Vec::new();
        for point in points {
            let Some((source, files)) = self.source_of(point) else { continue };
            if source.is_dir() {
                let tree = Tree::of(vec![root.try_clone().map_err(|_| failed("dup")(Errno::MFILE))?]);
                let target = Place { tree: &tree, path: point.target.as_bytes(), container: None };
                // Without its directory a mount is left out.
                let _ = make_dirs(&target, target.path);
            }
            let is_read_only = point.read_only || files.as_ref().is_some_and(|files| files.is_read_only);
            let mount = if is_read_only {
                view::open_confined(&source)
            } else {
                view::copy(&source, true).and_then(view::cut_off)
            };
            mounts.push((mount.map_err(failed("open_tree"))?, point.target.clone()));
        }
        if mounts.is_empty() {
            return Ok(root);
        }
        Ok(view::assembled(root.as_fd(), &mounts).map_err(failed("move_mount"))?)
    }

    /// Path of what is mounted, with what keeps it open. `None` for what exists only while the container runs.
    fn source_of(&self, point: &MountPoint) -> Option<(PathBuf, Option<VolumeFiles>)> {
        let (path, files) = match &point.source {
            Source::Host { path, .. } => (PathBuf::from(path), None),
            Source::Volume { name, .. } => {
                let files = self.open_volume(&self.find_volume(name).ok()?).ok()??;
                (files.path().to_owned(), Some(files))
            }
            Source::Tmpfs(_) | Source::Image { .. } => return None,
        };
        // Links in a volume may lead out of it.
        (point.subpath.is_empty() && path.exists()).then_some((path, files))
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
