//! A mounted tree that nobody else sees: a handle instead of a place.

use crate::detached::{self, READONLY, Space};
use crate::host::{Feature, Host};
use crate::op::{Bytes, FilesystemMount, SetupError, Stage};
use crate::plan::{self, MountOptionError};
use crate::sys::{self, AttributeChange};
use oci_spec::runtime::Mount;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;

const NOSUID: u64 = 0x2;
const NOEXEC: u64 = 0x8;

/// Why a tree cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The mount cannot be read.
    #[error(transparent)]
    Options(#[from] MountOptionError),
    /// The mount failed.
    #[error("{0}")]
    Mount(SetupError),
}

/// Mounts a file system without attaching it anywhere; it is unmounted when the handle is closed.
///
/// No mount table shows it, and a killed program leaves nothing behind.
pub fn detached(mount: &Mount) -> Result<OwnedFd, ViewError> {
    let filesystem = plan::filesystem(mount)?;
    detached::filesystem(&filesystem, Space::Shared).map_err(|failed| {
        let failed = failed.mounting(&filesystem.fstype, &Bytes::from(mount.destination()));
        ViewError::Mount(failed.at(Stage::Setup))
    })
}

/// A detached copy of what is at `path`, with the mounts below it when `recursive`.
pub fn copy(path: &std::path::Path, recursive: bool) -> Result<OwnedFd, Errno> {
    detached::copy(rustix::fs::CWD, &Bytes::from(path), recursive)
}

/// As [`copy`], but a path that ends with a link stands for the link.
pub fn copy_itself(path: &std::path::Path, recursive: bool) -> Result<OwnedFd, Errno> {
    detached::copy_itself(&Bytes::from(path), recursive)
}

/// Cuts a detached mount, and those below it, off from the mounts that they are copies of.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn cut_off(mount: OwnedFd) -> Result<OwnedFd, Errno> {
    let change =
        AttributeChange { propagation: libc::MS_PRIVATE, recursive: true, ..AttributeChange::default() };
    detached::attributes(mount, change, Space::Shared)
}

/// A handle on a directory through which nothing can be written, and whose `..` leads nowhere: it is the top of a mount that
/// nobody sees.
pub fn fenced(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
    detached::attributes(copy(path, false)?, change, Space::Shared)
}

/// Shows the owners of files on a detached mount as a user namespace maps them; `recursive` for all mounts below
/// too.
///
/// # Errors
/// `EINVAL` when the kernel cannot do that for this file system, `ENOSYS` when it cannot do it at all
/// ([`Feature::IdmappedMounts`]).
pub fn map_owners(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    if !Host::get().has(Feature::IdmappedMounts) {
        return Err(Errno::NOSYS);
    }
    sys::map_owners(mount, namespace, recursive)
}

/// A detached mount of a device node of the host: a device and nothing else. Read-only protects its owner and mode; writing to
/// the device itself stays possible.
pub fn host_node(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let change = AttributeChange { set: READONLY | NOSUID | NOEXEC, ..AttributeChange::default() };
    detached::attributes(copy(path, false)?, change, Space::Shared)
}

/// A device node, for a container that can make none itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `b`, `c` or `p`.
    pub kind: char,
    /// Major and minor number.
    pub device: (u32, u32),
    /// Permissions.
    pub mode: u32,
    /// Owner and group, as this process knows them.
    pub owner: (u32, u32),
}

/// Makes device nodes on a file system that no mount table shows, and returns each as a detached mount: a device and
/// nothing else.
///
/// For programs with one thread only: the mask for new files, which is the whole process's, is empty while this runs.
pub fn nodes(nodes: &[Node]) -> Result<Vec<OwnedFd>, ViewError> {
    let directory = FilesystemMount {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: vec![("mode".to_owned(), Some("700".to_owned()))],
        attributes: NOSUID | NOEXEC,
    };
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    let made = detached::parts_of(&directory, |directory| {
        rustix::process::umask(rustix::fs::Mode::empty());
        nodes.iter().enumerate().map(|(index, node)| node.make(directory, index.to_string())).collect()
    });
    rustix::process::umask(mask);
    made.map_err(|errno| {
        ViewError::Mount(SetupError {
            stage: Stage::Setup,
            call: "mknod".to_owned(),
            on: Bytes::from("device node"),
            errno: errno.raw_os_error(),
            message: None,
        })
    })
}

impl Node {
    /// Makes the node in a directory; returns its name.
    fn make(&self, directory: BorrowedFd<'_>, name: String) -> Result<String, Errno> {
        use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
        let kind = match self.kind {
            'b' => FileType::BlockDevice,
            'p' => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let device = rustix::fs::makedev(self.device.0, self.device.1);
        let mode = Mode::from_raw_mode(self.mode);
        rustix::fs::mknodat(directory, &name, kind, mode, device)?;
        if self.owner != (0, 0) {
            let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
            rustix::fs::chownat(directory, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            // A change of owner takes special bits away.
            rustix::fs::chmodat(directory, &name, mode, AtFlags::empty())?;
        }
        Ok(name)
    }
}
