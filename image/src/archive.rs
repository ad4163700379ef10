//! Images as files to carry away: written by `save`, read by `load`.
//!
//! What is written is two formats at once, as Docker does it: an OCI image layout (`index.json`, `blobs/`)
//! and a docker-archive (`manifest.json` that points to the same blobs). Layers are not compressed, so that
//! their digests are the diff ids, unless somebody asks for that.

mod file;
mod load;
mod pack;
mod save;

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

/// Name of the containerd annotation that holds an image's whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// Name of the OCI annotation that holds its tag, or with some tools its name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why images cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call failed.
    #[error("cannot access the archive")]
    Call(#[from] CallError),
    /// The tar is broken, or cannot be read or written.
    #[error("cannot read or write the archive as a tar")]
    Tar(#[from] TarError),
    /// The stream cannot be read or decompressed.
    #[error("cannot read the archive")]
    Io(#[source] io::Error),
    /// An archive, or a file of a layout, that is no regular file.
    #[error("`{}` is {}, and must be a regular file", .0.display(), .1)]
    NotRegular(PathBuf, &'static str),
    /// Neither of the formats.
    #[error("the archive has neither a `manifest.json` nor an `index.json`: it is no image archive")]
    Unknown,
    /// A file that the archive names is not in it.
    #[error("the archive names `{0}`, and does not hold it")]
    Missing(String),
    /// A file is larger than such files are.
    #[error("`{0}` in the archive is larger than 8 MiB")]
    TooLarge(String),
    /// More files than an archive of images has.
    #[error("the archive holds too many files to be one of images")]
    TooManyFiles,
    /// A file is not JSON of the right shape.
    #[error("`{0}` in the archive is malformed")]
    Json(String, #[source] serde_json::Error),
    /// A manifest or index is not what it claims.
    #[error("`{0}` in the archive is malformed")]
    Manifest(String, #[source] ManifestError),
    /// Config and manifest disagree.
    #[error("image {image} has {layers} layers in the archive, and {diff_ids} in its config")]
    Layers {
        /// The image.
        image: ImageId,
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the config.
        diff_ids: usize,
    },
    /// Nothing in the index is for this host.
    #[error("no image in the archive is for {0}")]
    Platform(String),
    /// A directory for the answer that has something in it.
    #[error("`{path}` exists and is no empty directory", path = .0.display())]
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

/// Where an OCI layout has a blob.
fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1))
}

#[cfg(test)]
mod tests;
