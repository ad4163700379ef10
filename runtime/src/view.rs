//! A mounted tree that nobody else sees: a handle instead of a place.

use crate::init::make_filesystem;
use crate::op::{Bytes, SetupError, Stage};
use crate::plan::{self, MountOptionError};
use oci_spec::runtime::Mount;
use rustix::fd::OwnedFd;

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
        let mut error = failed.at(Stage::Setup);
        error.on = Bytes::from(mount.destination());
        ViewError::Mount(error)
    })
}

/// A detached copy of what is at `path`, with the mounts below it when `recursive`.
pub fn copy(path: &std::path::Path, recursive: bool) -> Result<OwnedFd, rustix::io::Errno> {
    crate::init::copy_tree(rustix::fs::CWD, &Bytes::from(path), recursive)
}
