//! Reads a log: its last lines or those of a time span, and lines appended meanwhile.

use super::follow::Follower;
use super::{Entry, path};
use jiff::Timestamp;
use rustix::fd::BorrowedFd;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Size of one read in bytes when lines are counted from the end.
const BLOCK: u64 = 64 << 10;

/// Selection of a log's entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only entries of this time and later.
    pub since: Option<Timestamp>,
    /// Only entries before this time; following ends at the first later entry.
    pub until: Option<Timestamp>,
    /// Number of existing entries to return, counted from the last; `None` for all.
    pub tail: Option<u64>,
}

/// Reason why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An operation on a file failed.
    #[error("cannot read the log `{path}`", path = path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
    /// Changes of the files cannot be watched.
    #[error("cannot watch the log in `{path}`", path = path.display())]
    Watch {
        /// Directory of the log.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
}

/// Passes entries to `emit`, the oldest first, until it breaks or the log ends. With `follow`, a descriptor that
/// becomes readable when the writer has ended, later entries are passed on as they are written until then.
///
/// Lines that are not entries are skipped: a crash can leave part of one. A log that does not exist is empty.
///
/// # Errors
/// Fails when a file cannot be read or watched.
pub fn read(
    dir: &Path,
    query: &LogQuery,
    follow: Option<BorrowedFd<'_>>,
    emit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
) -> Result<(), LogError> {
    // The watch starts before the files are read, so that no write in between is missed.
    let mut follower = follow.map(|ended| Follower::new(dir, ended)).transpose()?;
    let files = open_after(dir, None)?;
    let start = match query.tail {
        Some(lines) => Start::before_last(&files, lines).map_err(|source| failed(dir, source))?,
        None => Start::default(),
    };
    let mut pass = |line: &[u8]| {
        let Some(entry) = Entry::parse(line) else { return ControlFlow::Continue(()) };
        if query.until.is_some_and(|until| entry.time >= until) {
            return ControlFlow::Break(());
        }
        if query.since.is_some_and(|since| entry.time < since) {
            return ControlFlow::Continue(());
        }
        emit(&entry)
    };
    let mut last = None;
    for (number, file) in files.into_iter().enumerate().skip(start.file) {
        let mut lines = Lines::new(file).map_err(|source| failed(dir, source))?;
        if number == start.file {
            lines.skip_to(start.offset).map_err(|source| failed(dir, source))?;
        }
        if lines.pass(&mut pass).map_err(|source| failed(dir, source))?.is_break() {
            return Ok(());
        }
        last = Some(lines);
    }
    match &mut follower {
        Some(follower) => follower.run(last, &mut pass),
        None => Ok(()),
    }
}

pub(super) fn failed(dir: &Path, source: io::Error) -> LogError {
    LogError::File { path: path(dir, 0), source }
}

/// Opens the files of a log that are newer than the file `last`, the oldest first; all files for `None`.
///
/// A rotation renames the files one by one, from the oldest to the newest: meanwhile one number is missing, and a file
/// that was opened can appear again under the next number. The files are opened again then.
pub(super) fn open_after(dir: &Path, last: Option<u64>) -> Result<Vec<File>, LogError> {
    loop {
        if let Some(files) = try_open_after(dir, last)? {
            return Ok(files);
        }
        // The container has been removed with its log, which has no newer files then.
        if !dir.exists() {
            return Ok(Vec::new());
        }
    }
}

/// As [`open_after`]; `None` when a rotation was observed.
fn try_open_after(dir: &Path, last: Option<u64>) -> Result<Option<Vec<File>>, LogError> {
    let mut files: Vec<(u64, File)> = Vec::new();
    for age in 0.. {
        let Some((inode, file)) = open_numbered(dir, age)? else {
            if open_numbered(dir, age + 1)?.is_some() {
                return Ok(None);
            }
            break;
        };
        if Some(inode) == last {
            break;
        }
        if files.iter().any(|(known, _)| *known == inode) {
            return Ok(None);
        }
        files.push((inode, file));
    }
    let newest = open_numbered(dir, 0)?.map(|(inode, _)| inode);
    let is_unchanged = match files.first() {
        Some((inode, _)) => newest == Some(*inode),
        None => newest == last,
    };
    Ok(is_unchanged.then(|| files.into_iter().rev().map(|(_, file)| file).collect()))
}

/// Opens a file by its number; returns its inode number as well. `None` when there is none.
fn open_numbered(dir: &Path, age: u32) -> Result<Option<(u64, File)>, LogError> {
    let path = path(dir, age);
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.ino(), file)));
    match opened {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LogError::File { path, source }),
    }
}

/// Position at which reading begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Start {
    file: usize,
    offset: u64,
}

impl Start {
    /// Position from which `wanted` lines follow, or the beginning of the log.
    fn before_last(files: &[File], wanted: u64) -> io::Result<Start> {
        let mut left = wanted;
        for (number, file) in files.iter().enumerate().rev() {
            let size = file.metadata()?.len();
            let (offset, found) = line_from_end(file, size, left)?;
            left -= found;
            if left == 0 {
                return Ok(Start { file: number, offset });
            }
        }
        Ok(Start::default())
    }
}

/// The offset of the last `wanted` lines among the first `size` bytes of a file, and how many there are, at most `wanted`.
/// A line that has not ended counts.
fn line_from_end(file: &File, size: u64, wanted: u64) -> io::Result<(u64, u64)> {
    if wanted == 0 || size == 0 {
        return Ok((size, 0));
    }
    let mut found = 0;
    let mut buffer = vec![0; BLOCK as usize];
    let mut end = size;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let block = &mut buffer[..(end - begin) as usize];
        file.read_exact_at(block, begin)?;
        for at in memchr::memrchr_iter(b'\n', block) {
            let after = begin + at as u64 + 1;
            // The newline at the very end ends the last line; every other newline precedes one.
            if after == size {
                continue;
            }
            found += 1;
            if found == wanted {
                return Ok((after, found));
            }
        }
        end = begin;
    }
    Ok((0, found + 1))
}

/// Lines of a file that may grow.
pub(super) struct Lines {
    reader: BufReader<File>,
    /// A line whose end has not been written yet.
    line: Vec<u8>,
    inode: u64,
}

impl Lines {
    pub(super) fn new(file: File) -> io::Result<Lines> {
        let inode = file.metadata()?.ino();
        Ok(Lines { reader: BufReader::with_capacity(BLOCK as usize, file), line: Vec::new(), inode })
    }

    /// Inode number of the file, which identifies it after a rename.
    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(offset)).map(drop)
    }

    /// Passes on the complete lines, up to the present end of the file.
    pub(super) fn pass(
        &mut self,
        pass: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        // After a write error on a full disk the writer truncates a partial entry.
        let position = self.reader.stream_position()?;
        if self.reader.get_ref().metadata()?.len() < position {
            self.line.clear();
            let size = self.reader.get_ref().metadata()?.len();
            self.skip_to(size)?;
        }
        while self.reader.read_until(b'\n', &mut self.line)? > 0 {
            if self.line.last() != Some(&b'\n') {
                break;
            }
            let flow = pass(&self.line);
            self.line.clear();
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
