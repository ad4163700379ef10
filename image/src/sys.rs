//! File system calls whose errors name call, path and errno.
//!
//! All of them work on directory handles and single names, so that renames and links by other processes cannot redirect
//! a path between two steps.

mod descent;

pub use descent::Descent;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// A failed system call.
#[derive(Debug, thiserror::Error)]
#[error("{call} `{path}`", path = path.display())]
pub struct CallError {
    /// Name of the call.
    pub call: &'static str,
    /// Path of the file.
    pub path: PathBuf,
    /// Error number of the call.
    #[source]
    pub errno: Errno,
}

impl CallError {
    /// True when the file does not exist.
    pub fn is_not_found(&self) -> bool {
        self.errno == Errno::NOENT
    }

    /// True when the disk or the quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self.errno, Errno::NOSPC | Errno::DQUOT)
    }
}

/// Result of a system call.
pub type Call<T> = Result<T, CallError>;

/// Conversion of errors into [`CallError`].
pub trait Named<T> {
    /// Adds the name of the call and the path to an error.
    fn call(self, call: &'static str, path: impl AsRef<Path>) -> Call<T>;
}

impl<T> Named<T> for Result<T, Errno> {
    fn call(self, call: &'static str, path: impl AsRef<Path>) -> Call<T> {
        self.map_err(|errno| CallError { call, path: path.as_ref().to_owned(), errno })
    }
}

impl<T> Named<T> for std::io::Result<T> {
    fn call(self, call: &'static str, path: impl AsRef<Path>) -> Call<T> {
        self.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            CallError { call, path: path.as_ref().to_owned(), errno }
        })
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Opens a directory by path.
///
/// # Errors
/// Fails when the path is not a directory.
pub fn open_dir(path: &Path) -> Call<OwnedFd> {
    fs::open(path, DIRECTORY - OFlags::NOFOLLOW, Mode::empty()).call("open", path)
}

/// Opens the directory `name` in `dir`; links are not followed.
///
/// # Errors
/// `ENOTDIR` or `ELOOP` for other files.
pub fn open_dir_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, DIRECTORY, Mode::empty())
}

/// Number of attempts for a path while files are renamed: then the kernel may not be able to resolve it.
const MAX_TRIES: usize = 1024;

/// Opens a path below `dir` without following links, not even the last one; with `PATH` a link itself is opened.
///
/// # Errors
/// `ELOOP` when a name is a link, otherwise as open(2).
pub fn open_below(dir: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    // With O_PATH and O_NOFOLLOW a link at the end is opened itself, which NO_SYMLINKS allows.
    let resolve = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..MAX_TRIES {
        match fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a regular file of `dir` for reading; links are not followed, and FIFOs do not block.
///
/// # Errors
/// `ELOOP` for a link, otherwise as open(2).
pub fn open_file_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Opens a regular file of `dir` for reading; `None` when the name is another kind of file, which is not opened: opening a
/// device may have effects.
///
/// # Errors
/// Fails as openat(2).
pub(crate) fn open_regular_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    use std::os::fd::AsRawFd;
    let handle = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if file_type(&fs::fstat(&handle)?) != fs::FileType::RegularFile {
        return Ok(None);
    }
    // The path is that of the handle: no other file can take its place.
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Some)
}

/// Metadata of `name` in `dir` without following links; `None` when it does not exist.
///
/// # Errors
/// Fails as fstatat(2) in other cases.
pub fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<Stat>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Names in a directory, sorted by bytes, without `.` and `..`.
pub fn sorted_names(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = some_names(dir, usize::MAX)?;
    names.sort_unstable();
    Ok(names)
}

/// Names like [`sorted_names`]; none for a directory that was removed after it was opened.
pub(crate) fn names_if_any(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    match sorted_names(dir) {
        Err(Errno::NOENT) => Ok(Vec::new()),
        names => names,
    }
}

/// True when a directory is empty.
pub fn is_empty_dir(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(some_names(dir, 1)?.is_empty())
}

/// At most `most` names in a directory, in no particular order, without `.` and `..`.
fn some_names(dir: BorrowedFd<'_>, most: usize) -> Result<Vec<CString>, Errno> {
    let fresh = fs::openat(dir, c".", DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(fresh.as_fd(), &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() >= most {
            break;
        }
    }
    Ok(names)
}

/// Removes `name` in `dir` with everything below it, if it exists.
///
/// # Errors
/// `EPERM` for immutable files, otherwise as unlinkat(2).
pub fn remove_all(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let inner = match open_dir_at(dir, name) {
        Ok(inner) => inner,
        Err(Errno::NOENT) => return Ok(()),
        // The file is not a directory and cannot be removed: it may be immutable.
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
        Err(errno) => return Err(errno),
    };
    empty(Descent::new(inner))?;
    gone(fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
}

/// Removes everything below the top of a walk. Names are read a few at a time, since a directory may have more than fit
/// into memory.
fn empty(mut way: Descent) -> Result<(), Errno> {
    const AT_ONCE: usize = 1024;
    let mut entered: Vec<CString> = Vec::new();
    let mut pending = vec![some_names(way.here(), AT_ONCE)?];
    while let Some(names) = pending.last_mut() {
        if let Some(name) = names.pop() {
            match fs::unlinkat(way.here(), &name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => match way.enter(&name) {
                    Ok(()) => {
                        entered.push(name);
                        pending.push(some_names(way.here(), AT_ONCE)?);
                    }
                    Err(Errno::NOENT) => {}
                    Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
                    Err(errno) => return Err(errno),
                },
                removed => gone(removed)?,
            }
            continue;
        }
        *names = some_names(way.here(), AT_ONCE)?;
        if names.is_empty() {
            pending.pop();
            let Some(name) = entered.pop() else { break };
            way.leave()?;
            gone(fs::unlinkat(way.here(), &name, AtFlags::REMOVEDIR))?;
        }
    }
    Ok(())
}

/// Treats files that do not exist any more as removed.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

/// Removes a path with everything below it, if it exists.
pub fn remove_path(path: &Path) -> Call<()> {
    let Some((dir, name)) = parent_and_name(path) else { return Ok(()) };
    let dir = match open_dir(dir) {
        Ok(dir) => dir,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    remove_all(dir.as_fd(), &name).call("remove", path)
}

fn parent_and_name(path: &Path) -> Option<(&Path, CString)> {
    use std::os::unix::ffi::OsStrExt;
    let name = CString::new(path.file_name()?.as_bytes()).ok()?;
    Some((path.parent()?, name))
}

/// True when the file system of a file is not full: it has space for some more blocks and files.
pub(crate) fn has_room(file: BorrowedFd<'_>) -> bool {
    const ROOM: u64 = 1 << 20;
    fs::fstatvfs(file).is_ok_and(|found| {
        // File systems that create inodes on demand report none.
        let has_inodes = found.f_files == 0 || found.f_favail > 8;
        has_inodes && found.f_bavail.saturating_mul(found.f_frsize) >= ROOM
    })
}

/// Uid and gid for chown(2), in which the largest 32-bit number means "no change".
pub fn owner(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    let is_change = |id: &u32| *id != u32::MAX;
    (Some(uid).filter(is_change).map(Uid::from_raw), Some(gid).filter(is_change).map(Gid::from_raw))
}

/// Sets owner and group of a file without following links.
pub(crate) fn chown_at(dir: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = owner(uid, gid);
    fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the permission bits of a file through a handle; a link fails with `ELOOP`.
#[expect(clippy::disallowed_methods, reason = "the path is that of a handle on what is no link")]
pub(crate) fn chmod_at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let file = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if file_type(&fs::fstat(&file)?) == fs::FileType::Symlink {
        return Err(Errno::LOOP);
    }
    // fchmod refuses such handles, and fchmodat2 requires Linux 6.6.
    let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::chmod(handle.as_str(), Mode::from_raw_mode(mode & 0o7777))
}

/// Sets the modification and access time without following links.
#[expect(clippy::disallowed_methods, reason = "one name in an opened directory, and no link is followed")]
pub(crate) fn set_mtime_at(dir: BorrowedFd<'_>, name: &CStr, seconds: i64, nanos: u32) -> Result<(), Errno> {
    fs::utimensat(dir, name, &timestamps(seconds, nanos), AtFlags::SYMLINK_NOFOLLOW)
}

/// Timestamps with both times set to one instant.
pub fn timestamps(seconds: i64, nanos: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// True when something is mounted at `name` in `dir`; false where the kernel does not report that (before Linux 5.8).
pub(crate) fn is_mount(dir: BorrowedFd<'_>, name: &CStr) -> bool {
    let found = fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, fs::StatxFlags::TYPE);
    found.is_ok_and(|found| found.stx_attributes.contains(fs::StatxAttributes::MOUNT_ROOT))
}

/// Type of a file.
pub fn file_type(stat: &Stat) -> fs::FileType {
    fs::FileType::from_raw_mode(stat.st_mode)
}

/// True for a whiteout of overlayfs: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == fs::FileType::CharacterDevice && stat.st_rdev == 0
}
