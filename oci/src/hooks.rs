//! Hooks of the specification that run on the host.

use crate::error::OciError;
use crate::log::Log;
use crate::state::{Record, Status};
use kiln_runtime::op::HookOutput;
use kiln_runtime::plan;
use oci_spec::runtime::{Hook, Spec};

/// Runs hooks in order, up to the first that fails. Annotations of crun redirect their output to files.
fn run(name: &str, hooks: &[Hook], record: &Record, status: Status) -> Result<(), OciError> {
    let state = &record.state(status);
    let file = |stream: &str| {
        let path = record.annotations.get(&format!("run.oci.hooks.{stream}"));
        path.filter(|path| !path.is_empty()).map(|path| path.as_str().into())
    };
    for (index, hook) in hooks.iter().enumerate() {
        let mut hook = plan::hook(hook)?;
        hook.output = HookOutput { stdout: file("stdout"), stderr: file("stderr") };
        kiln_runtime::hook::run(name, index, &hook, state)?;
    }
    Ok(())
}

fn list(hooks: &Option<Vec<Hook>>) -> &[Hook] {
    hooks.as_deref().unwrap_or_default()
}

/// Runs the hooks before the container's root changes.
///
/// `prestart` dates from when containers were created at that point, so its state is "created".
pub(crate) fn before_pivot(spec: &Spec, record: &Record) -> Result<(), OciError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    run("prestart", list(hooks.prestart()), record, Status::Created)?;
    run("createRuntime", list(hooks.create_runtime()), record, Status::Creating)
}

/// Runs the hooks after the program started.
pub(crate) fn after_start(spec: &Spec, record: &Record) -> Result<(), OciError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    run("poststart", list(hooks.poststart()), record, Status::Running)
}

/// Runs the hooks after the container's deletion; failures are only logged.
pub(crate) fn after_stop(spec: &Spec, record: &Record, log: &Log) {
    let Some(hooks) = spec.hooks() else { return };
    for hook in list(hooks.poststop()) {
        if let Err(error) = run("poststop", std::slice::from_ref(hook), record, Status::Stopped) {
            log.warn(&error.to_string());
        }
    }
}
