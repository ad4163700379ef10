//! Detached mounts: a file descriptor instead of a path. No mount table shows them, and the kernel unmounts them when
//! the descriptor is closed.
//!
//! Linux 5.2 has the necessary calls, later versions have more of them ([`crate::host::FEATURES`]). Changes that an
//! older kernel cannot make to a detached mount are made while the mount is attached in a mount namespace without other
//! processes, from which a detached copy is taken ([`Space`]).

use crate::host::{Feature, Host};
use crate::init::{Done, Failed, Named};
use crate::op::{Bytes, FilesystemMount};
use crate::sys::{self, AttributeChange};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use std::ffi::{CStr, CString};
use std::path::Path;

/// `MOUNT_ATTR_RDONLY` of Linux's `mount.h`.
pub(crate) const READONLY: u64 = 1;
/// `MOUNT_ATTR__ATIME`: the attributes for updates of access times; at most one of them is set.
const ATIME: u64 = 0x70;
/// `MOUNT_ATTR_STRICTATIME` of Linux's `mount.h`.
const STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NOATIME` of Linux's `mount.h`.
const NOATIME: u64 = 0x10;

/// Directories that exist on every host, for temporary mounts.
const SCRATCH_DIRS: [&str; 4] = ["/sys", "/dev", "/tmp", "/run"];

/// Directory of this process's file descriptors, for short paths made of a number.
const OWN_DESCRIPTORS: &CStr = c"/proc/self/fd";

/// Mount namespace of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// A namespace of this process only, whose mounts no other namespace receives: mounts can be attached here
    /// temporarily.
    Own,
    /// A namespace that contains other processes as well.
    Shared,
}

impl Space {
    /// Runs `work` in a mount namespace without other processes.
    ///
    /// In a shared namespace `work` runs in a thread with a copy of it, which ends with the thread.
    fn private<T: Send>(self, work: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, Errno> {
        if self == Space::Own {
            return work();
        }
        let separate = || {
            // The working directory and the mask for new files become separate for this thread as well.
            sys::unshare(libc::CLONE_NEWNS as u64)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change(c"/", private)?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, separate);
            let thread = thread.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
            thread.join().unwrap_or(Err(Errno::IO))
        })
    }
}

/// Directory for temporary mounts, in a private mount namespace.
fn scratch_dir() -> Result<&'static str, Errno> {
    SCRATCH_DIRS.into_iter().find(|path| Path::new(path).is_dir()).ok_or(Errno::NOENT)
}

/// Creates a file system as a detached mount.
///
/// # Errors
/// Fails with the call that failed; the caller adds the purpose of the file system ([`Failed::mounting`]).
pub(crate) fn filesystem(mount: &FilesystemMount, space: Space) -> Done<OwnedFd> {
    let name = mount.fstype.as_str();
    if name == "overlay" && !Host::get().has(Feature::LowerAppend) {
        return space.private(|| joined_overlay(mount)).call("mount", "overlay");
    }
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| no_filesystem(name, errno))?;
    let explain = |call: &'static str, what: &str, errno: Errno| {
        let message = kernel_message(context.as_fd());
        Failed { call, on: format!("{name} {what}").trim().into(), errno, message }
    };
    if !mount.source.is_empty() {
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", mount.source.as_str())
            .map_err(|errno| explain("fsconfig", "source", errno))?;
    }
    for (key, value) in &mount.options {
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

fn no_filesystem(name: &str, errno: Errno) -> Failed {
    let message = (errno == Errno::NODEV)
        .then(|| format!("this kernel has no file system `{name}` (is its module installed and loaded?)"));
    Failed { call: "fsopen", on: name.into(), errno, message }
}

/// Last error message of the kernel about a file system that could not be created; `None` without one.
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

/// Creates an overlay whose lower directories are one option.
///
/// The length of options is limited: to a page in all for mount(2), to 256 bytes each for fsconfig(2). Directories are
/// therefore opened and referred to by the numbers of their descriptors: with four bytes per directory there is room
/// for more than the 500 that overlayfs accepts, and no path needs to be escaped.
fn joined_overlay(mount: &FilesystemMount) -> Result<OwnedFd, Errno> {
    let mut handles = Vec::new();
    let mut open = |path: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = fs::open(path, flags, Mode::empty())?;
        let number = handle.as_raw_fd().to_string();
        handles.push(handle);
        Ok::<String, Errno>(number)
    };
    let mut lower = Vec::new();
    let mut options = Vec::new();
    for (key, value) in &mount.options {
        match (key.as_str(), value) {
            ("lowerdir+", Some(path)) => lower.push(open(path)?),
            ("upperdir" | "workdir", Some(path)) => options.push((key.clone(), Some(open(path)?))),
            _ => options.push((key.clone(), value.clone())),
        }
    }
    options.insert(0, ("lowerdir".to_owned(), Some(lower.join(":"))));
    let data = joined_options(&options).ok_or(Errno::TOOBIG)?;
    let scratch = scratch_dir()?;
    rustix::process::chdir(OWN_DESCRIPTORS)?;
    let flags = old_flags(mount.attributes);
    let mounted =
        rustix::mount::mount(mount.source.as_str(), scratch, c"overlay", flags, Some(data.as_c_str()));
    rustix::process::chdir(c"/")?;
    mounted?;
    detach(scratch.as_ref())
}

/// Takes a detached copy of the mount at a path, and unmounts the original.
fn detach(path: &Path) -> Result<OwnedFd, Errno> {
    let copy = copy(CWD, &Bytes::from(path), true);
    // An unmount here propagates to all peers: the copy is one of them, and mounts of the host may be.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(path, private)?;
    rustix::mount::unmount(path, UnmountFlags::DETACH)?;
    copy
}

/// Takes a detached copy of a mount, or of the part of it below a path; `recursive` includes the mounts below.
pub(crate) fn copy(dir: BorrowedFd<'_>, path: &Bytes, recursive: bool) -> Result<OwnedFd, Errno> {
    copy_with(OpenTreeFlags::empty(), dir, path, recursive)
}

/// Like [`copy`], but a link at the end of the path is not followed.
pub(crate) fn copy_nofollow(path: &Bytes, recursive: bool) -> Result<OwnedFd, Errno> {
    copy_with(OpenTreeFlags::AT_SYMLINK_NOFOLLOW, CWD, path, recursive)
}

fn copy_with(
    flags: OpenTreeFlags,
    dir: BorrowedFd<'_>,
    path: &Bytes,
    recursive: bool,
) -> Result<OwnedFd, Errno> {
    let mut flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.0.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(dir, path.to_c_string(), flags)
}

/// Creates a new file system, fills it and takes detached copies of parts of it: `fill` gets a file descriptor of its
/// root and returns the names of the parts.
///
/// # Errors
/// Fails with the error of `fill`, and when a mount or copy fails.
pub(crate) fn parts_of(
    mount: &FilesystemMount,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<String>, Errno> + Send,
) -> Result<Vec<OwnedFd>, Errno> {
    let copies = |root: BorrowedFd<'_>, names: Vec<String>| {
        names.into_iter().map(|name| copy(root, &Bytes::from(name), false)).collect()
    };
    if Host::get().has(Feature::DetachedCopies) {
        let root = filesystem(mount, Space::Shared).map_err(|failed| failed.errno)?;
        let names = fill(root.as_fd())?;
        return copies(root.as_fd(), names);
    }
    Space::Shared.private(|| {
        let root = filesystem(mount, Space::Own).map_err(|failed| failed.errno)?;
        attach(root.as_fd(), scratch_dir()?.as_ref())?;
        let names = fill(root.as_fd())?;
        copies(root.as_fd(), names)
    })
}

/// Attaches mounts inside a tree, each at its path, which is resolved inside the tree as it is then. Returns a detached copy
/// of all of it. A mount whose path does not exist is left out.
///
/// Before Linux 6.15 a detached tree takes no further mounts, so this is done in a private mount namespace.
///
/// # Errors
/// Fails in the cases of openat2(2) and move_mount(2).
pub(crate) fn assembled(root: BorrowedFd<'_>, mounts: &[(OwnedFd, String)]) -> Result<OwnedFd, Errno> {
    Space::Shared.private(|| {
        let scratch = Path::new(scratch_dir()?);
        attach(root, scratch)?;
        let top = fs::open(scratch, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for (mount, path) in mounts {
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            match fs::openat2(&top, path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside) {
                Ok(target) => rustix::mount::move_mount(mount, c"", &target, c"", flags)?,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        copy(CWD, &Bytes::from(scratch), true)
    })
}

fn attach(mount: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Changes attributes of a detached mount. Returns the same mount or a copy of it.
///
/// # Errors
/// Fails in the cases of mount_setattr(2).
pub(crate) fn attributes(mount: OwnedFd, change: AttributeChange, space: Space) -> Result<OwnedFd, Errno> {
    if let Some(done) = at_once(mount.as_fd(), change) {
        return done.map(|()| mount);
    }
    space.private(|| {
        let scratch = Path::new(scratch_dir()?);
        if FileType::from_raw_mode(fs::fstat(&mount)?.st_mode) == FileType::Directory {
            return attributes_on(mount, scratch, change);
        }
        rustix::mount::mount(c"tmpfs", scratch, c"tmpfs", MountFlags::empty(), None::<&CStr>)?;
        let file = scratch.join("file");
        let made = fs::mknodat(CWD, &file, FileType::RegularFile, Mode::RUSR, 0);
        let changed = made.and_then(|()| attributes_on(mount, &file, change));
        rustix::mount::unmount(scratch, UnmountFlags::DETACH)?;
        changed
    })
}

/// Attaches a mount at a path, changes its attributes, and detaches it.
fn attributes_on(mount: OwnedFd, path: &Path, change: AttributeChange) -> Result<OwnedFd, Errno> {
    attach(mount.as_fd(), path)?;
    let changed = remount(mount.as_fd(), path, change);
    if changed.is_ok() && change.propagation == libc::MS_UNBINDABLE {
        // It can no longer be copied: it stays attached until it is moved to its target.
        return Ok(mount);
    }
    let copy = detach(path);
    changed.and(copy)
}

/// Changes attributes of a mount attached at `path`, in a mount namespace of this process only.
pub(crate) fn attributes_at(
    mount: BorrowedFd<'_>,
    path: &Path,
    change: AttributeChange,
) -> Result<(), Errno> {
    at_once(mount, change).unwrap_or_else(|| remount(mount, path, change))
}

/// Changes attributes by mount_setattr(2), which works on attached and detached mounts; `None` when the kernel lacks
/// it.
fn at_once(mount: BorrowedFd<'_>, change: AttributeChange) -> Option<Result<(), Errno>> {
    let host = Host::get();
    if !host.has(Feature::MountSetattr) {
        return None;
    }
    match but_locked(mount, change, |change| sys::set_attributes(mount, change)) {
        Err(Errno::NOSYS) => {
            host.record_missing(Feature::MountSetattr);
            None
        }
        other => Some(other),
    }
}

/// Changes attributes by mount(2), which takes a path and one mount at a time.
fn remount(mount: BorrowedFd<'_>, path: &Path, change: AttributeChange) -> Result<(), Errno> {
    if change.set | change.clear != 0 {
        remount_one(mount, path, change)?;
        let below = if change.recursive { mounts_below(mount)? } else { Vec::new() };
        for (id, path) in &below {
            let path = Bytes(path.clone());
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let mount = fs::open(path.as_path(), flags, Mode::empty())?;
            let found = mount_id(mount.as_fd())?;
            if found != *id {
                // Covered by another of these mounts; any other mount was moved here meanwhile.
                if below.iter().any(|(other, _)| *other == found) {
                    continue;
                }
                return Err(Errno::AGAIN);
            }
            remount_one(mount.as_fd(), path.as_path(), change)?;
        }
    }
    if change.propagation != 0 {
        let mut flags = MountPropagationFlags::from_bits_retain(change.propagation as u32);
        flags.set(MountPropagationFlags::REC, change.recursive);
        rustix::mount::mount_change(path, flags)?;
    }
    Ok(())
}

fn remount_one(mount: BorrowedFd<'_>, path: &Path, change: AttributeChange) -> Result<(), Errno> {
    let present = attributes_of(mount)?;
    but_locked(mount, change, |change| {
        let wanted = present & !change.clear | change.set;
        rustix::mount::mount_remount(path, old_flags(wanted) | MountFlags::BIND, c"")
    })
}

/// Applies a change. In a user namespace the kernel refuses to clear attributes that were set in a more privileged one
/// (`EPERM`): those are kept, and the rest of the change is applied.
fn but_locked(
    mount: BorrowedFd<'_>,
    change: AttributeChange,
    make: impl Fn(AttributeChange) -> Result<(), Errno>,
) -> Result<(), Errno> {
    match make(change) {
        Err(Errno::PERM) if change.clear != 0 => {
            // Access time attributes are locked together, and can only be changed together.
            let locked = attributes_of(mount)? | ATIME;
            make(AttributeChange { clear: change.clear & !locked, set: change.set & !ATIME, ..change })
        }
        other => other,
    }
}

/// Id of a mount in the kernel (Linux 5.8).
fn mount_id(mount: BorrowedFd<'_>) -> Result<u64, Errno> {
    Ok(fs::statx(mount, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Ids and paths of all mounts below an attached one, the outer ones first.
fn mounts_below(mount: BorrowedFd<'_>) -> Result<Vec<(u64, Vec<u8>)>, Errno> {
    // The thread's own table: its mount namespace may differ from that of the process.
    let table = std::fs::read("/proc/thread-self/mountinfo")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(paths_below(mount_id(mount)?, &table))
}

/// Ids and mount points below the mount with an id, from a table in the format of `/proc/self/mountinfo`.
fn paths_below(id: u64, table: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let rows: Vec<(u64, u64, &[u8])> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
            let (own, parent) = (number()?, number()?);
            Some((own, parent, fields.nth(2)?))
        })
        .collect();
    let mut found = Vec::new();
    let mut parents = vec![id];
    while let Some(parent) = parents.pop() {
        for (own, _, path) in rows.iter().filter(|(own, above, _)| *above == parent && own != above) {
            found.push((*own, unescaped(path)));
            parents.push(*own);
        }
    }
    found
}

/// Decodes the octal numbers that stand for blanks, tabs, line ends and backslashes in mount tables.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let digits = (*byte == b'\\').then(|| after.get(..3)).flatten();
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

/// `MOUNT_ATTR_…` bits that are set on a mount.
fn attributes_of(mount: BorrowedFd<'_>) -> Result<u64, Errno> {
    const NOSYMFOLLOW: StatVfsMountFlags = StatVfsMountFlags::from_bits_retain(0x2000);
    let flags = fs::fstatvfs(mount)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::RDONLY, READONLY),
        (StatVfsMountFlags::NOSUID, 0x2),
        (StatVfsMountFlags::NODEV, 0x4),
        (StatVfsMountFlags::NOEXEC, 0x8),
        (StatVfsMountFlags::NODIRATIME, 0x80),
        (NOSYMFOLLOW, 0x20_0000),
    ];
    let times =
        match (flags.contains(StatVfsMountFlags::NOATIME), flags.contains(StatVfsMountFlags::RELATIME)) {
            (true, _) => NOATIME,
            (false, true) => 0,
            (false, false) => STRICTATIME,
        };
    Ok(pairs.into_iter().filter(|(flag, _)| flags.contains(*flag)).fold(times, |bits, (_, bit)| bits | bit))
}

/// Options in the format of mount(2); `None` when they are longer than a page, or one of them contains a comma.
pub(crate) fn joined_options(options: &[(String, Option<String>)]) -> Option<CString> {
    const PAGE: usize = 4096;
    let mut joined = String::new();
    for (key, value) in options {
        if key.contains(',') || value.as_ref().is_some_and(|value| value.contains(',')) {
            return None;
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(key);
        if let Some(value) = value {
            joined.push('=');
            joined.push_str(value);
        }
    }
    (joined.len() < PAGE).then(|| Bytes::from(joined).to_c_string())
}

/// Converts `MOUNT_ATTR_…` bits to flags of mount(2).
pub(crate) fn old_flags(attributes: u64) -> MountFlags {
    let times = match attributes & ATIME {
        NOATIME => MountFlags::NOATIME,
        STRICTATIME => MountFlags::STRICTATIME,
        _ => MountFlags::RELATIME,
    };
    let pairs = [
        (READONLY, MountFlags::RDONLY),
        (0x2, MountFlags::NOSUID),
        (0x4, MountFlags::NODEV),
        (0x8, MountFlags::NOEXEC),
        (0x80, MountFlags::NODIRATIME),
        // `MS_NOSYMFOLLOW`, for which rustix has no name.
        (0x20_0000, MountFlags::from_bits_retain(256)),
    ];
    let set = pairs.into_iter().filter(|(bit, _)| attributes & bit != 0);
    set.fold(times, |flags, (_, flag)| flags | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_are_found_by_their_parents() {
        let table = b"\
20 1 0:20 / /sys rw - sysfs sysfs rw
21 20 0:21 / /sys/hidden rw - tmpfs tmpfs rw
30 20 0:30 / /sys rw - ext4 /dev/vda rw
31 30 0:31 / /sys/a\\040b rw - tmpfs tmpfs rw
32 31 0:32 / /sys/a\\040b/c\\134d rw shared:3 - tmpfs tmpfs rw
";
        let below = paths_below(30, table);
        assert_eq!(below, [(31, b"/sys/a b".to_vec()), (32, b"/sys/a b/c\\d".to_vec())]);
        assert_eq!(paths_below(32, table), []);
    }

    #[test]
    fn options_that_cannot_be_told_apart_are_not_joined() {
        let option = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        let joined = joined_options(&[option("mode", "755"), ("ro".to_owned(), None)]);
        assert_eq!(joined.as_deref(), Some(c"mode=755,ro"));
        assert_eq!(joined_options(&[option("upperdir", "/a,b")]), None);
        assert_eq!(joined_options(&[option("a", &"b".repeat(4094))]), None);
    }

    #[test]
    fn attributes_are_the_same_as_flags() {
        let flags = old_flags(READONLY | 0x8 | NOATIME);
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::NOATIME);
        assert_eq!(old_flags(0), MountFlags::RELATIME);
        assert_eq!(old_flags(STRICTATIME), MountFlags::STRICTATIME);
    }
}
