//! Freezing of a container's processes: `pause` and `unpause`.
//!
//! The kernel is the only source of truth. The record repeats its state for lists, and is written after each change
//! under the lock on all names: whichever of two concurrent commands writes last reads the state that is in effect.

use crate::container::Records;
use crate::error::EngineError;
use crate::exec::Live;
use crate::record::{Container, State};
use kiln_runtime::cgroup::Groups;

impl Records {
    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`], [`EngineError::AlreadyPaused`], and [`EngineError::Cgroup`] without a freezer.
    pub fn pause(&self, container: &Container) -> Result<(), EngineError> {
        let live = self.live(container)?;
        // Frozen before its program runs, the container would keep its starting process waiting.
        live.wait_for_program()?;
        let groups = live.groups()?;
        if groups.is_frozen() {
            self.record_freezing(&live)?;
            return Err(EngineError::AlreadyPaused(container.name.clone()));
        }
        groups.freeze(true)?;
        if let Err(error) = self.record_freezing(&live) {
            // A command that fails changes nothing: the record would call frozen processes running.
            groups.freeze(false)?;
            return Err(error);
        }
        self.event(container, "pause", &[]);
        Ok(())
    }

    /// Lets the frozen processes of a container go on.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`] and [`EngineError::NotPaused`].
    pub fn unpause(&self, container: &Container) -> Result<(), EngineError> {
        let live = self.live(container)?;
        let groups = live.groups()?;
        if !groups.is_frozen() {
            self.record_freezing(&live)?;
            return Err(EngineError::NotPaused(container.name.clone()));
        }
        groups.freeze(false)?;
        self.record_freezing(&live)?;
        self.event(container, "unpause", &[]);
        Ok(())
    }

    /// Writes to the record whether the processes are frozen.
    ///
    /// # Errors
    /// Fails when the record cannot be read or written.
    pub fn record_freezing(&self, live: &Live) -> Result<(), EngineError> {
        self.change(&live.container.id, |record| {
            let frozen = record.groups.as_ref().is_some_and(Groups::is_frozen);
            if let State::Running { pid, paused, .. } = &mut record.state
                && *pid == live.pid
            {
                *paused = frozen;
            }
        })?;
        Ok(())
    }

    /// Lets the processes of a container that is being killed go on: frozen ones of version 1 cgroups do not end.
    pub(crate) fn thaw(&self, id: &str) {
        if let Ok(Some(Container { groups: Some(groups), .. })) = self.read(id)
            && groups.is_frozen()
        {
            // Where this fails, the container has ended, or its removal reports that it does not.
            let _ = groups.freeze(false);
        }
    }
}

impl Live {
    /// Cgroups of the container.
    ///
    /// # Errors
    /// [`EngineError::UnknownCgroups`] for a container that an older version started.
    pub(crate) fn groups(&self) -> Result<&Groups, EngineError> {
        let groups = self.container.groups.as_ref();
        groups.ok_or_else(|| EngineError::UnknownCgroups(self.container.id.clone()))
    }

    /// Fails for a container whose processes are frozen.
    ///
    /// # Errors
    /// [`EngineError::Paused`].
    pub(crate) fn refuse_paused(&self) -> Result<(), EngineError> {
        match self.container.groups.as_ref().is_some_and(Groups::is_frozen) {
            true => Err(EngineError::Paused(self.container.name.clone())),
            false => Ok(()),
        }
    }

    /// Lets frozen processes go on, so that they receive a signal that was sent to them.
    pub(crate) fn thaw(&self) {
        let frozen = self.container.groups.as_ref().filter(|groups| groups.is_frozen());
        // The signal may have ended the container, and its cgroups are gone then.
        let _ = frozen.map(|groups| groups.freeze(false));
    }
}
