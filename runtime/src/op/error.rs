//! Failures of set-up, as data that travels from the new process to its parent.

use super::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why setting up failed, as data: the failing operation's name, what it was done to, and errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupError {
    /// Which part of setting up.
    pub stage: Stage,
    /// The call that failed, such as `mount`.
    pub call: String,
    /// What it was called on.
    pub on: Bytes,
    /// Why; 0 when the reason is in `message`.
    pub errno: i32,
    /// Said instead of the errno's text when that would mislead.
    pub message: Option<String>,
}

/// Parts of setting up that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Making the process.
    Clone,
    /// Namespaces, mounts, devices, limits.
    Setup,
    /// Looking up the user.
    User,
    /// Entering the working directory.
    WorkingDir,
    /// Running the program.
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

/// The text of an errno without Rust's `(os error N)`.
pub fn describe_errno(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    text.chars()
        .next()
        .map(|first| first.to_lowercase().chain(text.chars().skip(1)).collect())
        .unwrap_or(text)
}
