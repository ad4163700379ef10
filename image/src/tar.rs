//! Tar archives, as Go's `archive/tar` reads and writes them.
//!
//! Layers are addressed by digests over their tar bytes and are unpacked by engines written in Go, so both
//! directions follow that implementation to the byte: a reader that disagrees about where an entry ends
//! can be made to miss files that others see. One parser serves the whole program.
//!
//! Formats read: V7, USTAR, PAX, GNU (long names, base-256 numbers, sparse files old and PAX 0.x/1.0).
//! Written: USTAR, and PAX where a value does not fit.

mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Content, Reader};
pub use writer::Writer;

use std::collections::BTreeMap;
use std::io;

/// Headers and padding are multiples of this many bytes.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A file with content.
    File,
    /// Another name for an earlier file of the archive.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry's metadata. Names are bytes as they stand in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Its path, unchecked.
    pub name: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of the content in bytes, holes included.
    pub size: u64,
    /// Modification time: seconds since 1970.
    pub mtime: i64,
    /// Its fraction in nanoseconds.
    pub mtime_nanos: u32,
    /// Device major number.
    pub major: u32,
    /// Device minor number.
    pub minor: u32,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    /// An entry of the given kind and name with everything else zero.
    pub fn new(kind: EntryKind, name: impl Into<Vec<u8>>) -> Entry {
        Entry {
            kind,
            name: name.into(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            mtime_nanos: 0,
            major: 0,
            minor: 0,
            xattrs: BTreeMap::new(),
        }
    }
}

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading or writing the bytes failed.
    #[error("cannot {0} the tar stream")]
    Io(&'static str, #[source] io::Error),
    /// The archive ends inside an entry.
    #[error("the tar stream ends in the middle of an entry")]
    Truncated,
    /// A header breaks the format.
    #[error("invalid tar header at byte {offset}: {reason}")]
    Header {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry type nobody defines.
    #[error("unhandled tar entry type `{kind}` for `{name}`", kind = *.0 as char, name = String::from_utf8_lossy(.1))]
    Kind(u8, Vec<u8>),
    /// More headers than are read.
    #[error("the tar has more than {0} entries: unpack it by hand if you trust it")]
    TooMany(u64),
    /// A sparse file with holes that make the archive far larger than it is.
    #[error("refused `{name}` of the tar: {1}", name = String::from_utf8_lossy(.0))]
    Expands(Vec<u8>, String),
}

#[cfg(test)]
mod tests;
