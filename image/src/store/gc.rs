//! Removal of images, and of data that is no longer needed.

use super::index::{Names, Untagged};
use super::{ImageRecord, LayerRecord, Store, StoreError, size_below};
use crate::digest::{DiffId, Digest, ImageId};
use crate::reference::Reference;
use crate::sys::{self, Named};
use std::collections::BTreeSet;

/// A removed object, for the output of `rmi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Reference of a removed tag or repository digest.
    Untagged(String),
    /// Id of a removed image or layer.
    Deleted(String),
}

/// Number and size of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of the objects.
    pub count: usize,
    /// Size of file contents in bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes one tag, and with the last tag the image.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] when there is no such tag.
    pub fn remove_reference(&self, reference: &Reference) -> Result<Vec<Removed>, StoreError> {
        let reference = reference.clone().or_latest();
        let missing = || StoreError::NoSuchImage(reference.familiar());
        let image = self.find(&reference)?.ok_or_else(missing)?;
        let mut removed = vec![Removed::Untagged(reference.familiar())];
        self.record_change();
        let name = reference.to_string();
        match self.making_room(|| Ok(self.index.remove_tag_of(&name, &image.id)?))? {
            Untagged::Missing => return Err(missing()),
            Untagged::HasOthers => self.making_room(|| self.write_layout_index())?,
            Untagged::Last(names) => removed.extend(self.removed_image(&image, names)?),
        }
        Ok(removed)
    }

    /// Removes an image with all its tags, and the layers that are no longer needed.
    ///
    /// # Errors
    /// [`StoreError::ManyTags`] when it has more than `most` tags; nothing is removed then.
    pub fn remove_image(&self, image: &ImageRecord, most: usize) -> Result<Vec<Removed>, StoreError> {
        self.record_change();
        let names = self.making_room(|| Ok(self.index.remove_image(&image.id, most)?))?;
        self.removed_image(image, names.ok_or_else(|| StoreError::ManyTags(image.id.clone()))?)
    }

    /// Lists the objects removed with an image, and removes data that is no longer needed.
    fn removed_image(&self, image: &ImageRecord, names: Names) -> Result<Vec<Removed>, StoreError> {
        let digests = names.digests.iter().map(|(repository, digest)| format!("{repository}@{digest}"));
        let familiar = |name: String| name.parse::<Reference>().map_or(name, |r| r.familiar());
        let mut removed: Vec<Removed> =
            names.tags.into_iter().chain(digests).map(|name| Removed::Untagged(familiar(name))).collect();
        self.making_room(|| self.write_layout_index())?;
        removed.push(Removed::Deleted(image.id.to_string()));
        for layer in self.remove_unused_layers()? {
            removed.push(Removed::Deleted(layer));
        }
        self.remove_unused_blobs()?;
        self.keep_reserve();
        Ok(removed)
    }

    /// Removes all cache records, and the layers that only they needed.
    pub fn prune_steps(&self) -> Result<Usage, StoreError> {
        let before = self.layer_bytes()?;
        self.making_room(|| Ok(self.index.remove_all_steps()?))?;
        self.remove_computed()?;
        let removed = self.remove_unused_layers()?;
        self.remove_unused_blobs()?;
        self.keep_reserve();
        Ok(Usage { count: removed.len(), bytes: before.saturating_sub(self.layer_bytes()?) })
    }

    /// Removes cached data, except for data about an existing image.
    fn remove_computed(&self) -> Result<(), StoreError> {
        let images: BTreeSet<String> =
            self.index.images()?.iter().map(|image| image.id.0.hex().to_owned()).collect();
        let dir = self.root.join("cache");
        for entry in std::fs::read_dir(&dir).call("getdents", &dir)? {
            let path = entry.call("getdents", &dir)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let image = name.rsplit('-').next().unwrap_or_default();
            if !images.contains(image) {
                sys::remove_path(&path)?;
            }
        }
        Ok(())
    }

    /// Size of the files of all layers in bytes.
    pub fn layer_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.index.layers()?.iter().map(|layer| layer.size).sum())
    }

    /// All layers, whether images use them or only the build cache does.
    pub fn layers(&self) -> Result<Vec<LayerRecord>, StoreError> {
        Ok(self.index.layers()?)
    }

    /// Number and size of the directories of RUN --mount=type=cache.
    pub fn cache_dirs(&self) -> Result<Usage, StoreError> {
        let dir = self.root.join("caches");
        let mut usage = Usage::default();
        for entry in std::fs::read_dir(&dir).call("getdents", &dir)? {
            let path = entry.call("getdents", &dir)?.path();
            if path.is_dir() {
                usage.count += 1;
                // A step may remove files of it meanwhile.
                usage.bytes += size_below(&path).unwrap_or_default();
            }
        }
        Ok(usage)
    }

    /// Removes layers that no image and no cache record needs; returns their diff ids or names.
    ///
    /// Nothing is removed while a build or a start of a container is running ([`Store::use_layers`]).
    fn remove_unused_layers(&self) -> Result<Vec<String>, StoreError> {
        let Some(_lock) = self.try_remove_layers()? else { return Ok(Vec::new()) };
        // Layers of killed commands have no record.
        self.adopt_layers()?;
        let Some(pinned) = self.pinned_layers()? else { return Ok(Vec::new()) };
        let mut removed = Vec::new();
        let mut unused = self.index.unused_layers()?;
        // Layers of an image that were unpacked above other layers than that image has below them.
        let chains = self.index.image_chains()?;
        for layer in self.index.layers_on_others()? {
            let (Some(below), Some(diff_id)) = (&layer.below, &layer.diff_id) else { continue };
            let is_of =
                |chain: &Vec<DiffId>| chain.starts_with(below) && chain.get(below.len()) == Some(diff_id);
            if !chains.iter().any(is_of) && !unused.iter().any(|known| known.id == layer.id) {
                unused.push(layer);
            }
        }
        for layer in unused {
            if pinned.contains(&layer.id) {
                continue;
            }
            self.making_room(|| self.discard(&self.root.join("layers").join(&layer.id)))?;
            self.making_room(|| Ok(self.index.remove_layer(&layer.id)?))?;
            removed.push(layer.diff_id.map_or(layer.id, |diff_id| diff_id.to_string()));
        }
        Ok(removed)
    }

    /// Removes blobs that no image needs.
    fn remove_unused_blobs(&self) -> Result<(), StoreError> {
        let Some(_lock) = self.try_remove_layers()? else { return Ok(()) };
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        for image in self.index.images()? {
            // The blobs of an image with a damaged manifest are unknown: all blobs stay.
            let Ok(manifest) = self.read_manifest(&image) else { return Ok(()) };
            needed.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            needed.extend([image.manifest, image.id.0]);
        }
        needed.extend(self.index.layers()?.into_iter().filter_map(|layer| layer.blob));
        for blob in self.blobs.list()?.into_iter().filter(|blob| !needed.contains(blob)) {
            self.blobs.remove(&blob)?;
        }
        Ok(())
    }

    /// Image with an id; `None` when the store does not have it.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, StoreError> {
        Ok(self.index.image(id)?)
    }
}
