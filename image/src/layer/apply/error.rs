//! Failures of unpacking.

use super::MAX_KNOWN;
use crate::sys::CallError;
use crate::tar::TarError;
use std::path::PathBuf;

/// Failure to unpack a layer.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The stream is not a valid tar.
    #[error("cannot read the layer")]
    Tar(#[from] TarError),
    /// A file could not be created.
    #[error("cannot unpack the layer")]
    Call(#[from] CallError),
    /// The content of a file could not be read.
    #[error("cannot read `{path}` from the layer", path = .0.display())]
    Content(PathBuf, #[source] std::io::Error),
    /// A path leads out of the image.
    #[error("the layer contains a path outside of the image: `{path}`", path = .0.display())]
    Outside(PathBuf),
    /// A path leads through a file.
    #[error("`{path}` lies below something that is not a directory", path = .0.display())]
    NotADirectory(PathBuf),
    /// A path depends on the layers below.
    #[error("`{path}` depends on the layers below, which are missing", path = .0.display())]
    NeedsBelow(PathBuf),
    /// A hard link refers to a directory.
    #[error("`{path}` is a hard link to a directory", path = .0.display())]
    DirectoryLink(PathBuf),
    /// The target of a hard link does not exist.
    #[error("the archive contains a hard link to a file that is not in it: `{path}`", path = .0.display())]
    MissingLink(PathBuf),
    /// An extended attribute is too large for the file system.
    #[error(
        "cannot set the extended attribute `{name}` ({size} bytes) of `{path}`: the file system of the store does not hold that much",
        path = path.display()
    )]
    Attribute {
        /// Name of the attribute.
        name: String,
        /// Size of its value in bytes.
        size: usize,
        /// Path of the file.
        path: PathBuf,
    },
    /// A file would replace a directory.
    #[error("cannot overwrite directory `{path}` with non-directory", path = .0.display())]
    ReplacesDirectory(PathBuf),
    /// A directory would replace another file.
    #[error("cannot overwrite non-directory `{path}` with directory", path = .0.display())]
    ReplacesFile(PathBuf),
    /// The layer has too many directories to keep in memory.
    #[error("the archive contains too many directories: their paths take more than {} MiB", MAX_KNOWN >> 20)]
    TooManyDirectories,
    /// The name of a whiteout is empty or refers to its own directory.
    #[error("invalid whiteout `{path}`", path = .0.display())]
    Whiteout(PathBuf),
}

impl ApplyError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, ApplyError::Call(error) if error.is_full())
    }
}
