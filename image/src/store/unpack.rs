//! Unpacking of layers: from a tar into scratch, from there into the store.

use super::layers::pack;
use super::open::make_dir;
use super::{Active, LayerRecord, Store, StoreError, index};
use crate::digest::{DiffId, Digest, Hashing};
use crate::layer::{self, Below};
use crate::sys::{self, Named};
use rustix::fd::AsFd;
use std::cell::RefCell;
use std::fs;
use std::io::{self, Read};
use tracing::debug;

/// An unpacked layer that is not in the store yet; removed when it is dropped.
pub struct Unpacked {
    pub(super) active: Active,
    diff_id: DiffId,
    record: LayerRecord,
}

impl Unpacked {
    /// Digest of the layer's tar.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }
}

impl Store {
    /// Unpacks a layer from an uncompressed tar with the diff id `expected`; it is not in the store yet.
    ///
    /// `below` are the diff ids of the layers below it, which are consulted only when the tar depends on them.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when a layer below is needed and missing, [`StoreError::DiffIdMismatch`] for
    /// another tar than the expected one.
    pub fn unpack(
        &self,
        tar: impl Read,
        expected: &DiffId,
        below: &[DiffId],
    ) -> Result<Unpacked, StoreError> {
        let active = self.empty_active()?;
        let mut stream = Hashing::with(tar, expected.0.algorithm());
        let failure = RefCell::new(None);
        let tree = || match self.stack(below).and_then(|stack| Ok(stack.tree()?)) {
            Ok(tree) => Some(tree),
            Err(error) => {
                failure.replace(Some(error));
                None
            }
        };
        let applied = layer::apply(&mut stream, &active.upper(), Below::Layers(&tree));
        let applied = applied.map_err(|error| match failure.take() {
            Some(why) => why,
            None => StoreError::from(error),
        })?;
        io::copy(&mut stream, &mut io::sink()).call("read", "layer")?;
        let (_, digest, tar_size) = stream.finish();
        if digest != expected.0 {
            let actual = DiffId(digest);
            return Err(StoreError::DiffIdMismatch { expected: expected.clone(), actual });
        }
        debug!(diff_id = %expected, bytes = tar_size, "layer is unpacked");
        let upper = sys::open_dir(&active.upper())?;
        let is_empty = sys::is_empty_dir(upper.as_fd()).call("getdents", active.upper())?;
        let record = LayerRecord {
            id: String::new(),
            diff_id: Some(expected.clone()),
            tar_size: Some(tar_size),
            size: applied.size,
            empty: is_empty && !applied.opaque_root,
            opaque_root: applied.opaque_root,
            blob: None,
            created: index::now(),
            boot: Some(self.boot.clone()),
            below: applied.asked_below.then(|| below.to_vec()),
        };
        Ok(Unpacked { active, diff_id: expected.clone(), record })
    }

    /// Stores an unpacked layer; `blob` is the blob that it was unpacked from.
    ///
    /// If the store has the layer already, the blob is added to that one.
    pub fn keep_unpacked(
        &self,
        unpacked: Unpacked,
        blob: Option<&Digest>,
    ) -> Result<LayerRecord, StoreError> {
        for known in self.index.layers_of_diff_id(unpacked.diff_id())? {
            if known.below == unpacked.record.below && self.layer_path(&known.id).is_dir() {
                let known_blob = known.blob.filter(|blob| self.blobs.contains(blob));
                let known = LayerRecord { blob: blob.cloned().or(known_blob), ..known };
                self.write_layer_record(&known)?;
                self.record_change();
                self.index.put_layer(&known)?;
                return Ok(known);
            }
        }
        self.keep_layer(unpacked.active, LayerRecord { blob: blob.cloned(), ..unpacked.record })
    }

    /// Stores an unpacked layer, and before that its tar as a blob, unless the packer reproduces the tar byte for byte.
    pub fn keep_with_tar<R: Read>(
        &self,
        unpacked: Unpacked,
        tar: impl FnOnce() -> io::Result<R>,
    ) -> Result<LayerRecord, StoreError> {
        let digest = unpacked.diff_id.0.clone();
        let is_own = unpacked.record.below.is_none() && pack(&unpacked.active.upper())?.0.0 == digest;
        if is_own {
            return self.keep_unpacked(unpacked, None);
        }
        let mut writer = self.blobs.writer(&digest)?;
        let mut tar = tar().call("read", "layer")?;
        io::copy(&mut tar, &mut writer).call("write", self.blobs.path(&digest))?;
        writer.commit()?;
        self.keep_unpacked(unpacked, Some(&digest))
    }

    /// [`Store::unpack`] and [`Store::keep_unpacked`], unless the store has the layer.
    ///
    /// # Errors
    /// Fails in the cases of these.
    pub fn unpack_layer(
        &self,
        tar: impl Read,
        expected: &DiffId,
        below: &[DiffId],
        blob: Option<&Digest>,
    ) -> Result<LayerRecord, StoreError> {
        if let Some(layer) = self.find_layer(expected, below)? {
            return Ok(layer);
        }
        let unpacked = self.unpack(tar, expected, below)?;
        self.keep_unpacked(unpacked, blob)
    }

    /// Replaces a layer's files by the content of its blob.
    ///
    /// The packer does not reproduce layers from other tools byte for byte, so after a crash their files cannot be
    /// verified.
    pub(super) fn unpack_again(
        &self,
        layer: &LayerRecord,
        below: &[DiffId],
    ) -> Result<LayerRecord, StoreError> {
        let Some(diff_id) = &layer.diff_id else { return Err(StoreError::NoBlob(layer.id.clone())) };
        let unpacked = self.unpack(self.blob_tar(layer)?, diff_id, below)?;
        let Unpacked { active, record, .. } = unpacked;
        let layer = LayerRecord {
            id: layer.id.clone(),
            blob: layer.blob.clone(),
            created: layer.created,
            // The new files are not on disk yet, either.
            ..record
        };
        let old = self.scratch.dir()?;
        let files = self.layer_path(&layer.id);
        make_dir(&self.root.join("layers").join(&layer.id))?;
        match fs::rename(&files, old.path().join("fs")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).call("rename", &files)?;
            }
            _ => {}
        }
        fs::rename(active.upper(), &files).call("rename", &files)?;
        self.write_layer_record(&layer)?;
        self.record_change();
        self.index.put_layer(&layer)?;
        Ok(layer)
    }
}
