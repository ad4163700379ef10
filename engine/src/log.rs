//! Logs of containers, in the format of Docker's `json-file` driver, so that log collectors for it read them too.
//!
//! ```text
//! DIR/json.log       the newest entries
//! DIR/json.log.1     entries before those, and so on up to the number of files that are kept
//! ```
//!
//! An entry is a line of JSON: what the program wrote up to the end of a line, the stream, and the time. Lines longer than
//! [`MAX_ENTRY`] become several entries, of which only the last has a newline in its text.

mod entry;
mod follow;
mod journal;
mod logger;
mod read;
mod settings;
mod write;

pub use entry::{Entry, Stream};
pub use journal::{Parsed, parse as parse_journal_line};
pub(crate) use logger::Logger;
pub use read::{LogError, LogQuery, read};
pub use settings::{LogDriver, LogSettings, LogSettingsError};
pub use write::{LogOptions, LogWriter};

use std::path::{Path, PathBuf};

/// Most bytes of a program's output in one entry, as in Docker's copier.
pub const MAX_ENTRY: usize = 16 << 10;

/// Path of the newest file, or of the file that was rotated `age` times.
fn path(dir: &Path, age: u32) -> PathBuf {
    match age {
        0 => dir.join("json.log"),
        age => dir.join(format!("json.log.{age}")),
    }
}

#[cfg(test)]
mod tests;
