//! Verification of the whole store.

use super::index::Meta;
use super::layers::pack;
use super::{LayerRecord, Store, StoreError};
use crate::config::ImageConfig;
use crate::layer::first_difference;
use std::collections::BTreeSet;
use std::fs;

/// An inconsistency or damage in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Description with the affected object.
    pub what: String,
    /// Repair that was made; `None` when none was requested or possible.
    pub done: Option<String>,
}

/// Result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Number of blobs verified.
    pub blobs: usize,
    /// Number of layers verified.
    pub layers: usize,
    /// Number of images verified.
    pub images: usize,
    /// Problems in the order in which they were found.
    pub problems: Vec<Problem>,
}

impl Checked {
    fn add(&mut self, what: String, done: Option<String>) {
        self.problems.push(Problem { what, done });
    }
}

impl Store {
    /// Verifies all blobs, layers, images and references; with `repair`, damaged ones are recreated where possible, and
    /// removed otherwise.
    ///
    /// # Errors
    /// Fails when the disk cannot be read or is full. Damage is not an error but a [`Problem`].
    pub fn check(&self, repair: bool) -> Result<Checked, StoreError> {
        let mut found = Checked::default();
        self.check_blobs(repair, &mut found)?;
        self.check_layers(repair, &mut found)?;
        self.check_images(repair, &mut found)?;
        let pages = self.index.quick_check()?;
        if let Some(damage) = pages {
            let done =
                repair.then(|| self.index.mark_damaged(&damage)).map(|()| "the next command recreates it");
            found.add(format!("the index is damaged: {damage}"), done.map(str::to_owned));
        }
        let is_written = self.layout_seen().is_some() && self.index.meta(Meta::Layout)? == self.layout_seen();
        if !is_written {
            if repair {
                self.reconcile_layout()?;
            }
            found.add("index.json differs from the index".to_owned(), repair.then(|| "rewritten".to_owned()));
        }
        Ok(found)
    }

    fn check_blobs(&self, repair: bool, found: &mut Checked) -> Result<(), StoreError> {
        for digest in self.blobs.list()? {
            found.blobs += 1;
            if let Err(error) = self.blobs.verify(&digest) {
                if repair {
                    self.blobs.remove(&digest)?;
                }
                found.add(format!("blob {digest}: {error}"), repair.then(|| "removed".to_owned()));
            }
        }
        Ok(())
    }

    fn check_layers(&self, repair: bool, found: &mut Checked) -> Result<(), StoreError> {
        let known: BTreeSet<String> = self.index.layers()?.into_iter().map(|layer| layer.id).collect();
        for name in fs::read_dir(self.root.join("layers")).into_iter().flatten().flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && !known.contains(&name) {
                found.add(format!("layer {name} has no record"), None);
            }
        }
        if repair && !found.problems.is_empty() {
            let adopted = self.adopt_layers()?;
            for problem in found.problems.iter_mut().filter(|problem| problem.done.is_none()) {
                let is_adopted = adopted.iter().any(|name| problem.what.contains(name.as_str()));
                problem.done = Some(if is_adopted { "known again" } else { "removed" }.to_owned());
            }
        }
        let going = self.half_removed_layers()?;
        for layer in self.index.layers()?.into_iter().filter(|layer| !going.contains(&layer.id)) {
            found.layers += 1;
            let Some(what) = self.layer_problem(&layer)? else { continue };
            let shown = layer.diff_id.as_ref().map_or(layer.id.clone(), ToString::to_string);
            let mut done = None;
            if repair {
                let below = layer.below.clone().unwrap_or_default();
                // A layer of an unknown boot is not trusted.
                let doubted = LayerRecord { boot: Some(String::new()), ..layer };
                self.index.put_layer(&doubted)?;
                done = Some(match self.sound(doubted, &below)? {
                    Some(_) => "unpacked again".to_owned(),
                    None => "removed".to_owned(),
                });
            }
            found.add(format!("layer {shown}: {what}"), done);
        }
        Ok(())
    }

    /// Layers that nothing needs and whose directory is gone: of a removal that goes on, or was killed before the record
    /// was removed. The next removal removes it.
    fn half_removed_layers(&self) -> Result<BTreeSet<String>, StoreError> {
        let pinned = self.pinned_layers()?;
        let is_pinned = |id: &String| pinned.as_ref().is_none_or(|pinned| pinned.contains(id));
        let unused = self.index.unused_layers()?.into_iter().map(|layer| layer.id);
        Ok(unused.filter(|id| !is_pinned(id) && !self.layer_path(id).exists()).collect())
    }

    /// Damage of a layer's files; `None` when they are intact.
    fn layer_problem(&self, layer: &LayerRecord) -> Result<Option<String>, StoreError> {
        let path = self.layer_path(&layer.id);
        if !path.is_dir() {
            return Ok(Some("its directory is missing".to_owned()));
        }
        // The diff id has not been computed yet: there is nothing to compare with.
        let Some(diff_id) = &layer.diff_id else { return Ok(None) };
        let packed = match pack(&path) {
            Ok((packed, _)) => packed,
            Err(error) => return Ok(Some(error.to_string())),
        };
        if packed == *diff_id && layer.below.is_none() {
            return Ok(None);
        }
        let below = layer.below.clone().unwrap_or_default();
        let tar = match self.blob_tar(layer) {
            Ok(tar) => tar,
            Err(StoreError::NoBlob(_)) => {
                return Ok(Some("its files do not match its digest".to_owned()));
            }
            Err(error) => return Ok(Some(error.to_string())),
        };
        let unpacked = match self.unpack(tar, diff_id, &below) {
            Ok(unpacked) => unpacked,
            Err(error) if error.is_full() => return Err(error),
            Err(error) => return Ok(Some(error.to_string())),
        };
        let difference = first_difference(&path, &unpacked.active.upper(), true)?;
        Ok(difference
            .map(|found| format!("`{}` differs from its tar ({})", found.path.display(), found.what)))
    }

    fn check_images(&self, repair: bool, found: &mut Checked) -> Result<(), StoreError> {
        for image in self.index.images()? {
            found.images += 1;
            let what = match self.blobs.read(&image.id.0).map(|bytes| ImageConfig::parse(&bytes)) {
                Err(error) => Some(format!("its config: {error}")),
                Ok(Err(error)) => Some(format!("its config: {error}")),
                Ok(Ok(config)) => match self.read_manifest(&image) {
                    Err(error) => Some(error.to_string()),
                    Ok(_) => self.layers_of(&config.rootfs.diff_ids).err().map(|error| error.to_string()),
                },
            };
            let Some(what) = what else { continue };
            if repair {
                self.index.remove_image(&image.id, usize::MAX)?;
                self.write_layout_index()?;
            }
            found.add(
                format!("image {}: {what}", image.id),
                repair.then(|| "removed: pull or build it again".to_owned()),
            );
        }
        Ok(())
    }
}
