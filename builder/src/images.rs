//! Images that a Dockerfile names: their data for plans, and the trait that finds them.
//!
//! The builder has no network: the caller of a build brings an implementation of [`Images`].

use kiln_image::config::ImageConfig;
use kiln_image::digest::{DiffId, Digest};
use kiln_image::manifest::Descriptor;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use std::collections::BTreeMap;

/// Finds images by name: in the store, or in a registry.
///
/// A build needs an implementation that fetches the layers into the store; a check and a plan need configs alone.
pub trait Images: Sync {
    /// Resolves an image for a platform. May be called from several threads at once; `progress` receives the layers
    /// that are being fetched.
    ///
    /// # Errors
    /// Fails when the image does not exist, has no variant for the platform, or cannot be fetched.
    fn resolve(
        &self,
        name: &Reference,
        platform: &Platform,
        progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<BaseImage, ImageError>;
}

/// Error of an [`Images`] or [`Remote`](crate::remote::Remote): it belongs to the crate that implements them.
pub type ImageError = Box<dyn std::error::Error + Send + Sync>;

/// State of a blob that is being fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobProgress {
    /// Digest of the blob.
    pub digest: Digest,
    /// Number of bytes received.
    pub current: u64,
    /// Size of the blob in bytes.
    pub total: u64,
}

/// An image that stages start from or copy from.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseImage {
    /// Full reference, with the digest if the image came from a registry.
    pub reference: String,
    /// Config of the image.
    pub config: ImageConfig,
    /// Descriptors of the layers, with OCI's media types; empty when only the config was fetched.
    pub layers: Vec<Descriptor>,
}

impl BaseImage {
    /// Image from the reference that was requested, its digest in the registry, its config, and the layers of its
    /// manifest.
    pub fn new(
        name: &Reference,
        digest: Option<Digest>,
        config: ImageConfig,
        layers: Vec<Descriptor>,
    ) -> BaseImage {
        let reference = match digest {
            Some(digest) => name.clone().with_digest(digest),
            None => name.clone(),
        };
        let layers = layers.into_iter().map(Descriptor::as_oci).collect();
        BaseImage { reference: reference.to_string(), config, layers }
    }

    /// Diff ids of the layers, lowest first.
    pub(crate) fn diff_ids(&self) -> &[DiffId] {
        &self.config.rootfs.diff_ids
    }
}

/// Base images by their name in the Dockerfile and the platform.
pub type BaseImages = BTreeMap<(String, Platform), BaseImage>;
