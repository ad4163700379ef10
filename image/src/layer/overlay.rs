//! Whiteouts and opaque directories in overlayfs' form.

use crate::sys;
use rustix::fd::BorrowedFd;
use rustix::fs::{self, FileType, Mode, XattrFlags};
use rustix::io::Errno;
use std::ffi::CStr;

const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// Creates the whiteout `name`.
pub(super) fn make_whiteout(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Makes a directory opaque.
pub(super) fn make_opaque(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}

/// True when a directory is opaque.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut value = [0u8; 1];
    match fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// True for attributes that belong to overlayfs: they are neither packed into nor unpacked from a tar.
pub(super) fn is_internal_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.")
}

/// Removes the file or tree at `name`, if there is one.
pub(super) fn clear(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    sys::remove_all(dir, name)
}

/// Removes the user attributes of a directory.
pub(super) fn clear_xattrs(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = [0u8; 4096];
    let length = match fs::flistxattr(dir, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::RANGE) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        // Labels of security modules belong to the host.
        if !is_internal_xattr(name.to_bytes()) && name.to_bytes().starts_with(b"user.") {
            fs::fremovexattr(dir, name)?;
        }
    }
    Ok(())
}
