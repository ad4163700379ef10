//! Renaming of containers.
//!
//! A name is a link below `containers/names`, and the record has the name that counts. The new link is created before
//! the record changes, and the old one is removed after it, so that a process killed in between leaves one link too
//! many: a link to a container of another name counts as free.

use crate::container::{Owned, Records};
use crate::directory::NAMES;
use crate::error::EngineError;
use crate::name;
use crate::record::Container;
use kiln_image::sys;

impl Records {
    /// Renames a container.
    ///
    /// # Errors
    /// [`EngineError::InvalidName`], [`EngineError::NameTaken`], [`EngineError::SameName`], and
    /// [`EngineError::NoSuchContainer`] when it has been removed.
    pub fn rename(&self, container: &Container, new: &str) -> Result<(), EngineError> {
        let record = self.give_name(container, new)?;
        self.event(&record, "rename", &[("oldName", format!("/{}", container.name))]);
        if record.has_names()
            && let Ok(Some(monitor)) = self.connect(&record)
        {
            // One that has ended serves no names.
            let _ = monitor.renamed();
        }
        Ok(())
    }

    /// Renames a container without an event; returns its record.
    fn give_name(&self, container: &Container, new: &str) -> Result<Container, EngineError> {
        let new = new.strip_prefix('/').unwrap_or(new);
        name::check(new)?;
        let _names = self.lock_names()?;
        let missing = || EngineError::NoSuchContainer(container.name.clone());
        let mut record = self.read(&container.id)?.ok_or_else(missing)?;
        if record.name == new {
            return Err(EngineError::SameName);
        }
        let reserved = self.take_name(Some(new), &container.id)?;
        let old = std::mem::replace(&mut record.name, reserved);
        if let Err(error) = self.write(&record) {
            // A link that stays counts as free.
            let _ = sys::remove_path(&self.path(NAMES).join(new));
            return Err(error);
        }
        sys::remove_path(&self.path(NAMES).join(old))?;
        Ok(record)
    }

    /// True when a link to the container `id` reserves nothing: a killed process left it behind.
    pub(crate) fn is_left_behind(&self, name: &str, id: &str) -> bool {
        match self.read(id) {
            Ok(Some(container)) => container.name != name,
            Ok(None) => !self.path(id).is_dir(),
            Err(_) => false,
        }
    }
}

impl Owned {
    /// Takes a name, and removes the container that has it. When several do this at once, the last one has it.
    ///
    /// # Errors
    /// Fails when the other one cannot be removed.
    pub(crate) fn take_place(&mut self, name: &str) -> Result<(), EngineError> {
        loop {
            match self.records.give_name(&self.container, name) {
                Ok(record) => {
                    self.container = record;
                    return Ok(());
                }
                Err(EngineError::NameTaken { .. }) => {}
                Err(error) => return Err(error),
            }
            if let Some(other) = self.records.named(name)? {
                self.records.remove(&other, true)?;
            }
        }
    }
}
