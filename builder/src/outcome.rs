//! Result of a build.

use crate::inputs::Inputs;
use kiln_image::digest::{DiffId, ImageId};
use kiln_image::manifest::Descriptor;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;

/// Result of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Images by target in order, and for each target by platform in order.
    pub images: Vec<BuiltImage>,
    /// Bytes of the index over the images of the last target; `None` for a single platform.
    pub index: Option<Vec<u8>>,
    /// `SOURCE_DATE_EPOCH` in seconds since 1970; `None` without one.
    pub epoch: Option<i64>,
    /// Files of the host that the build depends on.
    pub inputs: Inputs,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// Image id: the digest of the config.
    pub id: ImageId,
    /// Descriptor of the manifest.
    pub manifest: Descriptor,
    /// Target platform of the image.
    pub platform: Platform,
    /// Index of the stage in the file.
    pub stage: usize,
    /// References that the image was tagged with.
    pub tags: Vec<Reference>,
    /// Diff ids of the layers, lowest first.
    pub diff_ids: Vec<DiffId>,
}

impl Outcome {
    /// Images of the last target, one for each platform.
    pub fn last(&self) -> &[BuiltImage] {
        let last = self.images.last().map(|image| image.stage);
        let first = self.images.iter().rposition(|image| Some(image.stage) != last).map_or(0, |at| at + 1);
        &self.images[first..]
    }

    /// Image of the last target for the host's platform, or the first of the last target.
    pub fn main(&self) -> &BuiltImage {
        let own = Platform::host();
        let last = self.last();
        last.iter().find(|image| image.platform == own).unwrap_or(&last[0])
    }

    /// Index, among these images, of the one for the host's platform, or of the first.
    pub(crate) fn host_image(&self, images: std::ops::Range<usize>) -> usize {
        let own = Platform::host();
        images.clone().find(|index| self.images[*index].platform == own).unwrap_or(images.start)
    }
}
