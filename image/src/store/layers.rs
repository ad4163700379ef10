//! Layers: looked up, verified after a crash, and packed again.

use super::content::BlobError;
use super::{LayerId, LayerRecord, Store, StoreError};
use crate::compression;
use crate::digest::{Algorithm, BackgroundHasher, DiffId, Digest, Hashing};
use crate::json;
use crate::layer;
use crate::sys::{CallError, Named};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tracing::debug;

impl Store {
    /// Layers of an image, lowest first.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when the store does not have one of them.
    pub fn layers_of(&self, diff_ids: &[DiffId]) -> Result<Vec<LayerRecord>, StoreError> {
        (0..diff_ids.len()).map(|at| self.layer_of(&diff_ids[at], &diff_ids[..at])).collect()
    }

    /// Layer with a diff id above the layers `below`; unpacked again from its blob if necessary.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when the store has neither the layer nor its blob.
    pub fn layer_of(&self, diff_id: &DiffId, below: &[DiffId]) -> Result<LayerRecord, StoreError> {
        if let Some(layer) = self.find_layer(diff_id, below)? {
            return Ok(layer);
        }
        self.revive(diff_id, below)?.ok_or_else(|| StoreError::LayerMissing(diff_id.clone()))
    }

    /// Layer with a diff id above the layers `below` (diff ids, lowest first); `None` when it is missing or damaged.
    pub fn find_layer(&self, diff_id: &DiffId, below: &[DiffId]) -> Result<Option<LayerRecord>, StoreError> {
        for layer in self.index.layers_of_diff_id(diff_id)? {
            let fits = layer.below.as_ref().is_none_or(|own| own == below);
            if fits && let Some(layer) = self.sound(layer, below)? {
                debug!(%diff_id, layer = layer.id, "layer is in the store");
                return Ok(Some(layer));
            }
        }
        debug!(%diff_id, "layer is not in the store");
        Ok(None)
    }

    /// Layer by its id, as cache records name it; `None` when it was removed or is damaged.
    pub fn layer(&self, id: &LayerId) -> Result<Option<LayerRecord>, StoreError> {
        let Some(layer) = self.index.layer(id.as_str())? else { return Ok(None) };
        let below = layer.below.clone().unwrap_or_default();
        self.sound(layer, &below)
    }

    /// Verifies a layer that may not have been on disk when the host went down; a damaged one is unpacked again, or
    /// removed.
    pub(super) fn sound(
        &self,
        layer: LayerRecord,
        below: &[DiffId],
    ) -> Result<Option<LayerRecord>, StoreError> {
        let path = self.layer_path(&layer.id);
        let is_known = |layer: &LayerRecord| {
            layer.boot.as_ref().is_none_or(|boot| !boot.is_empty() && *boot == self.boot)
        };
        if path.is_dir() && is_known(&layer) {
            return Ok(Some(layer));
        }
        // One process verifies; the lock keeps others from removing files that were just verified.
        let _lock = self.lock(&format!("check-{}", layer.id), || {})?;
        let layer = match self.index.layer(&layer.id)? {
            Some(now) if path.is_dir() && is_known(&now) => return Ok(Some(now)),
            Some(now) => now,
            None => return Ok(None),
        };
        debug!(layer = layer.id, "layer was perhaps not on disk when the host went down: it is verified");
        if path.is_dir() && layer.below.is_none() {
            let (actual, _) = pack(&path)?;
            if layer.diff_id.as_ref().is_some_and(|expected| *expected == actual) {
                let layer = LayerRecord { boot: None, ..layer };
                self.index.put_layer(&layer)?;
                return Ok(Some(layer));
            }
        }
        match self.unpack_again(&layer, below) {
            Ok(layer) => return Ok(Some(layer)),
            // These errors do not mean that the layer is damaged.
            Err(error) if error.is_full() || error.is_out_of_files() => return Err(error),
            Err(error) => debug!(layer = layer.id, error = %error, "layer is damaged and is removed"),
        }
        self.discard(&self.root.join("layers").join(&layer.id))?;
        self.index.remove_layer(&layer.id)?;
        Ok(None)
    }

    /// Directory of a layer's files, for reading.
    pub fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.layer_path(id.as_str())
    }

    /// Directory of a layer's files.
    pub(super) fn layer_path(&self, id: &str) -> PathBuf {
        self.root.join("layers").join(id).join("fs")
    }

    /// Diff id of a layer and the length of its tar; computed by packing the layer unless they are known.
    pub fn diff_id(&self, id: &LayerId) -> Result<(DiffId, u64), StoreError> {
        let missing = || CallError {
            call: "open",
            path: self.layer_path(id.as_str()),
            errno: rustix::io::Errno::NOENT,
        };
        let layer = self.index.layer(id.as_str())?.ok_or_else(missing)?;
        if let (Some(diff_id), Some(size)) = (&layer.diff_id, layer.tar_size) {
            return Ok((diff_id.clone(), size));
        }
        let (diff_id, tar_size) = pack(&self.layer_path(id.as_str()))?;
        let layer = LayerRecord { diff_id: Some(diff_id.clone()), tar_size: Some(tar_size), ..layer };
        self.write_layer_record(&layer)?;
        self.index.put_layer(&layer)?;
        Ok((diff_id, tar_size))
    }

    /// Length of a layer's tar in bytes.
    pub fn layer_tar_size(&self, layer: &LayerRecord) -> Result<u64, StoreError> {
        match layer.tar_size {
            Some(size) => Ok(size),
            None => Ok(self.diff_id(&LayerId::new(&layer.id))?.1),
        }
    }

    /// Writes a layer's tar to `output`, and verifies its diff id; returns its length in bytes.
    ///
    /// # Errors
    /// [`StoreError::DiffIdMismatch`] when the files have changed; failures to pack the layer or to write.
    pub fn write_layer_tar(&self, layer: &LayerRecord, output: impl Write) -> Result<u64, StoreError> {
        let algorithm = layer.diff_id.as_ref().map_or(Algorithm::Sha256, |diff_id| diff_id.0.algorithm());
        let mut output = Hashing::with(output, algorithm);
        match self.blob_tar(layer) {
            Ok(mut tar) => {
                let copied = io::copy(&mut tar, &mut output).call("write", "layer");
                copied.map_err(|error| self.or_damaged(layer, error.into()))?;
            }
            Err(StoreError::NoBlob(_)) => output = layer::diff(&self.layer_path(&layer.id), output)?,
            Err(error) => return Err(error),
        }
        let (_, digest, size) = output.finish();
        match &layer.diff_id {
            Some(expected) if expected.0 != digest => {
                let (expected, actual) = (expected.clone(), DiffId(digest));
                Err(self.or_damaged(layer, StoreError::DiffIdMismatch { expected, actual }))
            }
            _ => Ok(size),
        }
    }

    /// Original tar of a layer from another tool.
    pub(super) fn blob_tar(&self, layer: &LayerRecord) -> Result<Box<dyn Read>, StoreError> {
        let blob = layer.blob.as_ref().filter(|blob| self.blobs.contains(blob));
        let blob = blob.ok_or_else(|| StoreError::NoBlob(layer.id.clone()))?;
        let file = io::BufReader::with_capacity(1 << 17, self.blobs.open(blob)?);
        Ok(compression::decompressed(file).call("read", self.blobs.path(blob))?)
    }

    /// True when the blob of a layer exists with the right size, or the layer has none.
    pub fn has_blob_of(&self, layer: &LayerRecord) -> bool {
        let Some(blob) = &layer.blob else { return true };
        let is_tar = layer.diff_id.as_ref().is_some_and(|diff_id| diff_id.0 == *blob);
        match layer.tar_size.filter(|_| is_tar) {
            Some(size) => self.blobs.has(blob, size),
            None => self.blobs.contains(blob) && !self.blobs.has(blob, 0),
        }
    }

    /// Error for a layer that cannot be read: [`StoreError::Damaged`] if its blob is damaged, which decompression
    /// errors do not show, else `error` itself.
    fn or_damaged(&self, layer: &LayerRecord, error: StoreError) -> StoreError {
        let blob = layer.blob.as_ref().filter(|_| !error.is_full());
        match blob.map(|blob| self.check_blob(blob)) {
            Some(Err(damaged @ StoreError::Damaged(_))) => damaged,
            _ => error,
        }
    }

    /// Verifies the digest of a blob.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when its bytes have changed.
    pub fn check_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.blobs.verify(digest) {
            Err(BlobError::Mismatch { .. }) => Err(StoreError::Damaged(digest.clone())),
            checked => Ok(checked?),
        }
    }

    pub(super) fn write_layer_record(&self, layer: &LayerRecord) -> Result<(), StoreError> {
        let dir = self.root.join("layers").join(&layer.id);
        let (scratch, mut file) = self.scratch.file()?;
        file.write_all(&json::to_vec(layer)).call("write", scratch.path())?;
        Ok(scratch.move_to(&dir.join("layer.json"))?)
    }
}

pub(super) fn pack(path: &Path) -> Result<(DiffId, u64), StoreError> {
    let (digest, size) = layer::diff(path, BackgroundHasher::sha256())?.finish();
    Ok((DiffId(digest), size))
}
