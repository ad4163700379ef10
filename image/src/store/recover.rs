//! Recovery when a store is opened after a reboot, a kill or the loss of its index.
//!
//! The guarantees are in ARCHITECTURE.md ("What a command reported stays"). Content is written before its records, and
//! records before references; removal is in reverse order. So a kill or a power cut leaves only content without a
//! record, or records from shortly before a power cut whose content is incomplete.

use super::index::{self, Index, IndexError, Meta, damage_marker};
use super::lock::lock_at;
use super::{LayerRecord, Store, StoreError};
use crate::digest::{DiffId, Digest, Hashing};
use crate::manifest::Manifest;
use crate::sys::{self, Named};
use crate::{compression, config::ImageConfig};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use tracing::debug;

impl Store {
    /// Opens the index; a missing, empty or damaged one is set aside and recreated.
    ///
    /// Returns true when the store has to be read into it.
    pub(super) fn open_index(root: &Path) -> Result<(Index, bool), StoreError> {
        let path = &root.join("index.db");
        let open = || -> Result<Option<Index>, StoreError> {
            if damage_marker(path).exists() || !path.is_file() {
                return Ok(None);
            }
            match Index::open(path, false) {
                Err(IndexError::Empty { .. }) => Ok(None),
                Err(error) if error.is_damaged() => Ok(None),
                Err(error) => Err(error.into()),
                Ok(index) => match index.meta(Meta::Boot) {
                    Err(error) if error.is_damaged() => Ok(None),
                    Err(error) => Err(error.into()),
                    Ok(_) => Ok(Some(index)),
                },
            }
        };
        if let Some(index) = open()? {
            return Ok((index, false));
        }
        let _lock = lock_at(&root.join("locks/index"))?;
        // Another process may have created it while this one waited.
        if let Some(index) = open()? {
            return Ok((index, false));
        }
        debug!(path = %path.display(), "the index is missing or damaged: the store is read into a new one");
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("index.db{suffix}");
            let old = path.with_file_name(&name);
            match fs::rename(&old, path.with_file_name(format!("{name}.old"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).call("rename", &old)?;
                }
                _ => {}
            }
        }
        // SQLite creates its other files with the same mode.
        let mut private = fs::OpenOptions::new();
        private.create(true).append(true).mode(0o600).open(path).call("open", path)?;
        let index = Index::open(path, true)?;
        sys::remove_path(&damage_marker(path))?;
        Ok((index, true))
    }

    /// Recovers the store once in each boot, and when the index is new.
    pub(super) fn recover(&self, is_new: bool) -> Result<(), StoreError> {
        let is_done =
            || -> Result<bool, StoreError> { Ok(self.index.meta(Meta::Boot)?.as_ref() == Some(&self.boot)) };
        if is_done()? {
            return self.reconcile_layout();
        }
        let _lock = self.lock("recover", || {})?;
        if is_done()? {
            return Ok(());
        }
        let last = self.index.meta(Meta::Boot)?;
        // A store of an earlier version has no time of the last sync: its blobs are verified when they are used.
        if last.is_some() || is_new {
            self.remove_torn_blobs()?;
        }
        self.adopt_layers()?;
        // A sync follows each command: layers not yet on disk were created shortly before the last boot ended.
        for layer in
            self.index.layers()?.into_iter().filter(|layer| layer.boot.is_some() && layer.boot == last)
        {
            let below = layer.below.clone().unwrap_or_default();
            // A layer that cannot be verified now is verified when it is used, so that no command waits for it.
            if let Err(error @ StoreError::Index(_)) = self.sound(layer, &below) {
                return Err(error);
            }
        }
        if is_new {
            self.adopt_images()?;
        }
        self.reconcile_layout()?;
        for image in self.index.images()? {
            if !self.is_complete(&image.id, &image.manifest)? {
                self.index.remove_image(&image.id, usize::MAX)?;
            }
        }
        self.write_layout_index()?;
        Ok(self.index.set_meta(&[(Meta::Boot, self.boot.clone())])?)
    }

    /// Removes blobs that were written since the last sync and do not match their digests.
    fn remove_torn_blobs(&self) -> Result<(), StoreError> {
        // File times have the granularity of the kernel's tick.
        const TICK: i64 = 1_000_000_000;
        let synced = self.index.meta(Meta::Synced)?.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        for digest in self.blobs.list()? {
            let Ok(found) = fs::symlink_metadata(self.blobs.path(&digest)) else { continue };
            let changed = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
            if changed >= synced.saturating_sub(TICK) && self.blobs.verify(&digest).is_err() {
                self.blobs.remove(&digest)?;
            }
        }
        Ok(())
    }

    /// True when config and manifest match their digests, and all layers exist or can be unpacked.
    fn is_complete(&self, id: &crate::digest::ImageId, manifest: &Digest) -> Result<bool, StoreError> {
        let (Ok(config), Ok(manifest)) = (self.blobs.read(&id.0), self.blobs.read(manifest)) else {
            return Ok(false);
        };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest) else { return Ok(false) };
        let Ok(config) = ImageConfig::parse(&config) else { return Ok(false) };
        let diff_ids = &config.rootfs.diff_ids;
        for (at, diff_id) in diff_ids.iter().enumerate() {
            let found = self.index.layers_of_diff_id(diff_id)?;
            let fits = |layer: &LayerRecord| layer.below.as_ref().is_none_or(|own| own == &diff_ids[..at]);
            let is_there = found.iter().any(|layer| fits(layer) && self.layer_path(&layer.id).is_dir());
            // The blob is unpacked when the layer is used; nothing is written here, as the disk may be full.
            let has_blob = || {
                let stored = manifest.layers.get(at).is_some_and(|layer| self.blobs.contains(&layer.digest));
                stored || self.blobs.contains(&diff_id.0)
            };
            if !is_there && !has_blob() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds layers without a record to the index, and removes incomplete ones.
    pub(super) fn adopt_layers(&self) -> Result<Vec<String>, StoreError> {
        let known: BTreeSet<String> = self.index.layers()?.into_iter().map(|layer| layer.id).collect();
        let dir = self.root.join("layers");
        let mut adopted = Vec::new();
        for entry in fs::read_dir(&dir).call("getdents", &dir)? {
            let path = entry.call("getdents", &dir)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || known.contains(&name) {
                continue;
            }
            let record = fs::read(path.join("layer.json")).ok();
            let record = record.and_then(|bytes| serde_json::from_slice::<LayerRecord>(&bytes).ok());
            match record.filter(|_| path.join("fs").is_dir()) {
                Some(record) => {
                    self.index.put_layer(&LayerRecord { id: name.clone(), ..record })?;
                    adopted.push(name);
                }
                None => self.discard(&path)?,
            }
        }
        Ok(adopted)
    }

    /// Removes a directory of the store; a kill meanwhile leaves no directory that appears complete.
    pub(super) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let scratch = self.scratch.dir()?;
        match fs::rename(path, scratch.path().join("gone")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // The scratch is removed with its files.
            renamed => Ok(renamed.call("rename", path)?),
        }
    }

    /// Unpacks a removed layer from the blob of an image that has it; `None` when there is none.
    pub(super) fn revive(
        &self,
        diff_id: &DiffId,
        below: &[DiffId],
    ) -> Result<Option<LayerRecord>, StoreError> {
        let mut blobs = vec![diff_id.0.clone()];
        for image in self.index.images_with_layer(diff_id)? {
            if let Ok(manifest) = self.read_manifest(&image) {
                blobs.extend(manifest.layers.get(below.len()).map(|layer| layer.digest.clone()));
            }
        }
        for blob in blobs.iter().filter(|blob| self.blobs.contains(blob)) {
            match self.unpack_blob(blob, diff_id, below) {
                Ok(layer) => return Ok(Some(layer)),
                Err(error) if error.is_full() => return Err(error),
                Err(error) => debug!(%diff_id, %blob, error = %error, "blob does not contain the layer"),
            }
        }
        Ok(None)
    }

    /// Unpacks a layer from a blob of the store, whose digest is verified. A damaged blob is removed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the blob was damaged, [`StoreError::LayerMissing`] when a layer below is needed and
    /// missing.
    pub fn unpack_blob(
        &self,
        blob: &Digest,
        diff_id: &DiffId,
        below: &[DiffId],
    ) -> Result<LayerRecord, StoreError> {
        let path = self.blobs.path(blob);
        let mut stream = Hashing::with(self.blobs.open(blob)?, blob.algorithm());
        let unpacked = {
            let tar = compression::decompressed_limited(BufReader::with_capacity(1 << 17, &mut stream));
            tar.map_err(|error| StoreError::from(crate::layer::ApplyError::Content(path.clone(), error)))
                .and_then(|tar| self.unpack(tar, diff_id, below))
        };
        let unpacked = match unpacked {
            // These errors do not mean that the blob is damaged.
            Err(error) if error.is_full() || matches!(error, StoreError::LayerMissing(_)) => {
                return Err(error);
            }
            unpacked => unpacked,
        };
        io::copy(&mut stream, &mut io::sink()).call("read", &path)?;
        let (_, actual, _) = stream.finish();
        if actual != *blob {
            self.blobs.remove(blob)?;
            return Err(super::BlobError::Mismatch { expected: blob.clone(), actual }.into());
        }
        self.keep_unpacked(unpacked?, Some(blob))
    }

    /// Waits until all written data is on disk, and records that.
    pub fn sync(&self) -> Result<(), StoreError> {
        let before = index::now();
        let root = sys::open_dir(&self.root)?;
        rustix::fs::syncfs(&root).call("syncfs", &self.root)?;
        Ok(self.index.mark_synced(&self.boot, before)?)
    }
}

impl Store {
    /// Runs `work`, which frees disk space; on a full disk, a part of the reserve is released first.
    pub(super) fn making_room<T>(&self, work: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let path = self.root.join(RESERVE);
        loop {
            match work() {
                Err(error) if error.is_full() => {
                    let left = fs::metadata(&path).map_or(0, |found| found.len());
                    let Some(left) = left.checked_sub(RESERVED / 4) else { return Err(error) };
                    let file = fs::OpenOptions::new().write(true).open(&path).call("open", &path)?;
                    file.set_len(left).call("truncate", &path)?;
                }
                done => return done,
            }
        }
    }

    /// Creates the reserve, if it is missing and the disk has space.
    pub(super) fn keep_reserve(&self) {
        let path = self.root.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|found| found.len() >= RESERVED) {
            return;
        }
        let made = self.scratch.file().and_then(|(scratch, file)| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVED)
                .call("fallocate", scratch.path())?;
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600))
                .call("chmod", scratch.path())?;
            scratch.move_to(&path)
        });
        // On a full disk it is created later, when there is space again.
        let _ = made;
    }
}

/// File of zeros whose space lets removal write its records on a full disk.
const RESERVE: &str = "reserve";
/// Size of the reserve in bytes: pages of the index and its log, `index.json`, directories.
const RESERVED: u64 = 1 << 20;

/// Syncs the store in the current directory, for a command that did not wait for it.
///
/// Creates nothing, so a store that was removed meanwhile stays removed. At most one further process waits behind the
/// one that syncs; the waiting one covers the data of all later commands.
pub fn sync_in_background() -> Result<(), StoreError> {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    let here = Path::new(".");
    let open = |name: &str, flags: OFlags| {
        rustix::fs::open(name, flags | OFlags::CLOEXEC, Mode::empty()).call("open", Path::new(name))
    };
    let next = open("oci-layout", OFlags::RDONLY)?;
    if rustix::fs::flock(&next, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let root = open(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    rustix::fs::flock(&root, FlockOperation::LockExclusive).call("flock", here)?;
    drop(next);
    let before = index::now();
    rustix::fs::syncfs(&root).call("syncfs", here)?;
    let boot = fs::read_to_string(super::open::BOOT_ID).unwrap_or_default();
    let index = Index::open(Path::new("index.db"), false)?;
    index.mark_synced(boot.trim(), before)?;
    Ok(index.shorten_log()?)
}
