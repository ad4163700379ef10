//! Failures of operations on the store.

use super::content::BlobError;
use super::index::IndexError;
use crate::digest::{DiffId, Digest, ImageId};
use crate::layer::{ApplyError, DiffError};
use crate::manifest::ManifestError;
use crate::reference::ReferenceError;
use crate::sys::CallError;
use std::path::PathBuf;

/// Failure of an operation on the store.
///
/// Every operation may fail with the errors of system calls and of the index; their `# Errors` list the others.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be created or opened.
    #[error("cannot open the store `{path}`", path = .0.display())]
    Open(PathBuf, #[source] CallError),
    /// A system call failed.
    #[error("cannot access the store")]
    Call(#[from] CallError),
    /// An operation of the index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A blob cannot be read or stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A layer cannot be packed.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// A config is not JSON of the expected shape.
    #[error("image {0} has a malformed config")]
    Config(ImageId, #[source] serde_json::Error),
    /// A manifest is not JSON of the expected shape.
    #[error("image {0} has a malformed manifest")]
    Manifest(ImageId, #[source] ManifestError),
    /// There is no image with that reference or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The image to be removed has several tags.
    #[error("image {0} has several tags")]
    ManyTags(ImageId),
    /// The image has more layers than overlayfs can stack.
    #[error("the image has {layers} layers with files, and Linux stacks {most} of them at most (overlayfs)")]
    TooManyLayers {
        /// Number of layers with files.
        layers: usize,
        /// Largest number of layers.
        most: usize,
    },
    /// Several images have ids that begin with these digits.
    #[error("image id `{0}` is ambiguous: more than one image begins with it")]
    Ambiguous(String),
    /// A text is not a reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The content of a layer has another digest.
    #[error("layer does not match its digest: expected {expected}, got {actual}")]
    DiffIdMismatch {
        /// Diff id in the image's config.
        expected: DiffId,
        /// Diff id of the unpacked tar.
        actual: DiffId,
    },
    /// The bytes of a blob have changed since it was stored.
    #[error("blob {0} in the store is damaged: its bytes have changed since it was stored")]
    Damaged(Digest),
    /// A layer of an image was removed or damaged.
    #[error("layer {0} is missing from the store")]
    LayerMissing(DiffId),
    /// The layer was created here and has no blob.
    #[error("layer {0} was built here and has no blob")]
    NoBlob(String),
}

impl StoreError {
    /// True when this process, or the host, has too many open files.
    pub fn is_out_of_files(&self) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(at) = error {
            if let Some(call) = at.downcast_ref::<CallError>() {
                return matches!(call.errno, rustix::io::Errno::MFILE | rustix::io::Errno::NFILE);
            }
            error = at.source();
        }
        false
    }

    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::Open(_, error) | StoreError::Call(error) => error.is_full(),
            StoreError::Index(error) => error.is_full(),
            StoreError::Apply(error) => error.is_full(),
            StoreError::Diff(DiffError::Call(error)) => error.is_full(),
            StoreError::Blob(BlobError::Call(error)) => error.is_full(),
            _ => false,
        }
    }
}
