//! Creates an image in the store from a target's tree and config.

use crate::annotation::Annotations;
use crate::front::Squash;
use crate::outcome::BuiltImage;
use crate::plan::Planned;
use crate::step::Built;
use kiln_image::config::{History, ImageConfig};
use kiln_image::digest::{DiffId, Digest, ImageId};
use kiln_image::json;
use kiln_image::manifest::{Descriptor, Index, Manifest, media_type};
use kiln_image::platform::Platform;
use kiln_image::store::{LayerId, MAX_METADATA, StepRecord, Store, StoreError};
use std::collections::BTreeMap;

/// Comment of history entries for layers without an instruction.
const FILLER_COMMENT: &str = "buildkit.exporter.image.v0";

/// Failure to create an image.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Reading or writing the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The config is larger than the store's limit for reading, in bytes.
    #[error("the image's config has {0} bytes, and at most {MAX_METADATA} can be read again")]
    ConfigSize(usize),
}

fn notes_for(list: &[(Option<Platform>, String, String)], platform: &Platform) -> BTreeMap<String, String> {
    let own = list.iter().filter(|(wanted, _, _)| wanted.as_ref().is_none_or(|wanted| wanted == platform));
    own.map(|(_, name, value)| (name.clone(), value.clone())).collect()
}

/// Creates images from trees.
pub(crate) struct Exporter<'a> {
    pub(crate) store: &'a Store,
    /// `SOURCE_DATE_EPOCH` in seconds since 1970; `None` for current times.
    pub(crate) epoch: Option<i64>,
    /// Set the times of files to the epoch as well.
    pub(crate) rewrites_times: bool,
    pub(crate) squash: Squash,
    pub(crate) annotations: &'a Annotations,
    pub(crate) docker_types: bool,
    /// Write no config and manifest: only the files of the image are needed.
    pub(crate) only_files: bool,
}

/// Image of an exported target.
pub(crate) struct Exported {
    pub(crate) id: ImageId,
    pub(crate) manifest: Descriptor,
    /// Diff ids of the layers, lowest first.
    pub(crate) diff_ids: Vec<DiffId>,
}

/// Parts of an image before its config and manifest are complete.
struct Parts {
    config: ImageConfig,
    base_layers: Vec<Descriptor>,
    layers: Vec<(LayerId, i64)>,
}

impl Exporter<'_> {
    /// Creates config and manifest, and writes them unless only the files are needed.
    pub(crate) fn export(&self, planned: &Planned, built: &Built) -> Result<Exported, ExportError> {
        let mut parts = Parts {
            config: planned.config.clone(),
            base_layers: planned.base_layers.clone(),
            layers: built.layers.clone(),
        };
        match self.squash {
            Squash::No => {}
            Squash::New => self.squash(&mut parts, built, false)?,
            Squash::All => self.squash(&mut parts, built, true)?,
        }
        if let (Some(epoch), true) = (self.epoch, self.rewrites_times) {
            for (layer, _) in &mut parts.layers {
                if let Some(record) = self.store.layer_until(layer, epoch)? {
                    *layer = (&record).into();
                }
            }
        }
        let mut layers = parts.base_layers;
        let mut diff_ids: Vec<DiffId> = parts.config.rootfs.diff_ids.clone();
        for (layer, _) in &parts.layers {
            let (diff_id, size) = self.store.diff_id(layer)?;
            // The blob is created from the layer on demand: the digest of an uncompressed layer is its diff id.
            layers.push(Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), size));
            diff_ids.push(diff_id);
        }
        let mut config = parts.config;
        config.rootfs.diff_ids.clone_from(&diff_ids);
        let epoch = self.epoch.map(|seconds| timestamp(seconds.saturating_mul(1_000_000_000)));
        let created = |(_, created): &(LayerId, i64)| epoch.clone().unwrap_or_else(|| timestamp(*created));
        let created: Vec<String> = parts.layers.iter().map(created).collect();
        describe_layers(&mut config, &planned.layer_names);
        finish_history(&mut config, &created, epoch.as_deref());
        let (config, id) = config.encode();
        if config.len() as u64 > MAX_METADATA {
            return Err(ExportError::ConfigSize(config.len()));
        }
        let (config_type, manifest_type) = match self.docker_types {
            true => (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST),
            false => (media_type::OCI_CONFIG, media_type::OCI_MANIFEST),
        };
        if self.docker_types {
            layers.iter_mut().for_each(as_docker);
        }
        let mut manifest = Manifest::oci(Descriptor::of(config_type, &config), layers);
        manifest.media_type = Some(manifest_type.to_owned());
        manifest.annotations = notes_for(&self.annotations.manifest, &planned.platform);
        let bytes = json::to_vec(&manifest);
        if !self.only_files {
            self.store.put_image(&bytes, manifest_type, &config)?;
        }
        let mut descriptor = Descriptor::of(manifest_type, &bytes);
        descriptor.platform = Some(planned.platform.clone());
        descriptor.annotations = notes_for(&self.annotations.manifest_descriptor, &planned.platform);
        Ok(Exported { id, manifest: descriptor, diff_ids })
    }

    /// Bytes of an index over images of several platforms.
    pub(crate) fn index(&self, images: &[BuiltImage]) -> Vec<u8> {
        let mut index = Index::oci(images.iter().map(|image| image.manifest.clone()).collect());
        index.annotations = self.annotations.index.iter().cloned().collect();
        json::to_vec(&index)
    }

    /// Replaces the layers of this build, or all layers, by one.
    fn squash(&self, parts: &mut Parts, built: &Built, all: bool) -> Result<(), StoreError> {
        let layers: Vec<LayerId> = match all {
            true => built.stack.layers().cloned().collect(),
            false => parts.layers.iter().map(|(layer, _)| layer.clone()).collect(),
        };
        if layers.len() < 2 && !(all && parts.layers.is_empty() && layers.len() > 1) {
            return Ok(());
        }
        let stack: Vec<LayerId> = built.stack.layers().cloned().collect();
        let below = match all {
            true => &[],
            false => &stack[..stack.len().saturating_sub(layers.len())],
        };
        let layer = self.merged(&layers, below)?;
        let created = parts.layers.last().map_or(0, |(_, created)| *created);
        let own = parts.layers.len();
        let described = parts.config.history.iter_mut().filter(|entry| !entry.empty_layer);
        let described: Vec<&mut History> = described.collect();
        let kept = if all { 0 } else { described.len().saturating_sub(own) };
        described.into_iter().skip(kept).for_each(|entry| entry.empty_layer = true);
        parts
            .config
            .history
            .push(History { comment: format!("squash of {} layers", layers.len()), ..History::default() });
        if all {
            parts.base_layers.clear();
            parts.config.rootfs.diff_ids.clear();
        }
        parts.layers = vec![(layer, created)];
        Ok(())
    }

    /// Merges several layers into one; recorded in the cache, as each build would create the same layer.
    fn merged(&self, layers: &[LayerId], below: &[LayerId]) -> Result<LayerId, StoreError> {
        let names = |layers: &[LayerId]| layers.iter().map(LayerId::as_str).collect::<Vec<_>>().join(" ");
        let text = format!("squash {} on {}", names(layers), names(below));
        let key = Digest::of(text.as_bytes()).hex().to_owned();
        if let Some(layer) = self.store.step(&key)?.and_then(|record| record.layer) {
            return Ok(LayerId::from(layer.as_str()));
        }
        let record = self.store.merge_layers(layers, &self.store.stack_of(below)?)?;
        self.store.put_steps(&[StepRecord {
            key: key.clone(),
            result: key,
            layer: Some(record.id.clone()),
            created: 0,
            place: String::new(),
            inputs: "[]".to_owned(),
        }])?;
        Ok((&record).into())
    }
}

/// Sets Docker's media type in a layer's descriptor; Docker has none for zstd, so that stays OCI's.
fn as_docker(layer: &mut Descriptor) {
    let kind = match layer.media_type.as_str() {
        media_type::OCI_LAYER => media_type::DOCKER_LAYER,
        media_type::OCI_LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
        _ => return,
    };
    kind.clone_into(&mut layer.media_type);
}

/// Time in RFC 3339 as Go formats it: nanoseconds without trailing zeros.
fn timestamp(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map(|timestamp| timestamp.to_string())
        .unwrap_or_default()
}

/// Adds missing history entries of layers (moby/buildkit `exporter/containerimage/writer.go`): they are appended, with
/// the names of the last steps.
fn describe_layers(config: &mut ImageConfig, names: &[String]) {
    let layers = config.rootfs.diff_ids.len();
    let described = config.history.iter().filter(|entry| !entry.empty_layer).count();
    let first_own = layers.saturating_sub(names.len());
    for layer in described..layers {
        let name = layer.checked_sub(first_own).and_then(|own| names.get(own));
        config.history.push(History {
            created_by: name.cloned().unwrap_or_default(),
            comment: FILLER_COMMENT.to_owned(),
            ..History::default()
        });
    }
}

/// Sets missing times of history entries (moby/buildkit `exporter/containerimage/writer.go`).
///
/// `created` are the times of the layers that steps created. In the first gap, entries of instructions without a layer
/// get the time of the layer after them, in all later gaps that of the layer before them.
///
/// With an `epoch` all new entries have its time.
fn finish_history(config: &mut ImageConfig, created: &[String], epoch: Option<&str>) {
    let first_own = config.rootfs.diff_ids.len() - created.len();
    let described = config.history.iter_mut().filter(|entry| !entry.empty_layer);
    for (layer, entry) in described.enumerate() {
        if entry.created.is_none() && layer >= first_own {
            entry.created = created.get(layer - first_own).cloned();
        }
    }
    if let Some(epoch) = epoch {
        for entry in config.history.iter_mut().filter(|entry| entry.created.is_none()) {
            entry.created = Some(epoch.to_owned());
        }
        config.created = Some(epoch.to_owned());
        return;
    }
    let mut time = first_time_after_a_gap(&config.history);
    let mut gap = false;
    for entry in &mut config.history {
        match &entry.created {
            Some(created) if gap => time = Some(created.clone()),
            Some(_) => {}
            None => {
                gap = true;
                entry.created.clone_from(&time);
            }
        }
    }
    config.created = config.history.iter().rev().find_map(|entry| entry.created.clone());
}

fn first_time_after_a_gap(history: &[History]) -> Option<String> {
    let mut time = None;
    let mut gap = false;
    for entry in history {
        match &entry.created {
            Some(created) => {
                time = Some(created.clone());
                if gap {
                    break;
                }
            }
            None => gap = true,
        }
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: Option<&str>, empty_layer: bool) -> History {
        History { created: created.map(str::to_owned), empty_layer, ..History::default() }
    }

    fn check(history: &[(Option<&str>, bool)], layers: usize, created: &[&str], expected: &[Option<&str>]) {
        let history = history.iter().map(|(created, empty)| entry(*created, *empty)).collect();
        let mut config = ImageConfig { history, ..ImageConfig::default() };
        config.rootfs.diff_ids = vec![DiffId(kiln_image::digest::Digest::of(b"")); layers];
        let created: Vec<String> = created.iter().map(|time| (*time).to_owned()).collect();
        finish_history(&mut config, &created, None);
        let times: Vec<Option<&str>> = config.history.iter().map(|entry| entry.created.as_deref()).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn times_are_filled_in() {
        // Base layer, ENV, RUN, CMD.
        check(
            &[(Some("1"), false), (None, true), (None, false), (None, true)],
            2,
            &["5"],
            &[Some("1"), Some("5"), Some("5"), Some("5")],
        );
        // Only settings: the time of the last existing layer.
        check(&[(Some("1"), false), (None, true)], 1, &[], &[Some("1"), Some("1")]);
        // The first gap is filled from the layer after it, the next ones from the layer before.
        check(
            &[(None, false), (None, true), (None, false), (None, true)],
            2,
            &["5", "6"],
            &[Some("5"), Some("6"), Some("6"), Some("6")],
        );
    }

    #[test]
    fn layers_that_nobody_described_come_last() {
        let mut config =
            ImageConfig { history: vec![entry(None, true), entry(None, false)], ..ImageConfig::default() };
        config.rootfs.diff_ids = vec![DiffId(kiln_image::digest::Digest::of(b"")); 3];
        describe_layers(&mut config, &["one".to_owned(), "two".to_owned()]);
        let names: Vec<&str> = config.history.iter().map(|entry| entry.created_by.as_str()).collect();
        assert_eq!(names, ["", "", "one", "two"]);
    }

    #[test]
    fn timestamps_have_no_zeros_at_the_end() {
        assert_eq!(timestamp(1_700_000_000_120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(timestamp(1_700_000_000_000_000_000), "2023-11-14T22:13:20Z");
    }
}
