//! Packing of a layer directory as a deterministic tar.
//!
//! The bytes depend on the files alone, not on the order in which a directory lists them: names are sorted, owners are
//! numeric, times are whole seconds, and of several names of one file the first has the content. Sockets are left out.

use super::pack::{Owner, Packer, display};
use super::{OPAQUE, WHITEOUT, check_length, overlay};
use crate::sys::{self, CallError, Descent, Named};
use crate::tar::{Entry, EntryKind, TarError};
use rustix::fs::{self, FileType, Stat};
use std::ffi::{CStr, CString};
use std::io::Write;
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
    write(path, output, i64::MAX, Owner::Store)
}

/// Packs like [`diff`] a layer that a container may be changing.
///
/// # Errors
/// Fails in the cases of [`diff`].
pub fn diff_of_container<W: Write>(path: &Path, output: W) -> Result<W, DiffError> {
    write(path, output, i64::MAX, Owner::Container)
}

/// Packs like [`diff`]; times later than `latest`, in seconds since 1970, are replaced by it.
///
/// # Errors
/// Fails in the cases of [`diff`].
pub fn diff_until<W: Write>(path: &Path, output: W, latest: i64) -> Result<W, DiffError> {
    write(path, output, latest, Owner::Store)
}

fn write<W: Write>(path: &Path, output: W, latest: i64, owner: Owner) -> Result<W, DiffError> {
    let root = sys::open_dir(path)?;
    let mut differ = Differ { packer: Packer::new(output, latest, owner), way: Descent::new(root) };
    if overlay::is_opaque(differ.way.here()).call("getxattr", path)? {
        let stat = fs::fstat(differ.way.here()).call("stat", path)?;
        differ.opaque(b"", &stat)?;
    }
    differ.tree()?;
    Ok(differ.packer.writer.finish()?)
}

/// Permissions of whiteouts, as moby's archive package writes them.
const WHITEOUT_MODE: u32 = 0o600;

struct Differ<W: Write> {
    packer: Packer<W>,
    /// Current directory of the walk.
    way: Descent,
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
                .packer
                .writer
                .begin(&Entry { mode: WHITEOUT_MODE, ..Entry::new(EntryKind::File, hidden) })?);
        }
        match sys::file_type(&stat) {
            FileType::Directory => self.directory(name, path, &stat),
            _ => self.packer.member(self.way.here(), name, path, &stat),
        }
    }

    fn directory(&mut self, name: &CStr, path: &mut Vec<u8>, stat: &Stat) -> Result<(), DiffError> {
        check_length(path)?;
        self.way.enter(name).call("open", display(path))?;
        self.packer.writer.begin(&self.packer.entry(EntryKind::Directory, path, stat))?;
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
        Ok(self.packer.writer.begin(&mark)?)
    }
}
