//! Commands `pause` and `resume`.

use crate::Globals;
use crate::arguments::Arguments;
use crate::error::{OciError, StateError};
use crate::state::Status;

pub(super) fn pause(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let mut container = globals.store.open(arguments.id("pause")?)?;
    match container.status() {
        Status::Running | Status::Created => {
            container.need_groups()?;
            container.record.groups.freeze(true)?;
        }
        status => {
            return Err(StateError::NotPausable(status).into());
        }
    }
    Ok(0)
}

pub(super) fn resume(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let container = globals.store.open(arguments.id("resume")?)?;
    if !container.record.groups.is_frozen() {
        return Err(StateError::NotPaused(container.status()).into());
    }
    container.record.groups.freeze(false)?;
    Ok(0)
}
