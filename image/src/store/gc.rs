//! Removing images, and what nothing needs any more.

use super::index::{Names, Untagged};
use super::{ImageRecord, Store, StoreError};
use crate::digest::{DiffId, Digest, ImageId};
use crate::reference::Reference;
use crate::sys::{self, Named};
use std::collections::BTreeSet;

/// What a removal took away, in the words of `rmi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A tag or repository digest.
    Untagged(String),
    /// An image or a layer.
    Deleted(String),
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many.
    pub count: usize,
    /// Bytes of file content.
    pub bytes: u64,
}

impl Store {
    /// Removes one tag; with the last one, the image goes too.
    pub fn remove_reference(&self, reference: &Reference) -> Result<Vec<Removed>, StoreError> {
        let reference = reference.clone().or_latest();
        let missing = || StoreError::NoSuchImage(reference.familiar());
        let image = self.find(&reference)?.ok_or_else(missing)?;
        let mut removed = vec![Removed::Untagged(reference.familiar())];
        self.note_change();
        let name = reference.to_string();
        match self.making_room(|| Ok(self.index.remove_tag_of(&name, &image.id)?))? {
            Untagged::Missing => return Err(missing()),
            Untagged::HasOthers => self.making_room(|| self.write_layout_index())?,
            Untagged::Last(names) => removed.extend(self.removed_image(&image, names)?),
        }
        Ok(removed)
    }

    /// Removes an image with all its tags, and the layers that nothing else needs.
    ///
    /// # Errors
    /// [`StoreError::ManyTags`] where it has more than `most` tags; nothing is removed then.
    pub fn remove_image(&self, image: &ImageRecord, most: usize) -> Result<Vec<Removed>, StoreError> {
        self.note_change();
        let names = self.making_room(|| Ok(self.index.remove_image(&image.id, most)?))?;
        self.removed_image(image, names.ok_or_else(|| StoreError::ManyTags(image.id.clone()))?)
    }

    /// Says what went with an image that the index has no more, and removes what nothing needs now.
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

    /// Forgets all cache records, and removes the layers that only they needed.
    pub fn prune_steps(&self) -> Result<Usage, StoreError> {
        let before = self.layer_bytes()?;
        self.making_room(|| Ok(self.index.remove_all_steps()?))?;
        self.remove_computed()?;
        let removed = self.remove_unused_layers()?;
        self.remove_unused_blobs()?;
        self.keep_reserve();
        Ok(Usage { count: removed.len(), bytes: before.saturating_sub(self.layer_bytes()?) })
    }

    /// Removes what is kept to save time, but what names an image that is there.
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

    /// Bytes of the files of all layers.
    pub fn layer_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.index.layers()?.iter().map(|layer| layer.size).sum())
    }

    /// Removes layers that no image and no cache record needs; gives their diff ids or names.
    ///
    /// Nothing is removed while a build or a start is under way ([`Store::use_layers`]).
    fn remove_unused_layers(&self) -> Result<Vec<String>, StoreError> {
        let Some(_lock) = self.try_remove_layers()? else { return Ok(Vec::new()) };
        // What killed commands left is known by no record.
        self.adopt_layers()?;
        let Some(pinned) = self.pinned_layers()? else { return Ok(Vec::new()) };
        let mut removed = Vec::new();
        let mut unused = self.index.unused_layers()?;
        // A layer of some image, on other layers than that image has below it.
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
            // The blobs that an image with a damaged manifest needs are not known: all stay.
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

    /// The image with an id.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, StoreError> {
        Ok(self.index.image(id)?)
    }
}
