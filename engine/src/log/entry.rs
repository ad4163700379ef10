//! One entry of a log, and its line of JSON.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;

/// The stream that a program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or a terminal's output.
    Stdout,
    /// Standard error of the program.
    Stderr,
}

impl Stream {
    /// Name of the stream in the file.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Stream that the text was written to.
    pub stream: Stream,
    /// Time at which the end of the text was read.
    pub time: Timestamp,
    /// Output of the program; ends with a newline unless the line continues in the next entry, or the program ended.
    pub text: String,
    /// Labels and variables of the container that its log options select, fixed at its creation.
    pub attributes: BTreeMap<String, String>,
}

/// JSON form of an entry (moby `daemon/logger/jsonfilelog/jsonlog`).
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    stream: Stream,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

impl Entry {
    /// Parses a line of a file. `None` when it is not an entry, as after a crash in the middle of a write.
    pub fn parse(line: &[u8]) -> Option<Entry> {
        let Line { log, stream, attrs, time } = serde_json::from_slice(line).ok()?;
        Some(Entry { stream, time: time.parse().ok()?, text: log, attributes: attrs })
    }
}

/// Appends an entry's line to `out`. `attributes` is a JSON object, or empty.
pub(super) fn encode(out: &mut Vec<u8>, stream: Stream, text: &[u8], attributes: &str, time: Timestamp) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    // Writing to memory does not fail.
    let _ = write!(out, "\",\"stream\":\"{}\"", stream.name());
    if !attributes.is_empty() {
        let _ = write!(out, ",\"attrs\":{attributes}");
    }
    let _ = writeln!(out, ",\"time\":\"{time}\"}}");
}

/// Escapes text for a JSON string as Docker does; bytes that are not UTF-8 become the replacement character.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => out.extend([b'\\', letter as u8]),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '<' | '>' | '&' | '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(letter));
                }
                letter => {
                    let mut bytes = [0; 4];
                    out.extend_from_slice(letter.encode_utf8(&mut bytes).as_bytes());
                }
            }
        }
        chunk.invalid().iter().for_each(|_| out.extend_from_slice(b"\\ufffd"));
    }
}
