//! Mounted trees without a path: file descriptors of detached mounts.

use crate::detached::{self, READONLY, Space};
use crate::host::{Feature, Host};
use crate::op::{Bytes, FilesystemMount, SetupError, Stage};
use crate::plan::{self, MountOptionError};
use crate::sys::{self, AttributeChange};
use oci_spec::runtime::Mount;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use tracing::debug;

const NOSUID: u64 = 0x2;
const NOEXEC: u64 = 0x8;

/// Failure to open a tree.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The mount has invalid options.
    #[error(transparent)]
    Options(#[from] MountOptionError),
    /// Mounting the file system failed.
    #[error("{0}")]
    Mount(SetupError),
}

/// Mounts a file system as a detached mount; it is unmounted when the file descriptor is closed.
///
/// No mount table shows it, and a killed program leaves no mount behind.
///
/// # Errors
/// [`ViewError::Mount`] contains the message of the kernel where it has one.
pub fn detached(mount: &Mount) -> Result<OwnedFd, ViewError> {
    let filesystem = plan::filesystem(mount)?;
    debug!(filesystem = filesystem.fstype, options = filesystem.options.len(), "detached mount");
    detached::filesystem(&filesystem, Space::Shared).map_err(|failed| {
        let failed = failed.mounting(&filesystem.fstype, &Bytes::from(mount.destination()));
        ViewError::Mount(failed.at(Stage::Setup))
    })
}

/// Mounts a file system like [`detached`]; returns several mounts of it.
///
/// # Errors
/// [`ViewError::Mount`] when it cannot be mounted, or not more than once.
pub fn several(mount: &Mount, count: usize) -> Result<Vec<OwnedFd>, ViewError> {
    if count <= 1 {
        return Ok(vec![detached(mount)?]);
    }
    let filesystem = plan::filesystem(mount)?;
    let made = detached::parts_of(&filesystem, |_| Ok(vec![".".to_owned(); count]));
    made.map_err(|errno| {
        ViewError::Mount(SetupError {
            stage: Stage::Setup,
            call: "mount".to_owned(),
            on: Bytes::from(filesystem.fstype.as_str()),
            errno: errno.raw_os_error(),
            message: None,
        })
    })
}

/// Attaches mounts inside a detached tree, each at its path inside the tree; returns a detached copy of all of it. A mount whose
/// path does not exist is left out.
///
/// # Errors
/// Fails when a path cannot be resolved inside the tree, or the kernel refuses a mount.
pub fn assembled(root: BorrowedFd<'_>, mounts: &[(OwnedFd, String)]) -> Result<OwnedFd, Errno> {
    detached::assembled(root, mounts)
}

/// Takes a detached copy of the file or directory at `path`, with the mounts below it when `recursive`.
pub fn copy(path: &std::path::Path, recursive: bool) -> Result<OwnedFd, Errno> {
    detached::copy(rustix::fs::CWD, &Bytes::from(path), recursive)
}

/// Like [`copy`], but a link at the end of the path is not followed.
pub fn copy_nofollow(path: &std::path::Path, recursive: bool) -> Result<OwnedFd, Errno> {
    detached::copy_nofollow(&Bytes::from(path), recursive)
}

/// Takes a detached copy of a directory in the mount namespace of the process `pidfd`.
///
/// # Errors
/// Fails when the process has ended, and in the cases of setns(2) and open_tree(2).
pub fn copy_of_process(pidfd: BorrowedFd<'_>, path: &std::path::Path) -> Result<OwnedFd, Errno> {
    use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
    let enter = || {
        // Root and working directory become separate for this thread, which ends here.
        sys::unshare(libc::CLONE_FS as u64)?;
        move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::MOUNT)?;
        copy(path, false)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, enter);
        let thread = thread.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        thread.join().unwrap_or(Err(Errno::IO))
    })
}

/// Cuts a detached mount, and those below it, off from the peers of their originals.
///
/// # Errors
/// Fails in the cases of mount_setattr(2).
pub fn cut_off(mount: OwnedFd) -> Result<OwnedFd, Errno> {
    let change =
        AttributeChange { propagation: libc::MS_PRIVATE, recursive: true, ..AttributeChange::default() };
    detached::attributes(mount, change, Space::Shared)
}

/// Cuts a detached mount off like [`cut_off`], and makes it writable if it was read-only.
///
/// # Errors
/// Fails in the cases of mount_setattr(2).
pub fn cut_off_writable(mount: OwnedFd) -> Result<OwnedFd, Errno> {
    let change =
        AttributeChange { clear: READONLY, propagation: libc::MS_PRIVATE, ..AttributeChange::default() };
    detached::attributes(mount, change, Space::Shared)
}

/// Opens a directory so that it cannot be written to through the descriptor, and its `..` leads nowhere: it is the root
/// of a detached mount.
pub fn open_confined(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
    detached::attributes(copy(path, false)?, change, Space::Shared)
}

/// Maps the owners of files on a detached mount as a user namespace does; `recursive` includes all mounts below.
///
/// # Errors
/// `EINVAL` when the kernel does not support that for this file system, `ENOSYS` when it does not support it at all
/// ([`Feature::IdmappedMounts`]).
pub fn map_owners(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    if !Host::get().has(Feature::IdmappedMounts) {
        return Err(Errno::NOSYS);
    }
    sys::map_owners(mount, namespace, recursive)
}

/// Detached mount of a device node of the host, restricted to being a device. Its owner and mode are read-only; writing
/// to the device itself stays possible.
pub fn host_node(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let change = AttributeChange { set: READONLY | NOSUID | NOEXEC, ..AttributeChange::default() };
    detached::attributes(copy(path, false)?, change, Space::Shared)
}

/// A device node, for a container that cannot create it itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Kind of node: `b`, `c` or `p`.
    pub kind: char,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Permission bits of the node.
    pub mode: u32,
    /// Owner's uid and gid in the user namespace of this process.
    pub owner: (u32, u32),
}

/// Creates device nodes on a file system that no mount table shows, and returns each as a detached mount, restricted to
/// being a device.
///
/// Only for programs with one thread: the mask for new files, which the whole process shares, is empty during the call.
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

/// A file in memory, for a container.
#[derive(Clone)]
pub struct MemoryFile {
    /// Content of the file.
    pub content: Vec<u8>,
    /// Permission bits of the file.
    pub mode: u32,
    /// Owner's uid and gid in the user namespace of this process.
    pub owner: (u32, u32),
}

/// Creates files on a file system in memory that no mount table shows, and returns each as a detached mount.
///
/// # Errors
/// Fails when there can be no such file system, and when the memory is full.
pub fn files(files: &[MemoryFile]) -> Result<Vec<OwnedFd>, ViewError> {
    let directory = FilesystemMount {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: vec![("mode".to_owned(), Some("700".to_owned()))],
        attributes: NOSUID | NOEXEC,
    };
    let made = detached::parts_of(&directory, |directory| {
        files.iter().enumerate().map(|(index, file)| file.make(directory, index.to_string())).collect()
    });
    made.map_err(|errno| {
        ViewError::Mount(SetupError {
            stage: Stage::Setup,
            call: "write".to_owned(),
            on: Bytes::from("file in memory"),
            errno: errno.raw_os_error(),
            message: None,
        })
    })
}

impl MemoryFile {
    /// Creates the file in a directory; returns its name.
    fn make(&self, directory: BorrowedFd<'_>, name: String) -> Result<String, Errno> {
        use rustix::fs::{Gid, Mode, OFlags, Uid};
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, &name, flags, Mode::from_raw_mode(0o600))?;
        let mut left = self.content.as_slice();
        while !left.is_empty() {
            left = &left[rustix::io::write(&file, left)?..];
        }
        rustix::fs::fchown(&file, Some(Uid::from_raw(self.owner.0)), Some(Gid::from_raw(self.owner.1)))?;
        // A change of owner clears the setuid and setgid bits.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode))?;
        Ok(name)
    }
}

impl Node {
    /// Creates the node in a directory; returns its name.
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
            // A change of owner clears the setuid and setgid bits.
            rustix::fs::chmodat(directory, &name, mode, AtFlags::empty())?;
        }
        Ok(name)
    }
}
