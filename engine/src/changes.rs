//! What a container has changed, and its whole tree: `diff` and `export`.
//!
//! Both read the layers, not what is mounted above them, so they work alike on running and stopped containers, and see
//! neither /proc nor volumes.

use crate::container::Containers;
use crate::error::EngineError;
use crate::record::Container;
use kiln_image::layer::{self, FileChange};
use kiln_image::store::{Stack, StoreError};
use kiln_image::sys;
use kiln_image::tree::merged::MergedDir;
use rustix::fd::OwnedFd;
use std::io::Write;
use std::path::Path;

impl Containers<'_> {
    /// Paths that the container has added, changed or deleted, sorted.
    ///
    /// # Errors
    /// Fails when a layer cannot be read.
    pub fn changes(&self, container: &Container) -> Result<Vec<FileChange>, EngineError> {
        let below = self.layers_below(container)?.tree()?;
        match layer::changes(&self.upper(&container.id), &below) {
            // A container that was never started has changed nothing.
            Err(error) if error.is_not_found() && !self.upper(&container.id).is_dir() => Ok(Vec::new()),
            changes => Ok(changes?),
        }
    }

    /// Writes the container's tree as a tar.
    ///
    /// # Errors
    /// Fails when a layer cannot be read or `output` cannot be written, and when a file becomes shorter meanwhile.
    pub fn export(&self, container: &Container, output: impl Write) -> Result<(), EngineError> {
        let tree = self.merged(container)?;
        layer::flatten(&tree, output).map_err(StoreError::from)?;
        Ok(())
    }

    /// Layers of a container below its own, without what is mounted above them.
    fn layers_below(&self, container: &Container) -> Result<Stack, EngineError> {
        Ok(self.store.pinned_stack(&container.id)?)
    }

    /// Merged layers of a container, its own on top, read without a mount. Below them are the mount points that every
    /// container gets.
    fn merged(&self, container: &Container) -> Result<MergedDir, EngineError> {
        let stack = self.layers_below(container)?;
        let own = self.path(&container.id);
        let (upper, stubs) = (self.upper(&container.id), own.join("stubs"));
        let existing = |path: &Path| match sys::open_dir(path) {
            Ok(dir) => Ok(Some(dir)),
            // A container that was never started has neither.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        };
        let mut layers: Vec<OwnedFd> = existing(&upper)?.into_iter().collect();
        for dir in stack.dirs() {
            layers.push(sys::open_dir(dir)?);
        }
        layers.extend(existing(&stubs)?);
        Ok(MergedDir::root(layers))
    }
}
