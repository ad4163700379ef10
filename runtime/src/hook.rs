//! Hooks in the host's namespaces (OCI runtime specification, "POSIX-platform Hooks").

pub use crate::init::hook::{HookError, HookFault};

use crate::op::HookOp;

/// Runs a hook to its end, with the container's state on its standard input. `index` is its position among the hooks
/// called `name`, from 0 on.
///
/// # Errors
/// Fails when the program cannot be started, fails, or does not end within the hook's timeout.
pub fn run(name: &str, index: usize, hook: &HookOp, state: &[u8]) -> Result<(), HookError> {
    crate::init::hook::run(name, index, hook, state)
}
