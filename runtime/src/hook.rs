//! Hooks in the host's namespaces (OCI runtime specification, "POSIX-platform Hooks").

use crate::op::HookOp;

/// Runs a hook to its end, with the container's state on its standard input; the error describes its failure. `index`
/// is its position among the hooks called `name`, from 0 on.
pub fn run(name: &str, index: usize, hook: &HookOp, state: &[u8]) -> Result<(), String> {
    crate::init::hook::run(name, index, hook, state)
}
