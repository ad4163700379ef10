//! Packing of a layer directory as a deterministic tar.
//!
//! The bytes depend on the files alone, not on the order in which a directory lists them: names are sorted, owners are
//! numeric, times are whole seconds, and of several names of one file the first has the content. Sockets are left out.

use super::{CAPABILITY, OPAQUE, WHITEOUT, check_length, overlay};
use crate::sys::{self, CallError, Descent, Named};
use crate::tar::{Entry, EntryKind, TarError, Writer};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Failure to pack a layer directory.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A file could not be read.
    #[error("cannot read the layer")]
    Call(#[from] CallError),
    /// The tar could not be written.
    #[error("cannot write the layer's tar")]
    Tar(#[from] TarError),
    /// A file changed while it was read.
    #[error("`{path}` changed while the layer was read", path = .0.display())]
    Changed(PathBuf),
}

/// Writes the layer in the directory `path` to `output` and returns `output`.
///
/// The directory itself has no entry: the root is the same in all images.
///
/// # Errors
/// [`DiffError::Changed`] when a file is modified meanwhile; other errors are those of reading and writing.
pub fn diff<W: Write>(path: &Path, output: W) -> Result<W, DiffError> {
    write(path, output, i64::MAX)
}

/// Packs like [`diff`]; times later than `latest`, in seconds since 1970, are replaced by it.
///
/// # Errors
/// Fails in the cases of [`diff`].
pub fn diff_until<W: Write>(path: &Path, output: W, latest: i64) -> Result<W, DiffError> {
    write(path, output, latest)
}

fn write<W: Write>(path: &Path, output: W, latest: i64) -> Result<W, DiffError> {
    let root = sys::open_dir(path)?;
    let (writer, seen) = (Writer::new(output), HashMap::new());
    let way = Descent::new(root);
    let mut differ = Differ { writer, way, seen, buffer: vec![0; 256 * 1024], latest };
    if overlay::is_opaque(differ.way.here()).call("getxattr", path)? {
        let stat = fs::fstat(differ.way.here()).call("stat", path)?;
        differ.opaque(b"", &stat)?;
    }
    differ.tree()?;
    Ok(differ.writer.finish()?)
}

/// Permissions of whiteouts, as moby's archive package writes them.
const WHITEOUT_MODE: u32 = 0o600;

struct Differ<W: Write> {
    writer: Writer<W>,
    /// Current directory of the walk.
    way: Descent,
    /// First name of each file with several names, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    latest: i64,
}

impl<W: Write> Differ<W> {
    /// Writes everything below the top. Not recursive, as a tree may be deeper than the stack of a thread.
    fn tree(&mut self) -> Result<(), DiffError> {
        let mut path = Vec::new();
        let mut pending = vec![(0, self.names(&path)?)];
        while let Some((length, names)) = pending.last_mut() {
            let length = *length;
            path.truncate(length);
            let Some(name) = names.next() else {
                pending.pop();
                self.way.leave().call("open", display(&path))?;
                continue;
            };
            path.extend_from_slice(name.to_bytes());
            self.member(&name, &mut path, length)?;
            // A path that ends with a slash is a directory that was entered.
            if path.ends_with(b"/") {
                pending.push((path.len(), self.names(&path)?));
            }
        }
        Ok(())
    }

    /// Names in the current directory, whose path is `prefix`.
    fn names(&self, prefix: &[u8]) -> Result<std::vec::IntoIter<CString>, DiffError> {
        Ok(sys::sorted_names(self.way.here()).call("getdents", display(prefix))?.into_iter())
    }

    /// Writes the entry of `name`; its path is `path`, of which the first `dir` bytes are the directory. A directory is
    /// entered.
    fn member(&mut self, name: &CStr, path: &mut Vec<u8>, dir: usize) -> Result<(), DiffError> {
        let stat = sys::stat_at(self.way.here(), name).call("stat", display(path))?;
        let stat = stat.ok_or_else(|| DiffError::Changed(display(path)))?;
        if sys::is_whiteout(&stat) {
            let hidden = [&path[..dir], WHITEOUT, name.to_bytes()].concat();
            return Ok(self
                .writer
                .begin(&Entry { mode: WHITEOUT_MODE, ..Entry::new(EntryKind::File, hidden) })?);
        }
        match sys::file_type(&stat) {
            FileType::Directory => self.directory(name, path, &stat),
            FileType::RegularFile => self.file(name, path, &stat),
            FileType::Symlink => {
                let target =
                    fs::readlinkat(self.way.here(), name, Vec::new()).call("readlink", display(path))?;
                let mut entry = self.entry(EntryKind::Symlink, path, &stat);
                entry.link = target.into_bytes();
                self.named_entry(entry, &stat)
            }
            FileType::CharacterDevice => {
                self.named_entry(self.entry(EntryKind::CharDevice, path, &stat), &stat)
            }
            FileType::BlockDevice => self.named_entry(self.entry(EntryKind::BlockDevice, path, &stat), &stat),
            FileType::Fifo => self.named_entry(self.entry(EntryKind::Fifo, path, &stat), &stat),
            _ => Ok(()),
        }
    }

    fn directory(&mut self, name: &CStr, path: &mut Vec<u8>, stat: &Stat) -> Result<(), DiffError> {
        check_length(path)?;
        self.way.enter(name).call("open", display(path))?;
        self.writer.begin(&self.entry(EntryKind::Directory, path, stat))?;
        path.push(b'/');
        if overlay::is_opaque(self.way.here()).call("getxattr", display(path))? {
            self.opaque(path, stat)?;
        }
        Ok(())
    }

    fn opaque(&mut self, dir: &[u8], stat: &Stat) -> Result<(), DiffError> {
        let mark = Entry {
            mode: stat.st_mode & 0o777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            ..Entry::new(EntryKind::File, [dir, OPAQUE].concat())
        };
        Ok(self.writer.begin(&mark)?)
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

    fn file(&mut self, name: &CStr, path: &[u8], stat: &Stat) -> Result<(), DiffError> {
        let mut entry = self.entry(EntryKind::File, path, stat);
        entry.size = stat.st_size as u64;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = fs::openat(self.way.here(), name, flags, Mode::empty()).call("open", display(path))?;
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

    fn entry(&self, kind: EntryKind, path: &[u8], stat: &Stat) -> Entry {
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

fn display(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
