//! Messages: to standard error, and to the log file of the calling engine.

use crate::error::OciError;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tracing::debug;

/// Destination and format of messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) file: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) level: Level,
}

/// Levels of messages, besides errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Only errors are logged.
    Error,
    /// Ignored parts of a configuration.
    #[default]
    Warning,
    /// Steps of the command.
    Debug,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
}

impl Log {
    /// Creates the log file, unless it exists: a file that cannot be written would hide all later errors.
    pub(crate) fn open(&self) -> Result<(), OciError> {
        let Some(path) = &self.file else { return Ok(()) };
        append(path).map(drop).map_err(OciError::file("open the log", path))
    }

    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() || !self.json {
            // Callers that read only this stream find the reason here too.
            let _ = writeln!(std::io::stderr(), "kiln oci: {}", visible(message));
        }
    }

    pub(crate) fn warn(&self, message: &str) {
        if self.level < Level::Warning {
            return;
        }
        self.write("warning", message);
        if self.file.is_none() && !self.json {
            let _ = writeln!(std::io::stderr(), "kiln oci: warning: {}", visible(message));
        }
    }

    pub(crate) fn debug(&self, message: &str) {
        debug!("{message}");
        if self.level == Level::Debug {
            self.write("debug", message);
            if self.file.is_none() && !self.json {
                let _ = writeln!(std::io::stderr(), "level=debug msg={message:?}");
            }
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let text = if self.json {
            let line = Line { level, msg: message, time };
            serde_json::to_string(&line).unwrap_or_default()
        } else {
            format!("time={time:?} level={level} msg={message:?}")
        };
        match &self.file {
            Some(path) => {
                // A failure to write the log cannot be reported anywhere.
                if let Ok(mut file) = append(path) {
                    let _ = writeln!(file, "{text}");
                }
            }
            None if self.json => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            None => {}
        }
    }
}

/// Message with its control characters escaped for terminals: names in it come from bundles.
fn visible(message: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    message.chars().map(shown).collect()
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
