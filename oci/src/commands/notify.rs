//! Passing the listener of a seccomp filter to the agent that answers its notifications.

use crate::error::OciError;
use crate::state::{Record, Status};
use crate::terminal;
use oci_spec::runtime::{LinuxSeccompAction, Spec};
use rustix::fd::{AsFd, OwnedFd};

/// Connection to the agent of a filter. It is opened before the program can run, because the program must not run
/// without its agent.
pub(crate) struct Agent {
    socket: OwnedFd,
    metadata: String,
}

impl Agent {
    /// Connects to the agent of a filter. `None` when the filter has no agent.
    pub(crate) fn of(spec: &Spec) -> Result<Option<Agent>, OciError> {
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let Some(seccomp) = seccomp else { return Ok(None) };
        let mut rules = seccomp.syscalls().iter().flatten();
        let asks =
            rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify && !rule.names().is_empty());
        let Some(path) = seccomp.listener_path().as_ref().filter(|_| asks) else { return Ok(None) };
        let socket = terminal::connect(path).map_err(|error| OciError::AgentConnection(Box::new(error)))?;
        Ok(Some(Agent { socket, metadata: seccomp.listener_metadata().clone().unwrap_or_default() }))
    }

    /// Sends the listener with the container's process state (OCI runtime specification, "The Container Process
    /// State").
    pub(crate) fn send(&self, record: &Record, listener: &OwnedFd, pid: i32) -> Result<(), OciError> {
        let state = serde_json::json!({
            // Version of this structure in the specification's own example.
            "ociVersion": "0.2.0",
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": record.report(Status::Creating),
        });
        terminal::send_over(&self.socket, listener.as_fd(), state.to_string().as_bytes())
            .map_err(OciError::AgentMessage)
    }
}
