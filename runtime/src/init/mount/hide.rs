//! Hidden and read-only paths of a container.

use super::{attach, kind_of, readonly};
use crate::detached::{READONLY, Space, copy as copy_tree, filesystem as make_filesystem};
use crate::init::path::{Target, open_as};
use crate::init::{Done, Failed, Init, Named};
use crate::op::{Bytes, FilesystemMount};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use std::ffi::CStr;

/// Usual kind of the files at the paths that engines hide (containers/common and moby, default specification), which
/// saves a system call. `None` for other paths.
fn usual_kind(path: &str) -> Option<Target> {
    Some(match path {
        "/proc/acpi" | "/proc/asound" | "/proc/scsi" | "/sys/firmware" | "/sys/devices/virtual/powercap" => {
            Target::Dir
        }
        "/proc/interrupts"
        | "/proc/kcore"
        | "/proc/keys"
        | "/proc/latency_stats"
        | "/proc/sched_debug"
        | "/proc/timer_list"
        | "/proc/timer_stats" => Target::File,
        _ => return None,
    })
}

/// Directories and files of /proc that engines make read-only (same sources).
const USUAL_READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Mounts of one kind that hide paths: an empty directory, or the null device.
#[derive(Default)]
pub(in crate::init) struct Covers {
    handles: Vec<OwnedFd>,
    /// True when the last mount is still detached.
    spare: bool,
}

impl Covers {
    /// Attaches one more mount by `attach`, a copy of the first, which `make` creates; a mount that `attach` refused is
    /// kept for the next call.
    fn put(
        &mut self,
        make: impl FnOnce() -> Done<OwnedFd>,
        attach: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Done<Result<(), Errno>> {
        /// File descriptors that are not closed one by one, but many at once when the program starts.
        const MOST: usize = 64;
        if !self.spare {
            let next = match self.handles.first() {
                Some(first) => {
                    copy_tree(first.as_fd(), &Bytes::from(""), false).call("open_tree", "cover")?
                }
                None => make()?,
            };
            if self.handles.len() == MOST {
                self.handles.pop();
            }
            self.handles.push(next);
        }
        let attached = self.handles.last().map_or(Err(Errno::BADF), |last| attach(last.as_fd()));
        self.spare = attached.is_err();
        Ok(attached)
    }

    /// All file descriptors; attached mounts stay.
    pub(in crate::init) fn into_handles(self) -> Vec<OwnedFd> {
        self.handles
    }
}

/// Attaches a detached mount to an entry of a directory. A link is not followed but covered.
pub(super) fn attach_in(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, c"", dir, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Detached copy of an entry of a directory and of the mounts below it. A link is not followed.
fn copy_entry(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(dir, name, flags)
}

/// Detached mount of an empty read-only directory.
fn empty_dir(space: Space) -> Done<OwnedFd> {
    let tmpfs = FilesystemMount {
        fstype: "tmpfs".to_owned(),
        source: String::new(),
        options: Vec::new(),
        attributes: READONLY,
    };
    make_filesystem(&tmpfs, space)
}

/// Detached mount of /dev/null, opened on the host and checked. The mount is read-only: writes to the device work, but
/// the container cannot change its owner and mode.
fn null_device(space: Space) -> Done<OwnedFd> {
    let null = copy_tree(CWD, &Bytes::from("/dev/null"), false).call("open_tree", "/dev/null")?;
    let stat = fs::fstat(&null).call("stat", "/dev/null")?;
    if !crate::init::identity::is_null(&stat) {
        return Err(Failed::saying("/dev/null", "`/dev/null` is not the null device"));
    }
    readonly(null, &Bytes::from("/dev/null"), space)
}

impl Init {
    /// Mounts a path on itself, read-only; a missing path is no error.
    pub(in crate::init) fn readonly(&mut self, path: &Bytes) -> Done {
        let space = self.space;
        let is_usual = USUAL_READONLY.iter().any(|usual| usual.as_bytes() == path.0);
        if is_usual
            && self.has_proc
            && let Ok((proc, name)) = self.parent(path)
        {
            let copy = match copy_entry(proc, &name) {
                Err(Errno::NOENT) => return Ok(()),
                other => other.call("open_tree", path.clone())?,
            };
            let copy = readonly(copy, path, space)?;
            attach_in(copy.as_fd(), proc, &name).call("move_mount", path.clone())?;
            self.leave(copy);
            return Ok(());
        }
        let Some(place) = self.find(path, true)? else { return Ok(()) };
        let copy = copy_tree(place.as_fd(), &Bytes::from(""), true).call("open_tree", path.clone())?;
        let copy = readonly(copy, path, space)?;
        attach(copy.as_fd(), place.as_fd()).call("move_mount", path.clone())?;
        self.leave(copy);
        self.leave(place);
        Ok(())
    }

    /// Hides a path: a directory behind an empty one, any other file behind the host's /dev/null.
    pub(in crate::init) fn mask(&mut self, path: &Bytes) -> Done {
        let usual = path.as_path().to_str().and_then(usual_kind);
        if let Some(kind) = usual.filter(|_| self.has_proc && path.as_path().starts_with("/proc"))
            && let Some(()) = self.mask_entry(path, kind)?
        {
            return Ok(());
        }
        let Some(place) = self.find(path, true)? else { return Ok(()) };
        let mut kind = usual.map_or_else(|| kind_of(place.as_fd(), path), Ok)?;
        loop {
            let attached = self.cover(kind, |cover| attach(cover, place.as_fd()));
            match attached? {
                // A directory cannot cover a file, nor a file a directory: the path is not of its usual kind.
                Err(Errno::INVAL | Errno::NOTDIR) if usual == Some(kind) => {
                    kind = kind_of(place.as_fd(), path)?;
                    if usual == Some(kind) {
                        return Err(Errno::INVAL).call("move_mount", path.clone());
                    }
                }
                other => {
                    other.call("move_mount", path.clone())?;
                    self.leave(place);
                    return Ok(());
                }
            }
        }
    }

    /// Hides an entry of a directory that is known to have no links; `None` when it is not of its usual kind.
    fn mask_entry(&mut self, path: &Bytes, kind: Target) -> Done<Option<()>> {
        let Ok((_, name)) = self.parent(path) else { return Ok(None) };
        let Some(dir) = self.dir.take() else { return Ok(None) };
        let attached = self.cover(kind, |cover| attach_in(cover, dir.handle.as_fd(), &name));
        self.dir = Some(dir);
        Ok(match attached? {
            Ok(()) | Err(Errno::NOENT) => Some(()),
            Err(_) => None,
        })
    }

    /// Attaches a mount that hides a path.
    fn cover(
        &mut self,
        kind: Target,
        attach: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Done<Result<(), Errno>> {
        let mut covers = std::mem::take(self.covers(kind));
        let attached = match kind {
            Target::Dir => covers.put(|| empty_dir(self.space), attach),
            Target::File => covers.put(|| self.null_cover(), attach),
        };
        *self.covers(kind) = covers;
        attached
    }

    /// Detached mount of the container's null device, checked, or of the host's where the container has none.
    fn null_cover(&self) -> Done<OwnedFd> {
        let own = open_as(self.root()?, c"dev/null", OFlags::PATH | OFlags::NOFOLLOW, false).ok();
        let own = own.filter(|own| fs::fstat(own).is_ok_and(|stat| crate::init::identity::is_null(&stat)));
        let copy = own.and_then(|own| copy_tree(own.as_fd(), &Bytes::from(""), false).ok());
        let Some(copy) = copy else { return null_device(self.space) };
        readonly(copy, &Bytes::from("/dev/null"), self.space)
    }

    fn covers(&mut self, kind: Target) -> &mut Covers {
        match kind {
            Target::Dir => &mut self.empty,
            Target::File => &mut self.null,
        }
    }
}
