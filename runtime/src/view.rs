//! A mounted tree that nobody else sees: a handle instead of a place.

use crate::init::make_filesystem;
use crate::op::{Bytes, SetupError, Stage};
use crate::plan::{self, MountOptionError};
use crate::sys::{self, AttributeChange};
use oci_spec::runtime::Mount;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

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
    make_filesystem(&filesystem).map_err(|failed| {
        let failed = failed.mounting(&filesystem.fstype, &Bytes::from(mount.destination()));
        ViewError::Mount(failed.at(Stage::Setup))
    })
}

/// A detached copy of what is at `path`, with the mounts below it when `recursive`.
pub fn copy(path: &std::path::Path, recursive: bool) -> Result<OwnedFd, rustix::io::Errno> {
    crate::init::copy_tree(rustix::fs::CWD, &Bytes::from(path), recursive)
}

/// As [`copy`], but a path that ends with a link stands for the link.
pub fn copy_itself(path: &std::path::Path, recursive: bool) -> Result<OwnedFd, rustix::io::Errno> {
    crate::init::copy_itself(&Bytes::from(path), recursive)
}

/// A handle on a folder through which nothing can be written, and whose `..` leads nowhere: it is the top of a mount that
/// nobody sees.
pub fn fenced(path: &std::path::Path) -> Result<OwnedFd, rustix::io::Errno> {
    const READONLY: u64 = 1;
    let mount = copy(path, false)?;
    let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
    sys::set_attributes(mount.as_fd(), change)?;
    Ok(mount)
}

/// Shows the owners of files on a detached mount as a user namespace maps them; `recursive` for all mounts below
/// too. `EINVAL` says that the kernel cannot do that for this file system.
pub fn map_owners(
    mount: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), rustix::io::Errno> {
    sys::map_owners(mount, namespace, recursive)
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

/// Makes device nodes on a file system that nobody sees, and gives each as a detached mount: a device and nothing else.
///
/// For a program with one thread: others would make files without a mask meanwhile.
pub fn nodes(nodes: &[Node]) -> Result<Vec<OwnedFd>, ViewError> {
    use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
    let mut folder = Mount::default();
    folder
        .set_destination("/dev".into())
        .set_typ(Some("tmpfs".to_owned()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(vec!["nosuid".to_owned(), "noexec".to_owned(), "mode=700".to_owned()]));
    let folder = detached(&folder)?;
    let failed = |call: &'static str| {
        move |errno: rustix::io::Errno| {
            ViewError::Mount(SetupError {
                stage: Stage::Setup,
                call: call.to_owned(),
                on: Bytes::from("device node"),
                errno: errno.raw_os_error(),
                message: None,
            })
        }
    };
    let make = |(index, node): (usize, &Node)| {
        let name = index.to_string();
        let kind = match node.kind {
            'b' => FileType::BlockDevice,
            'p' => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let device = rustix::fs::makedev(node.device.0, node.device.1);
        let mode = Mode::from_raw_mode(node.mode);
        rustix::fs::mknodat(&folder, &name, kind, mode, device).map_err(failed("mknod"))?;
        if node.owner != (0, 0) {
            let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
            rustix::fs::chownat(&folder, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("chown"))?;
            // A change of owner takes special bits away.
            rustix::fs::chmodat(&folder, &name, mode, AtFlags::empty()).map_err(failed("chmod"))?;
        }
        crate::init::copy_tree(folder.as_fd(), &Bytes::from(name), false).map_err(failed("open_tree"))
    };
    let mask = rustix::process::umask(Mode::empty());
    let made = nodes.iter().enumerate().map(make).collect();
    rustix::process::umask(mask);
    made
}
