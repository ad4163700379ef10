//! Copies into a tmpfs the content that it covers (`tmpcopyup`).

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;

/// Depth limit of a copied tree; no legitimate tree is deeper.
const MAX_DEPTH: usize = 256;

/// Copies the content of a directory into another, both by file descriptors; links are not followed. Owner and mode of
/// the target directory itself stay as mounted.
pub(super) fn dir(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = fs::openat(from, c".", flags, Mode::empty())?;
    let to = fs::openat(to, c".", flags, Mode::empty())?;
    content(from.as_fd(), to.as_fd(), 0)
}

fn content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            copy(from, to, entry.file_name(), depth)?;
        }
    }
    Ok(())
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
    let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode);
    let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match kind {
        FileType::Directory => {
            fs::mkdirat(to, name, mode)?;
            let flags = reading | OFlags::DIRECTORY;
            let inner_from = fs::openat(from, name, flags, Mode::empty())?;
            let inner_to = fs::openat(to, name, flags, Mode::empty())?;
            content(inner_from.as_fd(), inner_to.as_fd(), depth + 1)?;
        }
        FileType::Symlink => {
            let target = fs::readlinkat(from, name, Vec::new())?;
            fs::symlinkat(&target, to, name)?;
        }
        FileType::RegularFile => {
            let mut source = File::from(fs::openat(from, name, reading | OFlags::NONBLOCK, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = File::from(fs::openat(to, name, flags, mode)?);
            std::io::copy(&mut source, &mut target)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        _ => fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // A change of owner clears the setuid and setgid bits.
    if kind != FileType::Symlink {
        fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    Ok(())
}
