//! Delivery of built images: as archives, as OCI layouts, and to registries, with their names, annotations and index.
//!
//! The builder has no network: the caller brings an implementation of [`Push`].

use crate::annotation::Annotations;
use crate::images::{BlobProgress, ImageError};
use crate::outcome::{BuiltImage, Outcome};
use kiln_image::archive::{self, ArchiveError, IndexRequest, PackOptions, PackedImage, SaveRequest, pack};
use kiln_image::digest::Digest;
use kiln_image::json;
use kiln_image::manifest::{Descriptor, Index, media_type};
use kiln_image::reference::Reference;
use kiln_image::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

/// Uploads images to registries.
pub trait Push {
    /// Uploads the blobs that the registry lacks, then manifests and index, and tags them. `progress` receives the
    /// blobs during their upload. Returns the digest of the uploaded manifest or index.
    ///
    /// # Errors
    /// Fails when the registry cannot be reached or refuses the upload, or the store fails.
    fn push(
        &self,
        upload: &Upload<'_>,
        progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<Digest, ImageError>;
}

/// Images to upload under one name.
#[derive(Clone, Copy)]
pub struct Upload<'a> {
    /// Reference in the registry.
    pub reference: &'a Reference,
    /// Packed images, one for each platform.
    pub images: &'a [PackedImage],
    /// Bytes of the index over them; `None` for a single image.
    pub index: Option<&'a [u8]>,
    /// Upload without a tag.
    pub by_digest: bool,
}

/// Failure to deliver images.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Reading or writing the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer cannot be packed.
    #[error(transparent)]
    Pack(#[from] ArchiveError),
    /// A registry rejected the images, or could not be reached.
    #[error(transparent)]
    Push(ImageError),
}

/// Images of a build's last target, ready to be delivered.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// Store that contains the images.
    pub store: &'a Store,
    /// Result of the build.
    pub outcome: &'a Outcome,
    /// Annotations of the index and of its descriptor; those of manifests are in the images.
    pub annotations: &'a Annotations,
}

/// Images with their layers in the form for a registry.
pub struct Packed {
    images: Vec<PackedImage>,
    index: Option<Vec<u8>>,
    /// Descriptor of the manifest or index in the registry.
    pub descriptor: Descriptor,
}

impl Delivery<'_> {
    /// References of the result: its tags, and `more`, without duplicates.
    pub fn names(&self, more: impl IntoIterator<Item = Reference>) -> Vec<Reference> {
        let tags = self.outcome.last().iter().flat_map(|image| image.tags.iter().cloned());
        let mut known = BTreeSet::new();
        tags.chain(more).filter(|name| known.insert(name.to_string())).collect()
    }

    /// Writes an archive that is an OCI layout as well.
    ///
    /// # Errors
    /// Fails when a layer cannot be packed, the store fails, or `output` cannot be written.
    pub fn write_archive(
        &self,
        names: &[Reference],
        options: &PackOptions,
        output: &mut dyn Write,
    ) -> Result<(), ArchiveError> {
        let requests = self.requests(names, options)?;
        match self.outcome.index {
            None => archive::save_tar(self.store, &requests, output),
            Some(_) => {
                self.with_index(&requests, names, |index| archive::save_index_tar(self.store, index, output))
            }
        }
    }

    /// Writes an OCI layout into a directory.
    ///
    /// # Errors
    /// Fails when a layer cannot be packed, the store fails, or the directory cannot be written.
    pub fn write_layout(
        &self,
        names: &[Reference],
        options: &PackOptions,
        dir: &Path,
    ) -> Result<(), ArchiveError> {
        let requests = self.requests(names, options)?;
        match self.outcome.index {
            None => archive::save_dir(self.store, &requests, dir),
            Some(_) => {
                self.with_index(&requests, names, |index| archive::save_index_dir(self.store, index, dir))
            }
        }
    }

    /// Packs the images for a registry.
    ///
    /// # Errors
    /// Fails when a layer cannot be packed, or the store fails.
    pub fn pack(&self, options: &PackOptions) -> Result<Packed, DeliveryError> {
        let built = self.outcome.last();
        let packed = built.iter().map(|image| {
            let record = self.store.resolve(&image.id.to_string())?;
            Ok(pack(self.store, &record, options)?)
        });
        let images = packed.collect::<Result<Vec<_>, DeliveryError>>()?;
        let descriptors = images.iter().zip(built).map(|(packed, image)| Descriptor {
            annotations: image.manifest.annotations.clone(),
            ..packed.descriptor()
        });
        let descriptors: Vec<Descriptor> = descriptors.collect();
        if self.outcome.index.is_none() {
            let descriptor = descriptors.into_iter().next().expect("a target has an image");
            return Ok(Packed { images, index: None, descriptor });
        }
        let mut index = Index::oci(descriptors);
        index.annotations = self.index_annotations().0;
        let index = json::to_vec(&index);
        Ok(Packed { images, descriptor: self.index_descriptor(&index), index: Some(index) })
    }

    /// Uploads packed images under a reference, and records their digest in the registry.
    ///
    /// # Errors
    /// Fails when the registry rejects them or cannot be reached, or the store fails.
    pub fn push(
        &self,
        packed: &Packed,
        (reference, by_digest): (&Reference, bool),
        registry: &dyn Push,
        progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<Digest, DeliveryError> {
        let index = packed.index.as_deref();
        let upload = Upload { reference, images: &packed.images, index, by_digest };
        let digest = registry.push(&upload, progress).map_err(DeliveryError::Push)?;
        for image in self.outcome.last() {
            self.store.add_repo_digest(&image.id, &reference.repository(), &digest)?;
        }
        Ok(digest)
    }

    /// Descriptor of the result in the store: of the index, or of the manifest.
    pub fn descriptor(&self) -> Descriptor {
        match &self.outcome.index {
            Some(index) => self.index_descriptor(index),
            None => self.outcome.main().manifest.clone(),
        }
    }

    /// Digest of the index, or the image id.
    pub fn id(&self) -> String {
        match &self.outcome.index {
            Some(index) => Digest::of(index).to_string(),
            None => self.outcome.main().id.to_string(),
        }
    }

    /// Images to write into an archive. With an index, the index has the references.
    fn requests(&self, names: &[Reference], options: &PackOptions) -> Result<Vec<SaveRequest>, StoreError> {
        let names = if self.outcome.index.is_none() { names } else { &[] };
        let request = |image: &BuiltImage| {
            Ok(SaveRequest {
                options: options.clone(),
                annotations: image.manifest.annotations.clone(),
                ..SaveRequest::new(self.store.resolve(&image.id.to_string())?, names.to_vec())
            })
        };
        self.outcome.last().iter().map(request).collect()
    }

    /// Annotations of the index, and of the descriptor that points to it.
    fn index_annotations(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let map = |list: &[(String, String)]| list.iter().cloned().collect();
        (map(&self.annotations.index), map(&self.annotations.index_descriptor))
    }

    fn with_index(
        &self,
        images: &[SaveRequest],
        names: &[Reference],
        write: impl FnOnce(&IndexRequest<'_>) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let (annotations, descriptor_annotations) = self.index_annotations();
        write(&IndexRequest {
            images,
            names,
            annotations: &annotations,
            descriptor_annotations: &descriptor_annotations,
        })
    }

    fn index_descriptor(&self, index: &[u8]) -> Descriptor {
        let annotations = self.index_annotations().1;
        Descriptor { annotations, ..Descriptor::of(media_type::OCI_INDEX, index) }
    }
}
