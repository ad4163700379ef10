//! Looking through the whole store for what is not as it should be.

use super::index::Meta;
use super::{LayerRecord, Store, StoreError, pack};
use crate::config::ImageConfig;
use crate::layer::first_difference;
use std::collections::BTreeSet;
use std::fs;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What, and of what.
    pub what: String,
    /// What was done about it; `None` when nothing was, or could be.
    pub done: Option<String>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs that were looked at.
    pub blobs: usize,
    /// Layers.
    pub layers: usize,
    /// Images.
    pub images: usize,
    /// What is wrong, in the order in which it was found.
    pub problems: Vec<Problem>,
}

impl Checked {
    fn note(&mut self, what: String, done: Option<String>) {
        self.problems.push(Problem { what, done });
    }
}

impl Store {
    /// Verifies every blob, layer, image and name; with `repair`, what is wrong is made again where it can be, and removed
    /// where not.
    ///
    /// # Errors
    /// A damaged file is no error but a [`Problem`]; a disk that cannot be read or is full is one.
    pub fn check(&self, repair: bool) -> Result<Checked, StoreError> {
        let mut found = Checked::default();
        self.check_blobs(repair, &mut found)?;
        self.check_layers(repair, &mut found)?;
        self.check_images(repair, &mut found)?;
        let pages = self.index.quick_check()?;
        if let Some(damage) = pages {
            let done =
                repair.then(|| self.index.mark_damaged(&damage)).map(|()| "the next command makes it anew");
            found.note(format!("the index is damaged: {damage}"), done.map(str::to_owned));
        }
        let is_written = self.layout_seen().is_some() && self.index.meta(Meta::Layout)? == self.layout_seen();
        if !is_written {
            if repair {
                self.reconcile_layout()?;
            }
            found.note(
                "index.json is not as the index says".to_owned(),
                repair.then(|| "written anew".to_owned()),
            );
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
                found.note(format!("blob {digest}: {error}"), repair.then(|| "removed".to_owned()));
            }
        }
        Ok(())
    }

    fn check_layers(&self, repair: bool, found: &mut Checked) -> Result<(), StoreError> {
        let known: BTreeSet<String> = self.index.layers()?.into_iter().map(|layer| layer.id).collect();
        for name in fs::read_dir(self.root.join("layers")).into_iter().flatten().flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && !known.contains(&name) {
                found.note(format!("layer {name} is known by no record"), None);
            }
        }
        if repair && !found.problems.is_empty() {
            let adopted = self.adopt_layers()?;
            for problem in found.problems.iter_mut().filter(|problem| problem.done.is_none()) {
                let is_adopted = adopted.iter().any(|name| problem.what.contains(name.as_str()));
                problem.done = Some(if is_adopted { "known again" } else { "removed" }.to_owned());
            }
        }
        for layer in self.index.layers()? {
            found.layers += 1;
            let Some(what) = self.layer_problem(&layer)? else { continue };
            let shown = layer.diff_id.as_ref().map_or(layer.id.clone(), ToString::to_string);
            let mut done = None;
            if repair {
                let below = layer.below.clone().unwrap_or_default();
                // A boot that never was: its files are not trusted.
                let doubted = LayerRecord { boot: Some(String::new()), ..layer };
                self.index.put_layer(&doubted)?;
                done = Some(match self.sound(doubted, &below)? {
                    Some(_) => "unpacked again".to_owned(),
                    None => "removed".to_owned(),
                });
            }
            found.note(format!("layer {shown}: {what}"), done);
        }
        Ok(())
    }

    /// What is wrong with a layer's files.
    fn layer_problem(&self, layer: &LayerRecord) -> Result<Option<String>, StoreError> {
        let path = self.layer_path(&layer.id);
        if !path.is_dir() {
            return Ok(Some("its directory is missing".to_owned()));
        }
        // Its diff id has not been computed yet: there is nothing to compare with.
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
                return Ok(Some("its files are not what its digest says".to_owned()));
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
            found.note(
                format!("image {}: {what}", image.id),
                repair.then(|| "removed: pull or build it again".to_owned()),
            );
        }
        Ok(())
    }
}
