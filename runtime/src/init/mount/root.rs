//! The root: its mount, its propagation, and the change to it.

use crate::detached::{self, READONLY, Space, copy as copy_tree, filesystem as make_filesystem};
use crate::init::{Done, Init, Named};
use crate::op::{Bytes, RootOp};
use crate::sys::AttributeChange;
use rustix::fd::AsFd;
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use std::path::Path;

/// Unmounts or covers the host's proc and sys file systems outside of `root`.
fn cover_outside(root: &[u8]) -> Done {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .call("read", "/proc/self/mountinfo")?;
    let places = table.lines().rev().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let kind = tail.split(' ').next()?;
        let place = head.split(' ').nth(4)?;
        let inside =
            place.as_bytes().strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        (matches!(kind, "proc" | "sysfs") && !inside).then_some(place)
    });
    for place in places {
        let _ = rustix::mount::mount_change(place, MountPropagationFlags::PRIVATE);
        match rustix::mount::unmount(place, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Mounted with more privileges, so it cannot be unmounted: covered then.
            Err(_) => rustix::mount::mount(c"tmpfs", place, c"tmpfs", MountFlags::empty(), None)
                .call("mount", place)?,
        }
    }
    Ok(())
}

/// Cuts the mount that contains a path off from its peers.
fn cut_off(path: &Bytes) -> Done {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let holds = |place: &str| path.as_path().starts_with(place);
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    let Some(place) = places.filter(|place| holds(place)).max_by_key(|place| place.len()) else {
        return Ok(());
    };
    rustix::mount::mount_change(place, MountPropagationFlags::PRIVATE).call("mount", place)
}

impl Init {
    /// Sets the propagation of the whole tree; 0 leaves it unchanged.
    pub(in crate::init) fn propagate(&mut self, bits: u64) -> Done {
        if bits == 0 {
            return Ok(());
        }
        let flags = MountPropagationFlags::from_bits_retain(bits as u32) | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", flags).call("mount", "/")?;
        if self.owns_mounts {
            self.space = Space::Own;
        }
        Ok(())
    }

    pub(in crate::init) fn mount_root(&mut self, root: &RootOp) -> Done {
        // With a trailing slash the path must be a directory.
        let dir = Bytes([root.path.0.as_slice(), b"/"].concat());
        if root.cut_off {
            // First: a copy would be a peer of its original, and the root's mounts would propagate to the host.
            cut_off(&root.path)?;
        }
        let mut mount = match &root.mount {
            Some(mount) => make_filesystem(mount, self.space)
                .map_err(|failed| failed.mounting(&mount.fstype, &root.path))?,
            None => copy_tree(CWD, &dir, true).call("open_tree", root.path.clone()).map_err(|failed| {
                failed.trying(&format!("use the root file system `{}`", root.path.as_path().display()))
            })?,
        };
        if root.set != 0 {
            let change = AttributeChange { set: root.set, recursive: true, ..AttributeChange::default() };
            mount =
                detached::attributes(mount, change, self.space).call("mount_setattr", root.path.clone())?;
        }
        // The path where it is attached matters only for the pivot, which uses the file descriptor.
        rustix::mount::move_mount(
            mount.as_fd(),
            c"",
            CWD,
            dir.to_c_string(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS,
        )
        .call("move_mount", root.path.clone())?;
        // The file descriptor of the detached mount refers to its root, now that it is attached.
        self.root = Some(mount);
        Ok(())
    }

    /// Makes the new root `/`, and unmounts the old one.
    pub(in crate::init) fn pivot(&mut self, by_moving: bool) -> Done {
        rustix::process::fchdir(self.root()?).call("chdir", "/")?;
        if by_moving {
            // For an initial RAM disk, which cannot be left otherwise. File systems outside of the new root stay
            // mounted, and must neither reveal anything nor offer a way around hidden paths.
            let root = rustix::process::getcwd(Vec::new()).call("getcwd", "/")?;
            cover_outside(root.to_bytes())?;
            rustix::mount::mount_move(c".", c"/").call("mount", "/")?;
            rustix::process::chroot(c".").call("chroot", "/")?;
            rustix::process::chdir(c"/").call("chdir", "/")?;
        } else {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let old = (self.space == Space::Shared).then(|| fs::open(c"/", flags, Mode::empty()));
            let old = old.transpose().call("open", "/")?;
            // The new root is the working directory, before and after (pivot_root(2)).
            rustix::process::pivot_root(c".", c".").call("pivot_root", "/")?;
            if let Some(old) = old {
                // An unmount here would propagate to the host, where its mounts are peers of these.
                let slaves = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
                rustix::process::fchdir(&old).call("chdir", "/")?;
                rustix::mount::mount_change(c".", slaves).call("mount", "/")?;
                rustix::mount::unmount(c".", UnmountFlags::DETACH).call("umount", "/")?;
                rustix::process::fchdir(self.root()?).call("chdir", "/")?;
            } else {
                rustix::mount::unmount(c".", UnmountFlags::DETACH).call("umount", "/")?;
            }
        }
        self.is_at_root = true;
        Ok(())
    }

    /// Takes the current root of this process as the container's.
    pub(in crate::init) fn take_present_root(&mut self) -> Done {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.root = Some(fs::open(c"/", flags, Mode::empty()).call("open", "/")?);
        Ok(())
    }

    pub(in crate::init) fn propagate_root(&self, bits: u64, recursive: bool) -> Done {
        let change = AttributeChange { propagation: bits, recursive, ..AttributeChange::default() };
        detached::attributes_at(self.root()?, Path::new("/"), change).call("mount_setattr", "/")
    }

    pub(in crate::init) fn readonly_root(&self) -> Done {
        let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
        detached::attributes_at(self.root()?, Path::new("/"), change).call("mount_setattr", "/")
    }
}
