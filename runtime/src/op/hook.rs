//! Hooks of the specification as operations.

use super::Bytes;
use serde::{Deserialize, Serialize};

/// Files to which the output of hooks is appended, by stream. Output without a file is discarded, except for the
/// standard error of a failing hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOutput {
    /// File for standard output.
    pub stdout: Option<Bytes>,
    /// File for standard error.
    pub stderr: Option<Bytes>,
}

/// A program that runs during set-up (OCI runtime specification, "POSIX-platform Hooks").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOp {
    /// Path of the program.
    pub path: Bytes,
    /// Arguments with the program's name first; empty for the name alone.
    pub arguments: Vec<Bytes>,
    /// Environment of the hook; `None` for the caller's.
    pub environment: Option<Vec<Bytes>>,
    /// Files to which its output is appended.
    pub output: HookOutput,
    /// Timeout in seconds after which it is killed; `None` waits without limit.
    pub timeout: Option<u32>,
}
