//! Handing the listener of a filter to the agent that answers for it.

use crate::state::{Record, Status};
use crate::terminal;
use oci_spec::runtime::Spec;
use rustix::fd::{AsFd, OwnedFd};

/// Sends the listener with the container's process state (OCI runtime specification, "The Container Process State").
pub(crate) fn send_listener(
    spec: &Spec,
    record: &Record,
    listener: &OwnedFd,
    pid: i32,
) -> Result<(), String> {
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let Some(seccomp) = seccomp else { return Ok(()) };
    let Some(path) = seccomp.listener_path() else { return Ok(()) };
    let state = serde_json::json!({
        // The version in which the specification's own example says that this structure is.
        "ociVersion": "0.2.0",
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": seccomp.listener_metadata().clone().unwrap_or_default(),
        "state": record.report(Status::Creating),
    });
    terminal::send_fd(path, listener.as_fd(), state.to_string().as_bytes())
        .map_err(|error| format!("failed to connect with seccomp agent: {error}"))
}
