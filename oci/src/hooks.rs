//! The hooks of the specification that run on the host's side.

use crate::error::OciError;
use crate::log::Log;
use crate::state::{Record, Status};
use kiln_runtime::op::HookOutput;
use kiln_runtime::plan;
use oci_spec::runtime::{Hook, Spec};

/// Runs hooks in order; the first that fails ends it. What they say goes where annotations of crun's want it.
fn run(name: &str, hooks: &[Hook], record: &Record, status: Status) -> Result<(), String> {
    let state = &record.state(status);
    let file = |stream: &str| {
        let path = record.annotations.get(&format!("run.oci.hooks.{stream}"));
        path.filter(|path| !path.is_empty()).map(|path| path.as_str().into())
    };
    for (index, hook) in hooks.iter().enumerate() {
        let mut hook = plan::hook(hook).map_err(|error| error.to_string())?;
        hook.output = HookOutput { stdout: file("stdout"), stderr: file("stderr") };
        kiln_runtime::hook::run(name, index, &hook, state)?;
    }
    Ok(())
}

fn list(hooks: &Option<Vec<Hook>>) -> &[Hook] {
    hooks.as_deref().unwrap_or_default()
}

/// Before the container's root changes.
///
/// `prestart` dates from when containers were created at that point, and programs of that time are told so.
pub(crate) fn before_pivot(spec: &Spec, record: &Record) -> Result<(), String> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    run("prestart", list(hooks.prestart()), record, Status::Created)?;
    run("createRuntime", list(hooks.create_runtime()), record, Status::Creating)
}

/// When the program runs.
pub(crate) fn after_start(spec: &Spec, record: &Record) -> Result<(), OciError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    run("poststart", list(hooks.poststart()), record, Status::Running).map_err(OciError::Other)
}

/// When the container is gone; failures are told and passed over.
pub(crate) fn after_stop(spec: &Spec, record: &Record, log: &Log) {
    let Some(hooks) = spec.hooks() else { return };
    for hook in list(hooks.poststop()) {
        if let Err(message) = run("poststop", std::slice::from_ref(hook), record, Status::Stopped) {
            log.warn(&message);
        }
    }
}
