//! Disk space of containers, and its release.

use crate::container::Records;
use crate::directory::Lock;
use crate::error::EngineError;
use crate::record::Container;
use kiln_image::store::size_below;

impl Records {
    /// Size of the files in a container's writable layer, in bytes.
    ///
    /// # Errors
    /// Fails when the layer cannot be read.
    pub fn size(&self, container: &Container) -> Result<u64, EngineError> {
        match size_below(&self.upper(&container.id)) {
            // A container that was never started has no layer.
            Err(error) if error.is_not_found() => Ok(0),
            size => Ok(size?),
        }
    }

    /// Removes a container that does not run; false when it was started or removed meanwhile.
    ///
    /// # Errors
    /// Fails when its files cannot be removed.
    pub fn remove_ended(&self, container: &Container) -> Result<bool, EngineError> {
        let Lock::Held(_lock) = self.lock(&container.id)? else { return Ok(false) };
        match self.read(&container.id)? {
            Some(now) if !now.state.is_running() => self.erase(&container.id).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Directory that overlayfs writes a container's changes to.
    pub(crate) fn upper(&self, id: &str) -> std::path::PathBuf {
        self.path(id).join("layer/upper")
    }
}
