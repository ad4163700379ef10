//! The journal of systemd as a log: its native protocol, and entries as `journalctl` shows them.
//!
//! An entry is one datagram of fields: `NAME=VALUE` and a newline, or, for values with newlines, `NAME`, a newline, the
//! length as 64 bits in little-endian order, the value and a newline (systemd's documentation of `JOURNAL_NATIVE_PROTOCOL`).
//! Fields are those of Docker's driver (moby `daemon/logger/journald`).

use super::{Entry, Stream};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Path of the journal's socket.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest wait, in seconds, for a journal that is behind; entries are lost and counted after that.
const PATIENCE: i64 = 1;

/// Writer of a container's entries.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// Fields that all entries have, encoded.
    fields: Vec<u8>,
    /// Output of each stream after its last newline.
    pending: [Vec<u8>; 2],
    /// Number of entries that could not be sent, for which the journal has no notice yet.
    lost: u64,
}

impl JournalWriter {
    /// Opens a socket for entries with these fields, which are sent to the journal's socket at `path`.
    pub(crate) fn open(path: &Path, fields: &[(String, String)]) -> Result<JournalWriter, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let address = SocketAddrUnix::new(path)?;
        let mut encoded = Vec::new();
        fields.iter().for_each(|(name, value)| add_field(&mut encoded, name, value.as_bytes()));
        Ok(JournalWriter { socket, address, fields: encoded, pending: Default::default(), lost: 0 })
    }

    /// Adds output of the program; complete lines are sent.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) {
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        super::write::split(&mut pending, bytes, |text| self.send(stream, text, time));
        self.pending[stream as usize] = pending;
    }

    /// Sends incomplete lines: the program has ended.
    pub(crate) fn finish(&mut self, time: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let text = std::mem::take(&mut self.pending[stream as usize]);
            if !text.is_empty() {
                self.send(stream, &text, time);
            }
        }
    }

    fn send(&mut self, stream: Stream, text: &[u8], time: Timestamp) {
        if self.lost > 0 {
            let notice = format!("kiln: {} entries were lost: the journal took none\n", self.lost);
            if self.try_send(&self.entry(Stream::Stderr, notice.as_bytes(), time)).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if self.try_send(&self.entry(stream, text, time)).is_err() {
            self.lost += 1;
        }
    }

    fn entry(&self, stream: Stream, text: &[u8], time: Timestamp) -> Vec<u8> {
        let (line, is_partial) = match text.strip_suffix(b"\n") {
            Some(line) => (line, false),
            None => (text, true),
        };
        let mut entry = Vec::with_capacity(line.len() + self.fields.len() + 128);
        add_field(&mut entry, "MESSAGE", line);
        // LOG_ERR and LOG_INFO of syslog(3).
        add_field(&mut entry, "PRIORITY", if stream == Stream::Stderr { b"3" } else { b"6" });
        add_field(&mut entry, "SYSLOG_TIMESTAMP", time.to_string().as_bytes());
        if is_partial {
            add_field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        entry.extend_from_slice(&self.fields);
        entry
    }

    /// Sends an entry; waits for a while when the journal is behind.
    fn try_send(&self, entry: &[u8]) -> Result<(), Errno> {
        let send = || sendto(&self.socket, entry, SendFlags::NOSIGNAL, &self.address).map(drop);
        match send() {
            // No new entry waits for a journal that has taken none for a while.
            Err(Errno::AGAIN) if self.lost == 0 => {
                let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&patience));
                send()
            }
            Err(Errno::INTR) => send(),
            other => other,
        }
    }
}

/// Appends a field in the journal's native form.
fn add_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Name of a field made of a label or a variable: capitals, digits and `_`, not at its beginning (moby `sanitizeKeyMod`).
pub(crate) fn field_name(text: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_uppercase() {
        letter @ ('A'..='Z' | '0'..='9') => letter,
        _ => '_',
    };
    text.chars().map(letter).collect::<String>().trim_start_matches('_').to_owned()
}

/// Fields of an entry in the JSON of `journalctl`: text, or an array of bytes when it is none.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "MESSAGE")]
    message: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
    #[serde(rename = "SYSLOG_TIMESTAMP", default)]
    time: Value,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    received: Value,
    #[serde(rename = "CONTAINER_PARTIAL_MESSAGE", default)]
    partial: Value,
    #[serde(rename = "__CURSOR", default)]
    cursor: Value,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    #[default]
    Missing,
}

impl Value {
    fn text(self) -> String {
        match self {
            Value::Text(text) => text,
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::Missing => String::new(),
        }
    }
}

/// Entry of the journal, and its position there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Entry of the container's log.
    pub entry: Entry,
    /// Position in the journal, as `journalctl` prints it.
    pub cursor: String,
}

/// Parses a line that `journalctl -o json` prints. `None` for other text.
pub fn parse(line: &[u8]) -> Option<Parsed> {
    let Line { message, priority, time, received, partial, cursor } = serde_json::from_slice(line).ok()?;
    let stream = if priority.text() == "3" { Stream::Stderr } else { Stream::Stdout };
    let received = received.text().parse().ok().and_then(|time| Timestamp::from_microsecond(time).ok());
    let time = time.text().parse().ok().or(received)?;
    let mut text = message.text();
    if partial.text() != "true" {
        text.push('\n');
    }
    let entry = Entry { stream, time, text, attributes: BTreeMap::new() };
    Some(Parsed { entry, cursor: cursor.text() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_newlines_have_a_length() {
        let mut out = Vec::new();
        add_field(&mut out, "A", b"one");
        add_field(&mut out, "B", b"x\ny");
        assert_eq!(out, b"A=one\nB\n\x03\0\0\0\0\0\0\0x\ny\n");
    }

    #[test]
    fn names_of_fields_are_capitals() {
        let check = |text: &str, expected| assert_eq!(field_name(text), expected, "{text}");
        check("com.example.tier", "COM_EXAMPLE_TIER");
        check("_x-1", "X_1");
        check("é", "");
    }

    #[test]
    fn lines_of_journalctl_are_entries() {
        let check = |line: &str, expected: Option<(Stream, &str)>| {
            let found = parse(line.as_bytes());
            let found = found.as_ref().map(|found| (found.entry.stream, found.entry.text.as_str()));
            assert_eq!(found, expected, "{line}");
        };
        let time = "\"__REALTIME_TIMESTAMP\":\"1767366245000000\"";
        check(&format!("{{\"MESSAGE\":\"one\",\"PRIORITY\":\"6\",{time}}}"), Some((Stream::Stdout, "one\n")));
        check(
            &format!("{{\"MESSAGE\":[111,107],\"PRIORITY\":\"3\",{time}}}"),
            Some((Stream::Stderr, "ok\n")),
        );
        check(
            &format!("{{\"MESSAGE\":\"part\",\"CONTAINER_PARTIAL_MESSAGE\":\"true\",{time}}}"),
            Some((Stream::Stdout, "part")),
        );
        check("-- No entries --", None);
    }
}
