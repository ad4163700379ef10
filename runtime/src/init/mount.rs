//! Mounting with the kernel's new interface (Linux 5.2): file systems and binds are made detached, get
//! their attributes, and only then become visible at a place that is held by a handle.

use super::path::Target;
use super::{Done, Failed, Init, Named};
use crate::op::{Bytes, DeviceOp, FilesystemMount, MountOp, MountSource, RootOp};
use crate::sys::{self, AttributeChange};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// `MOUNT_ATTR_RDONLY`.
const READONLY: u64 = 1;

/// Sets the propagation of the whole tree.
pub(super) fn propagate(bits: u64) -> Done {
    let flags = MountPropagationFlags::from_bits_retain(bits as u32) | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", flags).call("mount", "/")
}

/// Makes a detached file system.
pub(crate) fn make_filesystem(mount: &FilesystemMount) -> Done<OwnedFd> {
    let name = mount.fstype.as_str();
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).call("fsopen", name)?;
    let explain = |call: &'static str, what: &str, errno: Errno| {
        let message = kernel_message(context.as_fd());
        let message = message.map(|text| format!("cannot mount {name}: {text}"));
        Failed { call, on: format!("{name} {what}").trim().into(), errno, message }
    };
    if !mount.source.is_empty() {
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", mount.source.as_str())
            .map_err(|errno| explain("fsconfig", "source", errno))?;
    }
    let options = joined_lower_folders(context.as_fd(), &mount.options);
    for (key, value) in options.as_deref().unwrap_or(&mount.options) {
        let set = match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str()),
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), key.as_str()),
        };
        set.map_err(|errno| explain("fsconfig", key, errno))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(|errno| explain("fsconfig", "create", errno))?;
    let attributes = MountAttrFlags::from_bits_retain(mount.attributes as u32);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| explain("fsmount", "", errno))
}

/// Kernels before 6.5 take overlay's lower folders only as one string: gives the options rewritten for
/// them, or `None` when the kernel takes them one by one.
fn joined_lower_folders(
    context: BorrowedFd<'_>,
    options: &[(String, Option<String>)],
) -> Option<Vec<(String, Option<String>)>> {
    let lower: Vec<&str> = options
        .iter()
        .filter(|(key, _)| key == "lowerdir+")
        .filter_map(|(_, value)| value.as_deref())
        .collect();
    let first = lower.first()?;
    // Asking costs nothing: a rejected key leaves the context as it was, an accepted one is repeated below.
    if rustix::mount::fsconfig_set_string(context, "lowerdir+", *first).is_ok() {
        let mut rest = options.to_vec();
        let taken = rest.iter().position(|(key, _)| key == "lowerdir+")?;
        rest.remove(taken);
        return Some(rest);
    }
    let escaped: Vec<String> =
        lower.iter().map(|path| path.replace('\\', "\\\\").replace(':', "\\:")).collect();
    let mut rewritten = vec![("lowerdir".to_owned(), Some(escaped.join(":")))];
    rewritten.extend(options.iter().filter(|(key, _)| key != "lowerdir+").cloned());
    Some(rewritten)
}

/// What the kernel has to say about a failed mount.
fn kernel_message(context: BorrowedFd<'_>) -> Option<String> {
    let mut buffer = [0u8; 512];
    let mut last = None;
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        // Messages begin with their level: `e `, `w ` or `i `.
        last = text.strip_prefix("e ").map(str::to_owned).or(last);
    }
    last
}

/// A detached copy of a mount, or of the part of it below a path.
pub(crate) fn copy_tree(dir: BorrowedFd<'_>, path: &Bytes, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.0.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(dir, path.to_c_string(), flags)
}

/// Makes a detached mount visible.
fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

impl Init {
    pub(super) fn mount_root(&mut self, root: &RootOp) -> Done {
        let path = root.path.to_c_string();
        let mount = match &root.mount {
            Some(mount) => make_filesystem(mount)?,
            None => copy_tree(CWD, &root.path, true).call("open_tree", root.path.clone())?,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = fs::open(&path, flags, Mode::empty()).call("open", root.path.clone())?;
        attach(mount.as_fd(), place.as_fd()).call("move_mount", root.path.clone())?;
        // The handle on the detached mount is one on its root, now that it is attached.
        self.root = Some(mount);
        Ok(())
    }

    pub(super) fn mount(&mut self, op: &MountOp) -> Done {
        let (mount, kind) = match &op.source {
            MountSource::Filesystem(filesystem) => (make_filesystem(filesystem)?, Target::Folder),
            MountSource::Bind { path, recursive } => {
                let mount = copy_tree(CWD, path, *recursive).call("mount", path.clone())?;
                let stat = fs::fstat(&mount).call("stat", path.clone())?;
                let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                (mount, if is_folder { Target::Folder } else { Target::File })
            }
        };
        if op.set | op.clear | op.propagation != 0 {
            let change = AttributeChange {
                set: op.set,
                clear: op.clear,
                propagation: op.propagation,
                recursive: op.recursive_attributes,
            };
            sys::set_attributes(mount.as_fd(), change).call("mount_setattr", op.target.clone())?;
        }
        let target = self.target(&op.target, kind, op.follow)?;
        attach(mount.as_fd(), target.as_fd()).call("move_mount", op.target.clone())
    }

    pub(super) fn device(&mut self, op: &DeviceOp) -> Done {
        if op.bind {
            let node = copy_tree(CWD, &op.path, false).call("mount", op.path.clone())?;
            let target = self.target(&op.path, Target::File, false)?;
            return attach(node.as_fd(), target.as_fd()).call("move_mount", op.path.clone());
        }
        let (parent, name) = self.parent(&op.path)?;
        let kind = match op.kind {
            'b' => FileType::BlockDevice,
            'p' => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let device = fs::makedev(op.major, op.minor);
        match fs::mknodat(&parent, &name, kind, Mode::from_raw_mode(op.mode), device) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(errno).call("mknod", op.path.clone()),
        }
        if (op.uid, op.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(op.uid), Gid::from_raw(op.gid));
            fs::chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .call("chown", op.path.clone())?;
        }
        Ok(())
    }

    /// Makes the new root the root, and lets go of the old one.
    pub(super) fn pivot(&mut self) -> Done {
        rustix::process::fchdir(self.root()?).call("chdir", "/")?;
        rustix::process::pivot_root(c".", c".").call("pivot_root", "/")?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH).call("umount", "/")?;
        rustix::process::chdir(c"/").call("chdir", "/")
    }

    pub(super) fn readonly_root(&self) -> Done {
        let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
        sys::set_attributes(self.root()?, change).call("mount_setattr", "/")
    }

    /// Mounts a path on itself, read-only; none there is fine.
    pub(super) fn readonly(&self, path: &Bytes) -> Done {
        let Some(place) = self.find(path, true)? else { return Ok(()) };
        let copy = copy_tree(place.as_fd(), &Bytes::from(""), true).call("open_tree", path.clone())?;
        let change = AttributeChange { set: READONLY, recursive: true, ..AttributeChange::default() };
        sys::set_attributes(copy.as_fd(), change).call("mount_setattr", path.clone())?;
        attach(copy.as_fd(), place.as_fd()).call("move_mount", path.clone())
    }

    /// Hides a path: a folder behind an empty one, anything else behind the machine's own /dev/null.
    pub(super) fn mask(&mut self, path: &Bytes) -> Done {
        let Some(place) = self.find(path, true)? else { return Ok(()) };
        let stat = fs::fstat(&place).call("stat", path.clone())?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.empty_folder()?
        } else {
            null_device()?
        };
        attach(cover.as_fd(), place.as_fd()).call("move_mount", path.clone())
    }

    /// A detached mount of an empty read-only folder; all of them are copies of one.
    fn empty_folder(&mut self) -> Done<OwnedFd> {
        if let Some(first) = &self.empty {
            return copy_tree(first.as_fd(), &Bytes::from(""), false).call("open_tree", "tmpfs");
        }
        let tmpfs = FilesystemMount {
            fstype: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            options: vec![
                ("size".to_owned(), Some("0".to_owned())),
                ("nr_inodes".to_owned(), Some("1".to_owned())),
            ],
            attributes: READONLY,
        };
        let mount = make_filesystem(&tmpfs)?;
        self.empty = Some(rustix::io::fcntl_dupfd_cloexec(&mount, 3).call("dup", "tmpfs")?);
        Ok(mount)
    }

    /// Writes below /proc through a handle of our own: the image may have put something else at /proc.
    pub(super) fn write_proc(&mut self, path: &str, value: &str) -> Result<(), Errno> {
        if self.proc.is_none() {
            let proc = FilesystemMount {
                fstype: "proc".to_owned(),
                source: "proc".to_owned(),
                options: Vec::new(),
                attributes: 0,
            };
            self.proc = Some(make_filesystem(&proc).map_err(|failed| failed.errno)?);
        }
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        // `self` is the one link that is meant to be followed.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let file = fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        rustix::io::write(&file, value.as_bytes()).map(drop)
    }

    pub(super) fn sysctl(&mut self, name: &str, value: &str) -> Done {
        let path = format!("sys/{}", name.replace('.', "/"));
        self.write_proc(&path, value).call("write", format!("/proc/{path}"))
    }
}

/// A detached mount of /dev/null, opened on the machine and looked at.
fn null_device() -> Done<OwnedFd> {
    let null = copy_tree(CWD, &Bytes::from("/dev/null"), false).call("open_tree", "/dev/null")?;
    let stat = fs::fstat(&null).call("stat", "/dev/null")?;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == fs::makedev(1, 3);
    if genuine { Ok(null) } else { Err(Failed::saying("/dev/null", "`/dev/null` is not the null device")) }
}
