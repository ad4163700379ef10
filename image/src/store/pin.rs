//! Pins: files that keep the layers of a container from removal.

use super::{LayerId, Stack, Store, StoreError};
use crate::json;
use crate::sys::{self, CallError, Named};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

impl Store {
    /// Pins the layers of `stack`: they are not removed until [`Store::unpin`] is called with the same `name`.
    pub fn pin(&self, name: &str, stack: &Stack) -> Result<(), StoreError> {
        let layers: Vec<&str> = stack.layers().map(LayerId::as_str).collect();
        self.pins.fetch_add(1, Ordering::Relaxed);
        self.replace_file(&format!("pins/{name}"), &json::to_vec(&layers))
    }

    /// Releases a pin, if there is one of that name.
    pub fn unpin(&self, name: &str) -> Result<(), StoreError> {
        self.pins.fetch_sub(1, Ordering::Relaxed);
        Ok(sys::remove_path(&self.root.join("pins").join(name))?)
    }

    /// Layers pinned by containers; `None` when a damaged pin could refer to any layer.
    pub(super) fn pinned_layers(&self) -> Result<Option<BTreeSet<String>>, StoreError> {
        let dir = self.root.join("pins");
        let mut pinned = BTreeSet::new();
        for entry in fs::read_dir(&dir).call("getdents", &dir)? {
            let path = entry.call("getdents", &dir)?.path();
            if !path.is_file() {
                continue;
            }
            let bytes = match fs::read(&path) {
                // The pin was released meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.call("read", &path)?,
            };
            let Ok(layers) = serde_json::from_slice::<Vec<String>>(&bytes) else { return Ok(None) };
            pinned.extend(layers);
        }
        Ok(Some(pinned))
    }

    /// As [`Store::pin`], for a container that another process removes with its end ([`remove_pin`]): nothing of it has
    /// to survive a power cut.
    ///
    /// # Errors
    /// Fails when the pin cannot be written.
    pub fn pin_until_removed(&self, name: &str, stack: &Stack) -> Result<(), StoreError> {
        let layers: Vec<&str> = stack.layers().map(LayerId::as_str).collect();
        self.replace_file(&format!("pins/{name}"), &json::to_vec(&layers))
    }
}

/// Removes a pin of the store in `root`, if there is one of that name, in a process that has not opened the store.
///
/// # Errors
/// Fails when the file cannot be removed.
pub fn remove_pin(root: &Path, name: &str) -> Result<(), CallError> {
    sys::remove_path(&root.join("pins").join(name))
}
