//! Images and their tags.

use super::index::{self, ImageRecord, TagRecord};
use super::{Stack, Store, StoreError};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::manifest::{Manifest, ManifestError, ManifestOrIndex};
use crate::reference::{Reference, ReferenceError};

/// An image with its config.
#[derive(Clone, Debug)]
pub struct Image {
    /// Record of the image in the index.
    pub record: ImageRecord,
    /// Config of the image.
    pub config: ImageConfig,
}

impl Store {
    /// Stores an image whose layers are in the store; returns its id.
    ///
    /// The bytes of `manifest` and `config` are stored unchanged.
    ///
    /// # Errors
    /// Fails when a layer is missing, the config is malformed, or writing fails.
    pub fn put_image(&self, manifest: &[u8], media_type: &str, config: &[u8]) -> Result<ImageId, StoreError> {
        let id = ImageId(self.blobs.put(config)?);
        let parsed = ImageConfig::parse(config).map_err(|error| StoreError::Config(id.clone(), error))?;
        let mut size = 0;
        let mut stack = Stack::empty();
        for layer in self.layers_of(&parsed.rootfs.diff_ids)? {
            size += layer.size;
            self.push_record(&mut stack, &layer);
        }
        stack.check()?;
        let record = ImageRecord {
            id: id.clone(),
            manifest: self.blobs.put(manifest)?,
            media_type: media_type.to_owned(),
            created: parsed.created.clone().unwrap_or_default(),
            size,
        };
        self.record_change();
        self.index.put_image(&record, &parsed.rootfs.diff_ids)?;
        Ok(id)
    }

    /// Points `reference` to an image; the image that it referred to before is not removed.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] when the image was removed, otherwise failures of the index.
    pub fn tag(&self, reference: &Reference, image: &ImageId) -> Result<(), StoreError> {
        let reference = reference.with_tag(reference.tag().unwrap_or("latest"));
        self.record_change();
        if !self.index.set_tag(&reference.to_string(), image, index::now())? {
            return Err(StoreError::NoSuchImage(image.to_string()));
        }
        self.write_layout_index()
    }

    /// Removes a tag and nothing else.
    pub fn untag(&self, reference: &str) -> Result<(), StoreError> {
        self.record_change();
        self.making_room(|| Ok(self.index.remove_tag(reference)?))?;
        self.making_room(|| self.write_layout_index())
    }

    /// Records the digest of an image in a registry's repository.
    pub fn add_repo_digest(
        &self,
        image: &ImageId,
        repository: &str,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        Ok(self.index.add_repo_digest(image, repository, digest)?)
    }

    /// Digests of an image in registries, as pairs of repository and digest.
    pub fn repo_digests(&self, image: &ImageId) -> Result<Vec<(String, Digest)>, StoreError> {
        Ok(self.index.repo_digests(image)?)
    }

    /// Image that a reference refers to; `None` when the store does not have it.
    pub fn find(&self, reference: &Reference) -> Result<Option<ImageRecord>, StoreError> {
        let id = match reference.digest() {
            Some(digest) => self.index.image_by_repo_digest(&reference.repository(), digest)?,
            None => self.index.tag(&reference.clone().or_latest().to_string())?,
        };
        match id {
            Some(id) => Ok(self.index.image(&id)?),
            None => Ok(None),
        }
    }

    /// Image by a reference, an id or the beginning of an id.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] or [`StoreError::Ambiguous`].
    pub fn resolve(&self, name: &str) -> Result<ImageRecord, StoreError> {
        let missing = || StoreError::NoSuchImage(name.to_owned());
        let parsed = name.parse::<Reference>();
        if let Ok(reference) = &parsed
            && let Some(image) = self.find(reference)?
        {
            return Ok(image);
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex =
            !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex {
            let mut found = self.index.images_with_prefix(hex)?;
            return match found.len() {
                0 => Err(missing_reference(parsed, name)),
                1 => found.pop().ok_or_else(missing),
                _ => Err(StoreError::Ambiguous(name.to_owned())),
            };
        }
        match parsed {
            Ok(_) => Err(missing_reference(parsed, name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads an image's config.
    ///
    /// # Errors
    /// Fails when the blob is missing, damaged or malformed.
    pub fn read_image(&self, record: ImageRecord) -> Result<Image, StoreError> {
        let bytes = self.blobs.read(&record.id.0)?;
        let config =
            ImageConfig::parse(&bytes).map_err(|error| StoreError::Config(record.id.clone(), error))?;
        Ok(Image { record, config })
    }

    /// Reads an image's manifest.
    ///
    /// # Errors
    /// Fails when the blob is missing, damaged or malformed.
    pub fn read_manifest(&self, record: &ImageRecord) -> Result<Manifest, StoreError> {
        let bytes = self.blobs.read(&record.manifest)?;
        let fail = |error| StoreError::Manifest(record.id.clone(), error);
        match ManifestOrIndex::parse(&bytes, Some(&record.media_type)).map_err(fail)? {
            ManifestOrIndex::Manifest(manifest) => Ok(*manifest),
            ManifestOrIndex::Index(_) => Err(fail(ManifestError::MediaType(record.media_type.clone()))),
        }
    }

    /// All images, in no particular order.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        Ok(self.index.images()?)
    }

    /// All tags, sorted by reference.
    pub fn tags(&self) -> Result<Vec<TagRecord>, StoreError> {
        Ok(self.index.tags()?)
    }
}

fn missing_reference(parsed: Result<Reference, ReferenceError>, name: &str) -> StoreError {
    let shown = parsed.map_or_else(|_| name.to_owned(), |reference| reference.or_latest().familiar());
    StoreError::NoSuchImage(shown)
}
