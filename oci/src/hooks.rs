//! The hooks of the specification that run on the machine's side.

use crate::error::OciError;
use crate::log::Log;
use crate::state::{Record, Status};
use kiln_runtime::plan;
use oci_spec::runtime::{Hook, Spec};

/// Runs hooks in order; the first that fails ends it.
pub(crate) fn run(name: &str, hooks: Option<&Vec<Hook>>, state: &[u8]) -> Result<(), String> {
    for hook in hooks.into_iter().flatten() {
        let hook = plan::hook(hook).map_err(|error| error.to_string())?;
        kiln_runtime::hook::run(name, &hook, state)?;
    }
    Ok(())
}

/// Before the container's root changes.
///
/// `prestart` dates from when containers were created at that point, and programs of that time are told so.
pub(crate) fn before_pivot(spec: &Spec, record: &Record) -> Result<(), String> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    run("prestart", hooks.prestart().as_ref(), &record.state(Status::Created))?;
    run("createRuntime", hooks.create_runtime().as_ref(), &record.state(Status::Creating))
}

/// When the program runs.
pub(crate) fn after_start(spec: &Spec, record: &Record) -> Result<(), OciError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    run("poststart", hooks.poststart().as_ref(), &record.state(Status::Running)).map_err(OciError::Other)
}

/// When the container is gone; failures are told and passed over.
pub(crate) fn after_stop(spec: &Spec, record: &Record, log: &Log) {
    let Some(hooks) = spec.hooks() else { return };
    let state = record.state(Status::Stopped);
    for hook in hooks.poststop().iter().flatten() {
        if let Err(message) = run("poststop", Some(&vec![hook.clone()]), &state) {
            log.warn(&message);
        }
    }
}
