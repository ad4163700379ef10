//! Removing layers and cache records that must not be found again.

use super::snapshot::{Active, new_layer_id};
use super::{LayerId, LayerRecord, ScratchDir, Store, StoreError};
use crate::sys::Named;
use std::path::Path;

/// Layers that go with the process that made them: their names, in scratch of that process. Whoever removes the scratch of
/// one that was killed removes its layers first.
pub struct PrivateLayers {
    names: ScratchDir,
}

/// Begins the names of the files that name layers.
const PRIVATE: &str = "private-";

impl Store {
    /// Begins a list of private layers, with none in it.
    pub fn private_layers(&self) -> Result<PrivateLayers, StoreError> {
        Ok(PrivateLayers { names: self.scratch_dir()? })
    }

    /// [`Store::commit`] for a layer that is private.
    pub fn commit_private(&self, active: Active, private: &PrivateLayers) -> Result<LayerRecord, StoreError> {
        let id = new_layer_id();
        let name = private.names.path().join(format!("{PRIVATE}{id}"));
        std::fs::write(&name, "").call("write", &name)?;
        self.commit_as(id, active)
    }

    /// Removes the private layers that scratch of a process names which is no more.
    pub(super) fn discard_private(&self, orphan: &Path) {
        for entry in std::fs::read_dir(orphan).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PRIVATE)) else { continue };
            // What cannot be removed now is a layer that no build finds, and goes with `builder prune`.
            let _ = self.discard_layer(&LayerId::new(id));
        }
    }

    /// Removes a layer that only this process knows: no image, container or other build may use it.
    pub fn discard_layer(&self, layer: &LayerId) -> Result<(), StoreError> {
        self.discard(&self.root.join("layers").join(layer.as_str()))?;
        Ok(self.index.remove_layer(layer.as_str())?)
    }

    /// Evicts the cache records of a layer, which images may still use.
    pub fn forget_steps_of(&self, layer: &LayerId) -> Result<(), StoreError> {
        Ok(self.index.evict_steps_of(layer.as_str())?)
    }
}
