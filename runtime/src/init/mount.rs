//! Mounting with the kernel's newer interface (Linux 5.2): file systems and binds are created detached, get their
//! attributes, and are then attached to a target that is held open by a file descriptor.

mod cgroup;
mod device;
mod hide;
mod proc;
mod root;

pub(super) use hide::Covers;

use proc::check_proc;

use crate::detached::{
    self, READONLY, Space, copy as copy_tree, copy_nofollow, filesystem as make_filesystem, joined_options,
    old_flags,
};
use crate::host::{Feature, Host};
use crate::init::path::Target;
use crate::init::{Done, Init, Named};
use crate::op::{Bytes, FilesystemMount, MountOp, MountSource};
use crate::sys::AttributeChange;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, CWD, FileType};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;
use std::path::Path;

/// Attaches a detached mount at a target.
fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

fn readonly(mount: OwnedFd, path: &Bytes, space: Space) -> Done<OwnedFd> {
    let change = AttributeChange { set: READONLY, recursive: true, ..AttributeChange::default() };
    detached::attributes(mount, change, space).call("mount_setattr", path.clone())
}

/// Sets the attributes and propagation of an operation, by `set` on a mount that it takes and returns.
fn change_attributes(
    op: &MountOp,
    mount: OwnedFd,
    set: impl Fn(OwnedFd, AttributeChange) -> Result<OwnedFd, Errno>,
) -> Done<OwnedFd> {
    let mut mount = mount;
    let mut change =
        AttributeChange { set: op.set, clear: op.clear, propagation: 0, recursive: op.recursive_attributes };
    if op.recursive_attributes == op.recursive_propagation || op.set | op.clear == 0 {
        change.propagation = op.propagation;
        change.recursive |= op.recursive_propagation && op.set | op.clear == 0;
    } else if op.propagation != 0 {
        let alone = AttributeChange {
            propagation: op.propagation,
            recursive: op.recursive_propagation,
            ..AttributeChange::default()
        };
        mount = set(mount, alone).call("mount_setattr", op.target.clone())?;
    }
    if change.set | change.clear | change.propagation == 0 {
        return Ok(mount);
    }
    set(mount, change).call("mount_setattr", op.target.clone())
}

/// Changes attributes of an attached mount, before the root has changed.
fn attached_attributes(mount: BorrowedFd<'_>, change: AttributeChange) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    detached::attributes_at(mount, Path::new(&path), change)
}

fn kind_of(mount: BorrowedFd<'_>, path: &Bytes) -> Done<Target> {
    let stat = fs::fstat(mount).call("stat", path.clone())?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(if is_dir { Target::Dir } else { Target::File })
}

impl Init {
    pub(super) fn mount(&mut self, op: &MountOp) -> Done {
        self.forget_dir(&op.target, op.follow);
        if self.mount_at_once(op)? {
            return Ok(());
        }
        let (mount, kind) = match &op.source {
            MountSource::Filesystem(filesystem) => {
                let mount = self.filesystem_or_stand_in(filesystem, op);
                (mount.map_err(|failed| failed.mounting(&filesystem.fstype, &op.target))?, Target::Dir)
            }
            MountSource::Bind { path, recursive } => {
                if op.links.copy_source
                    && let Ok(led) = fs::readlink(path.as_path(), Vec::new())
                {
                    return self.copy_link(&Bytes(led.into_bytes()), &op.target);
                }
                let mount = if op.links.mount_source {
                    copy_nofollow(path, *recursive)
                } else {
                    copy_tree(CWD, path, *recursive)
                };
                let mount = mount.call("mount", path.clone()).map_err(|failed| {
                    failed.mounting(&format!("`{}`", path.as_path().display()), &op.target)
                })?;
                let kind = kind_of(mount.as_fd(), path)?;
                (mount, kind)
            }
            MountSource::Handle(slot) => {
                let mount =
                    rustix::io::fcntl_dupfd_cloexec(self.slot(*slot)?, 3).call("dup", op.target.clone())?;
                let kind = kind_of(mount.as_fd(), &op.target)?;
                (mount, kind)
            }
            MountSource::Remount => return self.remount(op),
        };
        if op.target.as_path() == Path::new("/proc") {
            check_proc(mount.as_fd())?;
        }
        let mount =
            change_attributes(op, mount, |mount, change| detached::attributes(mount, change, self.space))?;
        let covered = if op.links.cover_target { self.find_itself(&op.target)? } else { None };
        let target = covered.map_or_else(|| self.target(&op.target, kind, op.follow), Ok)?;
        self.keep_off_proc(target.as_fd(), op)?;
        if op.copy_up {
            super::copy::dir(target.as_fd(), mount.as_fd()).call("copy", op.target.clone())?;
        }
        attach(mount.as_fd(), target.as_fd()).call("move_mount", op.target.clone())?;
        self.leave(mount);
        self.leave(target);
        Ok(())
    }

    /// Mounts a new file system by mount(2), which costs a third of the newer calls: on `.`, which is the target's file
    /// descriptor. False when that is not possible, or failed: the newer calls report the reason.
    fn mount_at_once(&mut self, op: &MountOp) -> Done<bool> {
        let MountSource::Filesystem(filesystem) = &op.source else { return Ok(false) };
        if op.copy_up || op.propagation != 0 || op.set | op.clear != 0 {
            return Ok(false);
        }
        if filesystem.fstype == "overlay" && !Host::get().has(Feature::LowerAppend) {
            return Ok(false);
        }
        let with_mode = self.mode_of_covered(filesystem, op)?;
        let filesystem = with_mode.as_ref().unwrap_or(filesystem);
        let Some(data) = joined_options(&filesystem.options) else { return Ok(false) };
        let (target, place) = match self.make_in_own(&op.target)? {
            Some(name) => (None, name),
            None => {
                let target = self.target(&op.target, Target::Dir, op.follow)?;
                self.keep_off_proc(target.as_fd(), op)?;
                rustix::process::fchdir(&target).call("chdir", op.target.clone())?;
                (Some(target), c".".to_owned())
            }
        };
        let flags = old_flags(filesystem.attributes);
        let (source, fstype) = (filesystem.source.as_str(), filesystem.fstype.as_str());
        let mounted =
            rustix::mount::mount(source, place.as_c_str(), fstype, flags, Some(data.as_c_str())).is_ok();
        if mounted {
            if let Some(target) = target {
                self.leave(target);
            }
            if fstype == "tmpfs" && !op.follow {
                self.remember_tmpfs(&op.target);
            }
            self.has_proc |= fstype == "proc" && op.target.0 == b"/proc";
        }
        Ok(mounted)
    }

    /// Mounts a new file system. Where the kernel refuses one to a container in a user namespace, it is a bind of the
    /// host's file system, which the container may see anyway.
    fn filesystem_or_stand_in(&self, filesystem: &FilesystemMount, op: &MountOp) -> Done<OwnedFd> {
        let made = match self.mode_of_covered(filesystem, op)? {
            Some(filesystem) => make_filesystem(&filesystem, self.space),
            None => make_filesystem(filesystem, self.space),
        };
        let failed = match made {
            Err(failed) if failed.errno == Errno::PERM => failed,
            other => return other,
        };
        let stand_in = match filesystem.fstype.as_str() {
            "sysfs" => "/sys",
            "proc" => "/proc",
            "mqueue" => "/dev/mqueue",
            _ => return Err(failed),
        };
        let Ok(mount) = copy_tree(CWD, &Bytes::from(stand_in), true) else { return Err(failed) };
        let change =
            AttributeChange { set: filesystem.attributes, recursive: true, ..AttributeChange::default() };
        detached::attributes(mount, change, self.space).call("mount_setattr", op.target.clone())
    }

    /// Adds to a tmpfs without a mode the mode of the directory that it covers.
    fn mode_of_covered(&self, filesystem: &FilesystemMount, op: &MountOp) -> Done<Option<FilesystemMount>> {
        if filesystem.fstype != "tmpfs" || filesystem.options.iter().any(|(key, _)| key == "mode") {
            return Ok(None);
        }
        let Some(covered) = self.find(&op.target, op.follow)? else { return Ok(None) };
        let stat = fs::fstat(&covered).call("stat", op.target.clone())?;
        let mut filesystem = filesystem.clone();
        filesystem.options.push(("mode".to_owned(), Some(format!("{:o}", stat.st_mode & 0o7777))));
        Ok(Some(filesystem))
    }

    /// Changes the attributes of an existing mount.
    fn remount(&self, op: &MountOp) -> Done {
        let Some(place) = self.find(&op.target, op.follow)? else {
            return Err(Errno::NOENT).call("remount", op.target.clone());
        };
        change_attributes(op, place, |place, change| {
            attached_attributes(place.as_fd(), change).map(|()| place)
        })
        .map(drop)
    }

    /// Keeps a file descriptor until exec: many are closed at once there.
    pub(super) fn leave(&mut self, handle: OwnedFd) {
        const MOST: usize = 96;
        if self.left.len() < MOST {
            self.left.push(handle);
        }
    }
}
