//! Removal of layers and cache records that must not be found again.

use super::snapshot::{Active, new_layer_id};
use super::{LayerId, LayerRecord, ScratchDir, Store, StoreError};
use crate::sys::Named;
use std::path::Path;

/// Layers that are removed with the process that created them: their ids, in scratch of that process. After a kill, the
/// process that removes the scratch removes these layers first.
pub struct PrivateLayers {
    names: ScratchDir,
}

/// Prefix of the files that contain ids of layers.
const PRIVATE: &str = "private-";

impl Store {
    /// Creates an empty list of private layers.
    pub fn private_layers(&self) -> Result<PrivateLayers, StoreError> {
        Ok(PrivateLayers { names: self.scratch_dir()? })
    }

    /// Commits like [`Store::commit`], and adds the layer to the private ones.
    ///
    /// # Errors
    /// Fails in the cases of [`Store::commit`].
    pub fn commit_private(&self, active: Active, private: &PrivateLayers) -> Result<LayerRecord, StoreError> {
        let id = new_layer_id();
        let name = private.names.path().join(format!("{PRIVATE}{id}"));
        std::fs::write(&name, "").call("write", &name)?;
        self.commit_as(id, active)
    }

    /// Removes the private layers named in the scratch of an ended process.
    pub(super) fn discard_private(&self, orphan: &Path) {
        for entry in std::fs::read_dir(orphan).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PRIVATE)) else { continue };
            // A layer that cannot be removed now is not found by builds, and is removed by `builder prune`.
            let _ = self.discard_layer(&LayerId::new(id));
        }
    }

    /// Removes a layer that no image, container or other build uses.
    pub fn discard_layer(&self, layer: &LayerId) -> Result<(), StoreError> {
        self.discard(&self.root.join("layers").join(layer.as_str()))?;
        Ok(self.index.remove_layer(layer.as_str())?)
    }

    /// Evicts the cache records of a layer, which images may still use.
    pub fn evict_steps_of(&self, layer: &LayerId) -> Result<(), StoreError> {
        Ok(self.index.evict_steps_of(layer.as_str())?)
    }
}
