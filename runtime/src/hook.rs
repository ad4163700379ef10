//! Hooks on the machine's side (OCI runtime specification, "POSIX-platform Hooks").

use crate::op::HookOp;

/// Runs a hook to its end, with the container's state on its standard input; the error says how it failed.
pub fn run(name: &str, hook: &HookOp, state: &[u8]) -> Result<(), String> {
    crate::init::hook::run(name, hook, state)
}
