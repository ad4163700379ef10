//! Hooks of the specification.

use super::Bytes;
use serde::{Deserialize, Serialize};

/// Files that what a hook says is added to, by stream; where there is none it is passed over, but for what a failing hook
/// has to say on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOutput {
    /// For standard output.
    pub stdout: Option<Bytes>,
    /// For standard error.
    pub stderr: Option<Bytes>,
}

/// A program that is run on the way (OCI runtime specification, "POSIX-platform Hooks").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOp {
    /// What to run.
    pub path: Bytes,
    /// Its arguments, its own name first; empty for just that.
    pub arguments: Vec<Bytes>,
    /// Its environment, when the specification gives one; the caller's else.
    pub environment: Option<Vec<Bytes>>,
    /// Files that what it says is added to.
    pub output: HookOutput,
    /// Seconds after which it is killed.
    pub timeout: Option<u32>,
}
