//! Commands `pause` and `resume`.

use crate::Globals;
use crate::arguments::Arguments;
use crate::error::OciError;
use crate::state::Status;

pub(super) fn pause(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let mut container = globals.store.open(arguments.id("pause")?)?;
    match container.status() {
        Status::Running | Status::Created => {
            container.need_groups()?;
            container.record.groups.freeze(true)?;
        }
        status => {
            return Err(OciError::State(format!(
                "container not running or created: {status}; only such a one can be paused"
            )));
        }
    }
    Ok(0)
}

pub(super) fn resume(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let container = globals.store.open(arguments.id("resume")?)?;
    if !container.record.groups.is_frozen() {
        return Err(OciError::State(format!("container not paused: it is {}", container.status())));
    }
    container.record.groups.freeze(false)?;
    Ok(0)
}
