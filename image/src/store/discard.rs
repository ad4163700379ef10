//! Removing layers and cache records that must not be found again.

use super::{LayerId, Store, StoreError};

impl Store {
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
