//! The store: all persistent data of Kiln, shared by concurrent processes.
//!
//! ```text
//! oci-layout, index.json   make the blobs an OCI layout for other tools
//! blobs/sha256/…           manifests, configs, compressed layers as pulled
//! layers/ID/fs             a layer as a directory that overlayfs can stack
//! layers/ID/layer.json     its record, as in the index
//! containers/ID            records and writable layers of containers (see `kiln_engine`)
//! pins/NAME                layers that the container of that name uses
//! caches/HASH              directories of RUN --mount=type=cache (see `cache`)
//! cache/NAME               data that can be recomputed
//! work/                    files and directories of running processes (see `scratch`)
//! locks/                   one file for each exclusive operation
//! index.db                 the index (see `index`)
//! reserve                  space that a removal on a full disk may use (see `recover`)
//! ```
//!
//! Blobs, `layer.json` and `index.json` describe themselves; the database is an index over them, which is rebuilt when it is
//! missing or damaged. A layer or blob is complete when it has its name. Layers are not flushed to disk one by one: in the first
//! use after a boot, those that were written after the last sync are compared with their diff ids (see `recover`).

mod cache;
mod check;
mod content;
mod discard;
mod error;
mod gc;
mod images;
mod index;
mod layers;
mod layout;
mod lock;
mod open;
mod pin;
mod recover;
mod rewrite;
mod scratch;
mod snapshot;
mod steps;
mod unpack;

pub use cache::{CacheAccess, CacheDir};
pub use check::{Checked, Problem};
pub use content::{BlobError, BlobWriter, Blobs, MAX_METADATA};
pub use discard::PrivateLayers;
pub use error::StoreError;
pub use gc::{Removed, Usage};
pub use images::Image;
pub use index::{ImageRecord, IndexError, LayerRecord, StepRecord, TagRecord, found_damaged_index};
pub use lock::StoreLock;
pub use pin::remove_pin;
pub use recover::sync_in_background;
pub use scratch::ScratchDir;
pub use snapshot::{Active, LayerId, Stack, Syncs, make_upper, size_below};
pub use unpack::Unpacked;

use crate::sys::Named;
use index::Index;
use scratch::ScratchArea;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// An open store; shared by threads.
pub struct Store {
    root: PathBuf,
    index: Index,
    blobs: Blobs,
    scratch: ScratchArea,
    boot: String,
    /// Whether data was written that a power cut could lose.
    changed: AtomicBool,
    /// Number of pins written, less those released: a container that was created and removed leaves nothing to sync.
    pins: AtomicI64,
    after: Option<AfterChange>,
}

/// Callback with the store's directory, run when a modified store is closed.
pub type AfterChange = Box<dyn Fn(&Path) + Send + Sync>;

impl Drop for Store {
    fn drop(&mut self) {
        let has_changed = self.changed.load(Ordering::Relaxed) || self.pins.load(Ordering::Relaxed) != 0;
        if has_changed && let Some(after) = &self.after {
            after(&self.root);
        }
    }
}

impl Store {
    /// Sets the callback for closing the store after a modification that a power cut could lose.
    pub fn on_change(&mut self, after: AfterChange) {
        self.after = Some(after);
    }

    pub(in crate::store) fn record_change(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Content store with the blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Creates a directory for temporary files of this process.
    pub fn scratch_dir(&self) -> Result<ScratchDir, StoreError> {
        Ok(ScratchDir { scratch: self.scratch.dir()? })
    }

    /// Reads cached data; `None` when there is none of that name.
    pub fn read_cache(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join("cache").join(name)).ok()
    }

    /// Stores data that can be recomputed.
    pub fn put_cache(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace_file(&format!("cache/{name}"), bytes)
    }

    fn replace_file(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (scratch, mut file) = self.scratch.file()?;
        file.write_all(bytes).call("write", scratch.path())?;
        Ok(scratch.move_to(&self.root.join(name))?)
    }
}

#[cfg(test)]
mod tests;
