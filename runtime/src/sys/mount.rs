//! Mount calls that rustix lacks.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

/// Changes to a mount's attributes: `MOUNT_ATTR_…` bits and `MS_…` propagation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttributeChange {
    /// `MOUNT_ATTR_…` bits to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_…` bits to clear.
    pub(crate) clear: u64,
    /// Propagation such as `MS_PRIVATE`, or 0.
    pub(crate) propagation: u64,
    /// Applies to all mounts below as well.
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

/// Maps the owners of files on a detached mount as a user namespace does (Linux 5.12).
pub(crate) fn map_owners(
    mount: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), Errno> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    setattr(mount, &attr, recursive)
}

/// Changes the attributes of the mount whose root is `mount`.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, change: AttributeChange) -> Result<(), Errno> {
    let attr =
        MountAttr { set: change.set, clear: change.clear, propagation: change.propagation, userns_fd: 0 };
    setattr(mount, &attr, change.recursive)
}

fn setattr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<(), Errno> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, which AT_EMPTY_PATH allows; `attr` is a live `mount_attr` of the
    // size given and is only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attr),
            std::mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
