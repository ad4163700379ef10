//! `index.json`: references of images, for other tools and for recreating a lost index.

use super::index::{self, Meta};
use super::{ImageRecord, Store, StoreError};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::json;
use crate::manifest::{Descriptor, Index as ManifestIndex, Manifest, ManifestOrIndex, media_type};
use crate::reference::Reference;
use crate::store::MAX_METADATA;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

const NAME: &str = "io.containerd.image.name";
const SHORT_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the time of a tag's last change: nanoseconds since 1970.
const UPDATED: &str = "dev.kiln.tag.updated";
/// Annotation with the digests in registries: `repository@digest`, separated by blanks.
const DIGESTS: &str = "dev.kiln.repo-digests";
/// Annotation with the number of times that the file was written, as in the index.
const GENERATION: &str = "dev.kiln.generation";

impl Store {
    /// Writes `index.json`, which makes the store an OCI layout for other tools.
    pub(super) fn write_layout_index(&self) -> Result<(), StoreError> {
        let _lock = self.lock("layout", || {})?;
        self.write_layout_locked()
    }

    fn write_layout_locked(&self) -> Result<(), StoreError> {
        let mut manifests = Vec::new();
        let mut named = BTreeSet::new();
        for tag in self.index.tags()? {
            let Some(image) = self.index.image(&tag.image)? else { continue };
            named.insert(image.id.clone());
            let short = tag.reference.rsplit(':').next().unwrap_or_default().to_owned();
            let mut descriptor = self.descriptor(&image)?;
            descriptor.annotations.insert(NAME.to_owned(), tag.reference);
            descriptor.annotations.insert(SHORT_NAME.to_owned(), short);
            descriptor.annotations.insert(UPDATED.to_owned(), tag.updated.to_string());
            manifests.push(descriptor);
        }
        for image in self.index.images()? {
            if !named.contains(&image.id) {
                manifests.push(self.descriptor(&image)?);
            }
        }
        let generation = self.generation()?.saturating_add(1);
        let mut layout = ManifestIndex::oci(manifests);
        layout.annotations = BTreeMap::from([(GENERATION.to_owned(), generation.to_string())]);
        // The index is written first: a kill in between leaves a file that is older than the index, not younger.
        self.index.set_meta(&[(Meta::Generation, generation.to_string())])?;
        if self.root.join("index.json").is_dir() {
            self.discard(&self.root.join("index.json"))?;
        }
        self.replace_file("index.json", &json::to_vec(&layout))?;
        self.record_layout(generation)
    }

    fn descriptor(&self, image: &ImageRecord) -> Result<Descriptor, StoreError> {
        let size = fs::metadata(self.blobs.path(&image.manifest)).map_or(0, |metadata| metadata.len());
        let mut descriptor = Descriptor::new(&image.media_type, image.manifest.clone(), size);
        let digests = self.index.repo_digests(&image.id)?;
        if !digests.is_empty() {
            let digests: Vec<String> =
                digests.iter().map(|(name, digest)| format!("{name}@{digest}")).collect();
            descriptor.annotations.insert(DIGESTS.to_owned(), digests.join(" "));
        }
        Ok(descriptor)
    }

    fn generation(&self) -> Result<u64, StoreError> {
        Ok(self.index.meta(Meta::Generation)?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Records identity and generation of the file, to notice changes.
    fn record_layout(&self, generation: u64) -> Result<(), StoreError> {
        let seen = self.layout_seen().unwrap_or_default();
        Ok(self.index.set_meta(&[(Meta::Generation, generation.to_string()), (Meta::Layout, seen)])?)
    }

    pub(super) fn layout_seen(&self) -> Option<String> {
        let found = fs::metadata(self.root.join("index.json")).ok()?;
        Some(format!("{} {} {}.{}", found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    }

    /// Compares `index.json` with the index. If the file is newer, a power cut lost transactions of the index, and the
    /// references in the file are restored; otherwise a changed file is rewritten.
    pub(super) fn reconcile_layout(&self) -> Result<(), StoreError> {
        let is_known = || -> Result<bool, StoreError> {
            let seen = self.layout_seen();
            Ok(seen.is_some() && self.index.meta(Meta::Layout)? == seen)
        };
        if is_known()? {
            return Ok(());
        }
        let _lock = self.lock("layout", || {})?;
        if is_known()? {
            return Ok(());
        }
        if let Some(layout) = self.read_layout() {
            let written = layout.annotations.get(GENERATION).and_then(|text| text.parse::<u64>().ok());
            let known = self.generation()?;
            if written.map_or(known == 0, |written| written > known) {
                self.adopt_layers()?;
                self.adopt_layout(&layout)?;
                self.index.set_meta(&[(Meta::Generation, written.unwrap_or(known).to_string())])?;
            }
        }
        self.write_layout_locked()
    }

    /// Parsed `index.json`; `None` when it is missing or damaged.
    fn read_layout(&self) -> Option<ManifestIndex> {
        serde_json::from_slice(&fs::read(self.root.join("index.json")).ok()?).ok()
    }

    /// Restores the references in `index.json` to images that are complete.
    fn adopt_layout(&self, layout: &ManifestIndex) -> Result<(), StoreError> {
        let mut named = BTreeSet::new();
        for descriptor in layout.manifests.iter().filter(|descriptor| !descriptor.is_attestation()) {
            let Some(image) = self.adopt_image(&descriptor.digest, &descriptor.media_type)? else { continue };
            let digests = descriptor.annotations.get(DIGESTS).map(String::as_str).unwrap_or_default();
            for (repository, digest) in digests.split(' ').filter_map(|text| text.rsplit_once('@')) {
                let is_name = format!("{repository}@{digest}").parse::<Reference>().is_ok();
                if let (Ok(digest), true) = (digest.parse::<Digest>(), is_name) {
                    self.index.add_repo_digest(&image.id, repository, &digest)?;
                }
            }
            let Some(name) = descriptor.annotations.get(NAME).and_then(|name| name.parse::<Reference>().ok())
            else {
                continue;
            };
            let updated = descriptor.annotations.get(UPDATED).and_then(|text| text.parse().ok());
            let name = name.or_latest().to_string();
            self.index.set_tag(&name, &image.id, updated.unwrap_or_else(index::now))?;
            named.insert(name);
        }
        // Another process is about to write tags that are younger than the file.
        let written = fs::metadata(self.root.join("index.json")).map_or(0, |found| {
            found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())
        });
        let is_gone = |tag: &super::TagRecord| !named.contains(&tag.reference) && tag.updated < written;
        for tag in self.index.tags()?.into_iter().filter(is_gone) {
            self.index.remove_tag(&tag.reference)?;
        }
        Ok(())
    }

    /// Adds an image whose manifest is a blob of the store to the index; `None` when it is incomplete.
    pub(super) fn adopt_image(
        &self,
        manifest: &Digest,
        kind: &str,
    ) -> Result<Option<ImageRecord>, StoreError> {
        let Ok(bytes) = self.blobs.read(manifest) else { return Ok(None) };
        let Ok(ManifestOrIndex::Manifest(parsed)) = ManifestOrIndex::parse(&bytes, Some(kind)) else {
            return Ok(None);
        };
        let Ok(config) = self.blobs.read(&parsed.config.digest) else { return Ok(None) };
        match self.put_image_of(&bytes, kind, &config, &parsed) {
            Ok(id) => Ok(self.index.image(&id)?),
            Err(error) if error.is_full() || matches!(error, StoreError::Index(_)) => Err(error),
            // A part of the image is missing.
            Err(_) => Ok(None),
        }
    }

    /// Adds an image like [`Store::put_image`], after unpacking layers that exist as blobs only.
    fn put_image_of(
        &self,
        bytes: &[u8],
        kind: &str,
        config: &[u8],
        manifest: &Manifest,
    ) -> Result<crate::digest::ImageId, StoreError> {
        let id = crate::digest::ImageId(Digest::of(config));
        let parsed = ImageConfig::parse(config).map_err(|error| StoreError::Config(id, error))?;
        let diff_ids = &parsed.rootfs.diff_ids;
        for (at, diff_id) in diff_ids.iter().enumerate() {
            if self.find_layer(diff_id, &diff_ids[..at])?.is_none() {
                let blob = manifest.layers.get(at).map(|layer| &layer.digest);
                self.unpack_blob(blob.unwrap_or(&diff_id.0), diff_id, &diff_ids[..at])?;
            }
        }
        self.put_image(bytes, kind, config)
    }

    /// Adds all images whose manifests are among the blobs. If `index.json` is sound, images missing in it were
    /// removed, and only manifests younger than the file are added.
    pub(super) fn adopt_images(&self) -> Result<(), StoreError> {
        let path = self.root.join("index.json");
        let layout =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<ManifestIndex>(&bytes).ok());
        let is_sound = layout.is_some_and(|layout| layout.annotations.contains_key(GENERATION));
        let time = |path: &std::path::Path| {
            fs::metadata(path).map_or((0, 0), |found| (found.mtime(), found.mtime_nsec()))
        };
        let after = if is_sound { time(&path) } else { (i64::MIN, 0) };
        let mut found = Vec::new();
        // A config that is also a valid manifest must not be adopted: it could claim layers of other images.
        let mut configs = BTreeSet::new();
        for digest in self.blobs.list()? {
            let blob = self.blobs.path(&digest);
            let is_small = fs::metadata(&blob).is_ok_and(|found| found.len() <= MAX_METADATA);
            let Some(bytes) = is_small.then(|| self.blobs.read(&digest).ok()).flatten() else { continue };
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
            configs.insert(manifest.config.digest);
            let is_config = ImageConfig::parse(&bytes).is_ok();
            let kind = manifest.media_type.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
            if time(&blob) >= after {
                found.push((digest, kind, is_config));
            }
        }
        for (digest, kind, is_config) in found {
            if !(is_config && configs.contains(&digest)) {
                self.adopt_image(&digest, &kind)?;
            }
        }
        Ok(())
    }
}
