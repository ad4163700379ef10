//! Packing of single files: what all writers of tars in this crate have in common.
//!
//! Owners are numeric, times are whole seconds, of several names of one file the first has the content, and capabilities
//! are the only extended attribute. Sockets are left out.

use super::{CAPABILITY, DiffError};
use crate::sys::{self, Named};
use crate::tar::{Entry, EntryKind, Writer};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

/// The one that may change files while they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The store, which does not change its layers.
    Store,
    /// A container: it may replace a file by a device between two calls.
    Container,
}

/// Writer of files as entries of a tar.
pub(super) struct Packer<W: Write> {
    pub(super) writer: Writer<W>,
    /// First name of each file with several names, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    /// Latest time of a file, in seconds since 1970: later ones are replaced by it.
    latest: i64,
    owner: Owner,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(output: W, latest: i64, owner: Owner) -> Packer<W> {
        let (writer, seen) = (Writer::new(output), HashMap::new());
        Packer { writer, seen, buffer: vec![0; 256 * 1024], latest, owner }
    }

    /// Writes the entry of the file `name` in `dir`, which is not a directory, under a path.
    pub(super) fn member(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), DiffError> {
        let kind = match sys::file_type(stat) {
            FileType::RegularFile => return self.file(dir, name, path, stat),
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new()).call("readlink", display(path))?;
                let mut entry = self.entry(EntryKind::Symlink, path, stat);
                entry.link = target.into_bytes();
                return self.named_entry(entry, stat);
            }
            FileType::CharacterDevice => EntryKind::CharDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::Fifo => EntryKind::Fifo,
            _ => return Ok(()),
        };
        self.named_entry(self.entry(kind, path, stat), stat)
    }

    /// Writes an entry without content; further names of the same file become hard links.
    fn named_entry(&mut self, entry: Entry, stat: &Stat) -> Result<(), DiffError> {
        let entry = self.link_to_first(entry, stat);
        Ok(self.writer.begin(&entry)?)
    }

    fn link_to_first(&mut self, entry: Entry, stat: &Stat) -> Entry {
        if stat.st_nlink < 2 {
            return entry;
        }
        match self.seen.get(&(stat.st_dev, stat.st_ino)) {
            Some(first) => Entry { kind: EntryKind::HardLink, link: first.clone(), size: 0, ..entry },
            None => {
                self.seen.insert((stat.st_dev, stat.st_ino), entry.name.clone());
                entry
            }
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], stat: &Stat) -> Result<(), DiffError> {
        let mut entry = self.entry(EntryKind::File, path, stat);
        entry.size = stat.st_size as u64;
        let fd = match self.owner {
            Owner::Store => sys::open_file_at(dir, name).call("open", display(path))?,
            Owner::Container => sys::open_regular_at(dir, name)
                .call("open", display(path))?
                .ok_or_else(|| DiffError::Changed(display(path)))?,
        };
        if let Some(value) = capability(fd.as_fd()).call("getxattr", display(path))? {
            entry.xattrs.insert(CAPABILITY.to_vec(), value);
        }
        let entry = self.link_to_first(entry, stat);
        self.writer.begin(&entry)?;
        if entry.kind == EntryKind::File {
            self.copy_content(File::from(fd), path)?;
        }
        Ok(())
    }

    pub(super) fn entry(&self, kind: EntryKind, path: &[u8], stat: &Stat) -> Entry {
        let mut entry = Entry::new(kind, path);
        entry.mode = stat.st_mode & 0o7777;
        entry.uid = stat.st_uid;
        entry.gid = stat.st_gid;
        entry.mtime = stat.st_mtime.min(self.latest);
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            entry.major = fs::major(stat.st_rdev);
            entry.minor = fs::minor(stat.st_rdev);
        }
        entry
    }

    fn copy_content(&mut self, mut file: File, path: &[u8]) -> Result<(), DiffError> {
        while self.writer.content_left() > 0 {
            let wanted =
                self.buffer.len().min(usize::try_from(self.writer.content_left()).unwrap_or(usize::MAX));
            let read = file.read(&mut self.buffer[..wanted]).call("read", display(path))?;
            if read == 0 {
                return Err(DiffError::Changed(display(path)));
            }
            self.writer.content(&self.buffer[..read])?;
        }
        Ok(())
    }
}

fn capability(fd: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    // The longest form of a capability value has 20 bytes.
    let mut value = [0u8; 64];
    match fs::fgetxattr(fd, c"security.capability", &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Path of a file for messages.
pub(super) fn display(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
