//! Cache records of the steps of builds.

use super::index::StepRecord;
use super::{LayerId, Store, StoreError};

impl Store {
    /// Cache record of a key, if its layer exists; `None` otherwise.
    pub fn step(&self, key: &str) -> Result<Option<StepRecord>, StoreError> {
        let Some(step) = self.index.step(key)? else { return Ok(None) };
        let Some(layer) = &step.layer else { return Ok(None) };
        Ok(self.layer(&LayerId::new(layer))?.map(|_| step))
    }

    /// True when a result was recorded under a key, even if it was removed since.
    pub fn is_known_step(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.index.step(key)?.is_some())
    }

    /// Records results of steps. A record without a layer marks its key as known, and does not replace one with a
    /// layer.
    pub fn put_steps(&self, steps: &[StepRecord]) -> Result<(), StoreError> {
        Ok(self.index.put_steps(steps)?)
    }

    /// Updates the time of last use of cache records.
    pub fn touch_steps(&self, keys: &[String]) -> Result<(), StoreError> {
        Ok(self.index.touch_steps(keys)?)
    }

    /// Newest record of the same instruction in the same file; `None` when there is none.
    pub fn newest_step_at(&self, place: &str) -> Result<Option<StepRecord>, StoreError> {
        Ok(self.index.newest_step_at(place)?)
    }
}
