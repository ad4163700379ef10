//! Image archives: written by `save`, read by `load`.
//!
//! An archive has two formats at once, as Docker's do: an OCI image layout (`index.json`, `blobs/`) and a
//! docker-archive (`manifest.json`, which refers to the same blobs). Layers are not compressed unless requested, so
//! their digests are the diff ids.

mod file;
mod import;
mod load;
mod pack;
mod save;

pub use import::{ImportOptions, import};
pub use load::{Loaded, load, load_layout, load_stream};
pub use pack::{Compression, PackOptions, PackedImage, PackedLayer, pack};
pub use save::{IndexRequest, SaveRequest, save_dir, save_index_dir, save_index_tar, save_tar};

use crate::digest::{Digest, ImageId};
use crate::manifest::ManifestError;
use crate::store::StoreError;
use crate::sys::CallError;
use crate::tar::TarError;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// Name of the containerd annotation with an image's whole reference.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// Name of the OCI annotation with an image's tag; with some tools, its reference.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Failure to save or load images.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// An operation of the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call failed.
    #[error("cannot access the archive")]
    Call(#[from] CallError),
    /// The tar is malformed, or cannot be read or written.
    #[error("cannot read or write the archive as a tar")]
    Tar(#[from] TarError),
    /// The stream cannot be read or decompressed.
    #[error("cannot read the archive")]
    Io(#[source] io::Error),
    /// An archive, or a file of a layout, is not a regular file; with its actual kind.
    #[error("`{}` is {}, and must be a regular file", .0.display(), .1)]
    NotRegular(PathBuf, &'static str),
    /// The archive has neither of the formats.
    #[error("the archive has neither a `manifest.json` nor an `index.json`: it is not an image archive")]
    Unknown,
    /// A file that the archive refers to is not in it.
    #[error("the archive refers to `{0}` and does not contain it")]
    Missing(String),
    /// A config, manifest or index is too large.
    #[error("`{0}` in the archive is larger than 8 MiB")]
    TooLarge(String),
    /// The archive has more files than archives of images have.
    #[error("the archive has too many files for an archive of images")]
    TooManyFiles,
    /// A file is not JSON of the expected shape.
    #[error("`{0}` in the archive is malformed")]
    Json(String, #[source] serde_json::Error),
    /// A manifest or index is malformed.
    #[error("`{0}` in the archive is malformed")]
    Manifest(String, #[source] ManifestError),
    /// Config and manifest have different numbers of layers.
    #[error("image {image} has {layers} layers in the archive, and {diff_ids} in its config")]
    Layers {
        /// Id of the image.
        image: ImageId,
        /// Number of layers in the manifest.
        layers: usize,
        /// Number of diff ids in the config.
        diff_ids: usize,
    },
    /// The index has no image for this host's platform.
    #[error("no image in the archive is for {0}")]
    Platform(String),
    /// The target directory exists and is not empty.
    #[error("`{path}` exists and is not an empty directory", path = .0.display())]
    NotEmpty(PathBuf),
}

impl ArchiveError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            ArchiveError::Store(error) => error.is_full(),
            ArchiveError::Call(error) => error.is_full(),
            ArchiveError::Tar(TarError::Io(_, error)) | ArchiveError::Io(error) => {
                error.kind() == io::ErrorKind::StorageFull
            }
            _ => false,
        }
    }
}

/// An entry of `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Path of a blob in an OCI layout.
fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1))
}

#[cfg(test)]
mod tests;
