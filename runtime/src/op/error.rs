//! Failures of set-up, as data sent by the new process to its parent.

use super::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Failure of set-up, as data: the failing operation, its object, and errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupError {
    /// Part of set-up that failed.
    pub stage: Stage,
    /// Name of the failed call, such as `mount`.
    pub call: String,
    /// Object of the call, such as a path.
    pub on: Bytes,
    /// Error of the call; 0 when the reason is in `message`.
    pub errno: i32,
    /// Message to print instead of the errno's text where that would mislead.
    pub message: Option<String>,
}

/// Parts of set-up that callers distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Creation of the process.
    Clone,
    /// Namespaces, mounts, devices, and limits.
    Setup,
    /// Lookup of the user.
    User,
    /// Entering the working directory.
    WorkingDir,
    /// Execution of the program.
    Exec,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            return f.write_str(message);
        }
        write!(f, "{}", self.call)?;
        if !self.on.0.is_empty() {
            write!(f, " `{}`", self.on.as_path().display())?;
        }
        write!(f, ": {}", describe_errno(self.errno))
    }
}

impl std::error::Error for SetupError {}

/// Text of an errno without Rust's `(os error N)`.
pub fn describe_errno(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    text.chars()
        .next()
        .map(|first| first.to_lowercase().chain(text.chars().skip(1)).collect())
        .unwrap_or(text)
}
