//! Mount calls that rustix lacks.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

/// Changes to a mount's attributes: `MOUNT_ATTR_…` bits and `MS_…` propagation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttributeChange {
    /// Bits to set.
    pub(crate) set: u64,
    /// Bits to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE` and the like, or 0.
    pub(crate) propagation: u64,
    /// Applies to all mounts below too.
    pub(crate) recursive: bool,
}

/// `struct mount_attr` (Linux 5.12).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the attributes of the mount that `mount` is the root of.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, change: AttributeChange) -> Result<(), Errno> {
    let attr =
        MountAttr { set: change.set, clear: change.clear, propagation: change.propagation, userns_fd: 0 };
    let recursive = if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, which AT_EMPTY_PATH allows; `attr` is a live `mount_attr` of the
    // size given and is only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(&attr),
            std::mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
