//! Tar archives as Go's `archive/tar` reads and writes them.
//!
//! Layers are addressed by digests of their tar bytes and are unpacked by engines written in Go, so both directions
//! follow that implementation to the byte: a reader that disagrees about the end of an entry can be made to miss files
//! that others see. The whole program uses this one parser.
//!
//! Formats read: V7, USTAR, PAX, GNU (long names, base-256 numbers, sparse files old and PAX 0.x/1.0). Written: USTAR,
//! and PAX where a value does not fit.

mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Content, Reader};
pub use writer::Writer;

use std::collections::BTreeMap;
use std::io;

/// Size of a block in bytes; headers and padding are multiples of it.
pub(crate) const BLOCK: usize = 512;

/// Type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A file with content.
    File,
    /// A further name of an earlier file in the archive.
    HardLink,
    /// A symbolic link to a path.
    Symlink,
    /// A character device with its numbers.
    CharDevice,
    /// A block device with its numbers.
    BlockDevice,
    /// A directory, which has no content.
    Directory,
    /// A FIFO, which has no content.
    Fifo,
}

/// Metadata of an entry. Names are the bytes in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type of the entry.
    pub kind: EntryKind,
    /// Path as in the archive, not validated.
    pub name: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner as a uid.
    pub uid: u32,
    /// Group as a gid.
    pub gid: u32,
    /// Length of the content in bytes, holes included.
    pub size: u64,
    /// Modification time: seconds since 1970.
    pub mtime: i64,
    /// Fraction of the modification time in nanoseconds.
    pub mtime_nanos: u32,
    /// Major number of a device.
    pub major: u32,
    /// Minor number of a device.
    pub minor: u32,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    /// Creates an entry of the given type and name with everything else zero.
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

/// Failure to read or write an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading or writing the bytes failed.
    #[error("cannot {0} the tar stream")]
    Io(&'static str, #[source] io::Error),
    /// The archive ends inside an entry.
    #[error("the tar stream ends in the middle of an entry")]
    Truncated,
    /// A header violates the format.
    #[error("invalid tar header at byte {offset}: {reason}")]
    Header {
        /// Offset of the header in bytes.
        offset: u64,
        /// Violation of the format.
        reason: &'static str,
    },
    /// The type of an entry is unknown.
    #[error("unhandled tar entry type `{kind}` for `{name}`", kind = *.0 as char, name = String::from_utf8_lossy(.1))]
    Kind(u8, Vec<u8>),
    /// The archive has too many headers.
    #[error("the tar has more than {0} entries: unpack it by hand if you trust it")]
    TooMany(u64),
    /// The holes of a sparse file expand the archive too much.
    #[error("refused `{name}` of the tar: {1}", name = String::from_utf8_lossy(.0))]
    Expands(Vec<u8>, String),
}

#[cfg(test)]
mod tests;
