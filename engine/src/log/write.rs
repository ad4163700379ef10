//! Writes a log: lines, rotation, and handling of full disks.

use super::entry::encode;
use super::{MAX_ENTRY, Stream, path};
use jiff::Timestamp;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Limits and attributes of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Size in bytes after which a file is rotated; `None` for no limit.
    pub max_size: Option<u64>,
    /// Number of files that are kept, the newest included; at least 1.
    pub max_files: u32,
    /// JSON object that each entry carries; empty for none.
    pub attributes: String,
}

impl Default for LogOptions {
    /// Three files of 10 MB, so that a program with much output does not fill the disk.
    fn default() -> LogOptions {
        LogOptions { max_size: Some(10_000_000), max_files: 3, attributes: String::new() }
    }
}

/// Writer of a container's log. A log has at most one at a time.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    options: LogOptions,
    pub(super) file: File,
    size: u64,
    /// Output of each stream after its last newline.
    pending: [Vec<u8>; 2],
    /// Number of entries that could not be written, and the error of the first.
    lost: Option<(u64, io::Error)>,
}

impl LogWriter {
    /// Opens the log in `dir` for appending.
    ///
    /// # Errors
    /// Fails when the file cannot be created or opened.
    pub fn open(dir: &Path, options: LogOptions) -> io::Result<LogWriter> {
        let file = open(dir)?;
        let size = end_last_line(&file)?;
        let dir = dir.to_owned();
        Ok(LogWriter { dir, options, file, size, pending: Default::default(), lost: None })
    }

    /// Adds output of the program. Complete lines are in the file when this returns; the rest is kept until its line
    /// ends.
    ///
    /// A full disk is not an error: lost entries are counted, and a notice is written to the log when there is space
    /// again.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) {
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        let mut batch = Batch::default();
        split(&mut pending, bytes, |text| self.add(&mut batch, stream, text, time));
        self.pending[stream as usize] = pending;
        self.put(&mut batch);
    }

    /// Writes incomplete lines: the program has ended.
    pub fn finish(&mut self, time: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let text = std::mem::take(&mut self.pending[stream as usize]);
            if !text.is_empty() {
                let mut batch = Batch::default();
                self.add(&mut batch, stream, &text, time);
                self.put(&mut batch);
            }
        }
    }

    /// Number of lost entries for which the log has no notice yet.
    pub fn lost(&self) -> u64 {
        self.lost.as_ref().map_or(0, |(count, _)| *count)
    }

    /// Adds an entry to a batch; an entry that would make the file too large goes to the next file.
    fn add(&mut self, batch: &mut Batch, stream: Stream, text: &[u8], time: Timestamp) {
        let before = batch.bytes.len();
        encode(&mut batch.bytes, stream, text, &self.options.attributes, time);
        batch.entries += 1;
        let Some(max) = self.options.max_size else { return };
        let is_first = before == 0 && self.size == 0;
        if self.size + batch.bytes.len() as u64 > max && !is_first {
            let next = batch.bytes.split_off(before);
            batch.entries -= 1;
            self.put(batch);
            self.rotate();
            *batch = Batch { bytes: next, entries: 1 };
        }
    }

    fn put(&mut self, batch: &mut Batch) {
        if batch.entries == 0 {
            return;
        }
        let notice = self.notice();
        let written = self.append(&notice).and_then(|()| self.append(&batch.bytes));
        match written {
            Ok(()) if !notice.is_empty() => self.lost = None,
            Ok(()) => {}
            Err(error) => {
                let lost = self.lost.get_or_insert((0, error));
                lost.0 += batch.entries;
            }
        }
        *batch = Batch::default();
    }

    /// Notice about lost entries for the log; empty when none are lost.
    fn notice(&self) -> Vec<u8> {
        let mut notice = Vec::new();
        if let Some((count, error)) = &self.lost {
            let text = format!("kiln: {count} entries of this log were lost: {error}\n");
            encode(&mut notice, Stream::Stderr, text.as_bytes(), &self.options.attributes, Timestamp::now());
        }
        notice
    }

    /// Appends whole entries, or nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes);
        match &written {
            Ok(()) => self.size += bytes.len() as u64,
            // Part of an entry would look like damage. Where it cannot be truncated, readers skip it.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        written
    }

    /// Begins a new file. A file that cannot be renamed is overwritten: the size limit has precedence over old entries.
    fn rotate(&mut self) {
        let oldest = self.options.max_files - 1;
        let present = (0..oldest).take_while(|age| path(&self.dir, *age).exists()).count() as u32;
        for age in (0..present).rev() {
            let _ = fs::rename(path(&self.dir, age), path(&self.dir, age + 1));
        }
        let _ = fs::remove_file(path(&self.dir, 0));
        match open(&self.dir) {
            Ok(file) => (self.file, self.size) = (file, 0),
            // No new file could be created: the open one is the only file, so it is truncated.
            Err(_) => {
                let _ = self.file.set_len(0);
                self.size = 0;
            }
        }
    }
}

/// Passes on complete lines of `pending` and `bytes`, in pieces of at most [`MAX_ENTRY`]; the rest is pending.
pub(super) fn split(pending: &mut Vec<u8>, mut bytes: &[u8], mut pass: impl FnMut(&[u8])) {
    while !bytes.is_empty() {
        let room = MAX_ENTRY - pending.len();
        let end = bytes.iter().take(room).position(|byte| *byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(room.min(bytes.len()));
        pending.extend_from_slice(&bytes[..taken]);
        bytes = &bytes[taken..];
        if end.is_some() || pending.len() == MAX_ENTRY {
            pass(pending);
            pending.clear();
        }
    }
}

/// Entries that one call writes.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    entries: u64,
}

pub(super) fn open(dir: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path(dir, 0))
}

/// Ends a line that a crash cut off, so that the next entry starts a new one; returns the size of the file.
fn end_last_line(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let size = file.metadata()?.len();
    let mut last = [b'\n'];
    if size > 0 {
        file.read_exact_at(&mut last, size - 1)?;
    }
    if last == [b'\n'] {
        return Ok(size);
    }
    (&*file).write_all(b"\n")?;
    Ok(size + 1)
}
