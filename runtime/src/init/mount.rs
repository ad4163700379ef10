//! Mounting with the kernel's new interface (Linux 5.2): file systems and binds are made detached, get
//! their attributes, and only then become visible at a path that is held by a file descriptor.

use super::path::{Target, open_as};
use super::{Done, Failed, Init, Named};
use crate::detached::{
    self, READONLY, Space, copy as copy_tree, copy_itself, filesystem as make_filesystem, joined_options,
    old_flags,
};
use crate::host::{Feature, Host};
use crate::op::{
    Bytes, DeviceOp, FilesystemMount, HierarchiesOp, HierarchyMount, HierarchyView, MountOp, MountSource,
    RootOp,
};
use crate::sys::AttributeChange;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::ffi::CStr;
use std::path::Path;

/// What the kernel shows at the paths that engines hide (containers/common and moby, default specification), which saves
/// asking.
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

/// Makes a detached mount visible.
fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

/// Mounts of the same that hide things: an empty directory, or the null device.
#[derive(Default)]
pub(super) struct Covers {
    handles: Vec<OwnedFd>,
    /// The last of them is attached nowhere yet.
    spare: bool,
}

impl Covers {
    /// Attaches one more by `attach`, a copy of the first, which `make` makes; what that could not attach is there for the
    /// next.
    fn put(
        &mut self,
        make: impl FnOnce() -> Done<OwnedFd>,
        attach: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Done<Result<(), Errno>> {
        /// Handles that are not closed one by one, but many at once when the program starts.
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

    /// All handles; what is attached stays.
    pub(super) fn into_handles(self) -> Vec<OwnedFd> {
        self.handles
    }
}

/// Makes a detached mount visible on an entry of a directory. A link is not followed but covered.
fn attach_in(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, c"", dir, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A detached copy of an entry of a directory and of the mounts below it. A link is not followed.
fn copy_entry(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(dir, name, flags)
}

/// Mounts a version 1 hierarchy, as the cgroup namespace has it, on a directory of the working directory.
fn mount_hierarchy(name: &str, options: &str, flags: MountFlags) -> Result<(), Errno> {
    let options = Bytes::from(options).to_c_string();
    rustix::mount::mount(c"cgroup", name, c"cgroup", flags, Some(options.as_c_str()))
}

fn readonly(mount: OwnedFd, path: &Bytes, space: Space) -> Done<OwnedFd> {
    let change = AttributeChange { set: READONLY, recursive: true, ..AttributeChange::default() };
    detached::attributes(mount, change, space).call("mount_setattr", path.clone())
}

impl Init {
    /// Sets the propagation of the whole tree; 0 leaves it as it is.
    pub(super) fn propagate(&mut self, bits: u64) -> Done {
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

    pub(super) fn mount_root(&mut self, root: &RootOp) -> Done {
        // Written so, it can be nothing but a directory.
        let dir = Bytes([root.path.0.as_slice(), b"/"].concat());
        if root.cut_off {
            // First: a copy would be a peer of what it is a copy of, and the host would be shown the root's mounts.
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
        // Where it is seen matters to nobody but the pivot, which goes by the handle.
        rustix::mount::move_mount(
            mount.as_fd(),
            c"",
            CWD,
            dir.to_c_string(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS,
        )
        .call("move_mount", root.path.clone())?;
        // The handle on the detached mount is one on its root, now that it is attached.
        self.root = Some(mount);
        Ok(())
    }

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
                    copy_itself(path, *recursive)
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

    /// Mounts a new file system with the one call of old, which is a third of what the new ones take: on `.`, which
    /// is the handle on the target. False when that is not possible, or failed: the new calls say why.
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

    /// Shows version 1 cgroups in directories of a tmpfs.
    pub(super) fn hierarchies(&mut self, op: &HierarchiesOp) -> Done {
        self.forget_dir(&op.target, false);
        let target = self.target(&op.target, Target::Dir, false)?;
        let writable = old_flags(op.attributes) - MountFlags::RDONLY;
        rustix::process::fchdir(&target).call("chdir", op.target.clone())?;
        rustix::mount::mount(c"tmpfs", c".", c"tmpfs", writable, Some(c"mode=755"))
            .call("mount", op.target.clone())?;
        // What was at the target is below the new mount now: the handle on its top is had by path.
        let top = self.find(&op.target, false)?.ok_or(Errno::NOENT).call("open", op.target.clone())?;
        rustix::process::fchdir(&top).call("chdir", op.target.clone())?;
        for hierarchy in &op.mounts {
            self.hierarchy(hierarchy, top.as_fd(), op.attributes)?;
        }
        for (name, target) in &op.links {
            fs::symlink(target.as_str(), name.as_str()).call("symlink", name.as_str())?;
        }
        if op.attributes & READONLY != 0 {
            let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
            attached_attributes(top.as_fd(), change).call("mount_setattr", op.target.clone())?;
        }
        self.leave(target);
        self.leave(top);
        Ok(())
    }

    /// Shows one version 1 hierarchy in a new directory of `top`, which is the working directory.
    fn hierarchy(&self, hierarchy: &HierarchyMount, top: BorrowedFd<'_>, attributes: u64) -> Done {
        let name = hierarchy.name.as_str();
        fs::mkdir(name, Mode::from_raw_mode(0o755)).call("mkdir", name)?;
        match &hierarchy.shows {
            HierarchyView::Nothing => Ok(()),
            HierarchyView::Cgroup(path) => {
                let cgroup = copy_tree(CWD, path, false).call("open_tree", path.clone())?;
                let change = AttributeChange { set: attributes, ..AttributeChange::default() };
                let cgroup =
                    detached::attributes(cgroup, change, self.space).call("mount_setattr", path.clone())?;
                attach_in(cgroup.as_fd(), top, &Bytes::from(name).to_c_string()).call("move_mount", name)
            }
            HierarchyView::Namespace(options) => {
                match mount_hierarchy(name, options, old_flags(attributes)) {
                    // A user namespace may not see all of them.
                    Ok(()) | Err(Errno::PERM | Errno::NODEV) => Ok(()),
                    Err(errno) => Err(errno).call("mount", format!("cgroup {name}")),
                }
            }
        }
    }

    /// A new file system; where the kernel refuses one to a container in a user namespace, the part of the
    /// host's that the container may see anyway.
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

    /// A tmpfs without a mode of its own gets that of the directory it covers.
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

    /// Gives a mount that is there other attributes.
    fn remount(&self, op: &MountOp) -> Done {
        let Some(place) = self.find(&op.target, op.follow)? else {
            return Err(Errno::NOENT).call("remount", op.target.clone());
        };
        change_attributes(op, place, |place, change| {
            attached_attributes(place.as_fd(), change).map(|()| place)
        })
        .map(drop)
    }

    pub(super) fn device(&mut self, op: &DeviceOp) -> Done {
        if let Some(slot) = op.node {
            let target = self.target(&op.path, Target::File, false)?;
            attach(self.slot(slot)?, target.as_fd()).call("move_mount", op.path.clone())?;
            self.leave(target);
            return Ok(());
        }
        if op.bind {
            let node = copy_tree(CWD, &op.path, false).call("mount", op.path.clone())?;
            let stat = fs::fstat(&node).call("stat", op.path.clone())?;
            if !is_device(&stat, op) {
                let shown = op.path.as_path().display();
                let message = format!("`{shown}` of the host is not the device that is asked for");
                return Err(Failed::saying(op.path.clone(), message));
            }
            let node = hardened_node(node, op, self.space)?;
            let target = self.target(&op.path, Target::File, false)?;
            attach(node.as_fd(), target.as_fd()).call("move_mount", op.path.clone())?;
            self.leave(node);
            self.leave(target);
            return Ok(());
        }
        if let Some(above) =
            op.path.as_path().parent().filter(|above| *above != Path::new("/") && *above != Path::new("/dev"))
        {
            self.target(&above.into(), Target::Dir, false)?;
        }
        let (parent, name) = self.parent(&op.path)?;
        let device = fs::makedev(op.major, op.minor);
        match fs::mknodat(parent, &name, node_type(op), Mode::from_raw_mode(op.mode), device) {
            Ok(()) => {}
            Err(Errno::EXIST) => return check_node(parent, &name, op),
            Err(errno) => return Err(errno).call("mknod", op.path.clone()),
        }
        if (op.uid, op.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(op.uid), Gid::from_raw(op.gid));
            fs::chownat(parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .call("chown", op.path.clone())?;
        }
        Ok(())
    }

    /// Makes the new root the root, and lets go of the old one.
    pub(super) fn pivot(&mut self, by_moving: bool) -> Done {
        rustix::process::fchdir(self.root()?).call("chdir", "/")?;
        if by_moving {
            // For an initial RAM disk, which cannot be left otherwise. What is outside of the new root stays
            // mounted, and must tell nothing and offer no way around what is hidden inside.
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
                // What is unmounted here would be unmounted on the host, where its mounts are peers of these.
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

    /// The root that this process has is the container's.
    pub(super) fn take_present_root(&mut self) -> Done {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.root = Some(fs::open(c"/", flags, Mode::empty()).call("open", "/")?);
        Ok(())
    }

    pub(super) fn propagate_root(&self, bits: u64, recursive: bool) -> Done {
        let change = AttributeChange { propagation: bits, recursive, ..AttributeChange::default() };
        detached::attributes_at(self.root()?, Path::new("/"), change).call("mount_setattr", "/")
    }

    pub(super) fn readonly_root(&self) -> Done {
        let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
        detached::attributes_at(self.root()?, Path::new("/"), change).call("mount_setattr", "/")
    }

    /// Mounts a path on itself, read-only; none there is fine.
    pub(super) fn readonly(&mut self, path: &Bytes) -> Done {
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

    /// Hides a path: a directory behind an empty one, anything else behind the host's own /dev/null.
    pub(super) fn mask(&mut self, path: &Bytes) -> Done {
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
                // Neither goes on the other: what is here is not what is here everywhere else.
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

    /// Hides an entry of a directory that is known to have no links; `None` when it is not what it is everywhere else.
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

    /// Attaches something that hides.
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

    /// A detached mount of the container's own null device, looked at, or of the host's where it has none.
    fn null_cover(&self) -> Done<OwnedFd> {
        let own = open_as(self.root()?, c"dev/null", OFlags::PATH | OFlags::NOFOLLOW, false).ok();
        let own = own.filter(|own| fs::fstat(own).is_ok_and(|stat| super::identity::is_null(&stat)));
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

    /// What is in the container's /proc is what the kernel tells: a link of the image leads no mount there (CVE-2019-19921).
    /// Those that name it have been looked at when the plan was made, and follow no links.
    fn keep_off_proc(&self, target: BorrowedFd<'_>, op: &MountOp) -> Done {
        if !op.follow || !is_proc(target) {
            return Ok(());
        }
        let device = |handle: BorrowedFd<'_>| fs::fstat(handle).map(|stat| stat.st_dev);
        let own = self.find(&Bytes::from("/proc"), false)?;
        if own.is_some_and(|own| device(own.as_fd()) != device(target)) {
            // That of others, which was mounted for it to see.
            return Ok(());
        }
        let shown = op.target.as_path().display();
        Err(Failed::saying(op.target.clone(), format!("cannot mount on `{shown}`: it leads into /proc")))
    }

    /// Lets go of a handle when the program starts, not before: exec closes many at once.
    pub(super) fn leave(&mut self, handle: OwnedFd) {
        const MOST: usize = 96;
        if self.left.len() < MOST {
            self.left.push(handle);
        }
    }

    /// Writes below the host's /proc: the image may have put something else at its own.
    ///
    /// Kernel parameters of namespaces are those of the writer, whichever /proc they are reached through.
    pub(super) fn write_proc(&self, path: &str, value: &str) -> Result<(), Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        // `self` is the one link that is meant to be followed.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let file = fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        rustix::io::write(&file, value.as_bytes()).map(drop)
    }

    pub(super) fn sysctl(&self, name: &str, value: &str) -> Done {
        // Where slashes separate, dots belong to names, of interfaces say.
        let below = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
        let path = format!("sys/{below}");
        self.write_proc(&path, value).call("write", format!("/proc/{path}"))
    }
}

/// Attributes and propagation that an operation asks for, set by `set` on a mount that it takes and returns.
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

/// Changes attributes of a mount that is attached, before the root has changed.
fn attached_attributes(mount: BorrowedFd<'_>, change: AttributeChange) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    detached::attributes_at(mount, Path::new(&path), change)
}

fn kind_of(mount: BorrowedFd<'_>, path: &Bytes) -> Done<Target> {
    let stat = fs::fstat(mount).call("stat", path.clone())?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(if is_dir { Target::Dir } else { Target::File })
}

fn is_proc(handle: BorrowedFd<'_>) -> bool {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    fs::fstatfs(handle).is_ok_and(|statfs| statfs.f_type == PROC_SUPER_MAGIC)
}

/// What is shown at /proc must be what the kernel tells.
fn check_proc(mount: BorrowedFd<'_>) -> Done {
    if is_proc(mount) {
        Ok(())
    } else {
        Err(Failed::saying("/proc", "what is mounted on `/proc` is not a proc file system"))
    }
}

/// A node of the host that is mounted is a device and nothing else. Read-only does not keep anybody from writing to a device, but from
/// changing who may.
fn hardened_node(node: OwnedFd, op: &DeviceOp, space: Space) -> Done<OwnedFd> {
    const NOSUID: u64 = 2;
    const NOEXEC: u64 = 8;
    let change = AttributeChange { set: READONLY | NOSUID | NOEXEC, ..AttributeChange::default() };
    detached::attributes(node, change, space).call("mount_setattr", op.path.clone())
}

fn node_type(op: &DeviceOp) -> FileType {
    match op.kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    }
}

/// True when a node is the device that the operation names.
fn is_device(stat: &fs::Stat, op: &DeviceOp) -> bool {
    let kind = node_type(op);
    FileType::from_raw_mode(stat.st_mode) == kind
        && (kind == FileType::Fifo || stat.st_rdev == fs::makedev(op.major, op.minor))
}

/// A node that was there already must be the device that is meant.
fn check_node(parent: BorrowedFd<'_>, name: &CStr, op: &DeviceOp) -> Done {
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).call("stat", op.path.clone())?;
    if is_device(&stat, op) {
        return Ok(());
    }
    let shown = op.path.as_path().display();
    Err(Failed::saying(
        op.path.clone(),
        format!("`{shown}` exists in the image and is not the device that is asked for"),
    ))
}

/// Takes the host's proc and sys file systems outside of `root` away.
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
            // Mounted by who has more rights: covered then.
            Err(_) => rustix::mount::mount(c"tmpfs", place, c"tmpfs", MountFlags::empty(), None)
                .call("mount", place)?,
        }
    }
    Ok(())
}

/// Cuts the mount that holds a path off from its peers.
fn cut_off(path: &Bytes) -> Done {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let holds = |place: &str| path.as_path().starts_with(place);
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    let Some(place) = places.filter(|place| holds(place)).max_by_key(|place| place.len()) else {
        return Ok(());
    };
    rustix::mount::mount_change(place, MountPropagationFlags::PRIVATE).call("mount", place)
}

/// A detached mount of an empty read-only directory.
fn empty_dir(space: Space) -> Done<OwnedFd> {
    let tmpfs = FilesystemMount {
        fstype: "tmpfs".to_owned(),
        source: String::new(),
        options: Vec::new(),
        attributes: READONLY,
    };
    make_filesystem(&tmpfs, space)
}

/// A detached mount of /dev/null, opened on the host and looked at. Read-only, it takes what is written, but who owns it
/// and who may use it is not the container's to say.
fn null_device(space: Space) -> Done<OwnedFd> {
    let null = copy_tree(CWD, &Bytes::from("/dev/null"), false).call("open_tree", "/dev/null")?;
    let stat = fs::fstat(&null).call("stat", "/dev/null")?;
    if !super::identity::is_null(&stat) {
        return Err(Failed::saying("/dev/null", "`/dev/null` is not the null device"));
    }
    readonly(null, &Bytes::from("/dev/null"), space)
}
