//! Direct changes to a layer: directories and files written above a lower tree that is only read.
//!
//! COPY, ADD and WORKDIR run no process, so they need no mount: [`LayerWriter`] resolves paths in the merged view of
//! the new layer and the tree below it, and writes into the layer only. A directory that exists below is copied up with
//! its metadata, and keeps its time although a file was added to it, so that equal inputs result in equal layers.

use crate::sys::{self, CallError, Named};
use crate::tree::{RealPath, Tree, open_inside};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Owner, permissions and time of a file in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner as a uid.
    pub uid: u32,
    /// Group as a gid.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
}

/// Content of a new file.
#[derive(Clone, Copy, Debug)]
pub enum FileData<'a> {
    /// Bytes that are in memory.
    Bytes(&'a [u8]),
    /// The content of another file, from its start.
    File(&'a File),
}

/// Failure to write a file to a layer.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A system call failed.
    #[error("cannot write the layer")]
    Call(#[from] CallError),
    /// The parent is not a directory.
    #[error("cannot copy to non-directory: {path}", path = .0.display())]
    NotADir(PathBuf),
    /// A directory exists where a file is to be written.
    #[error("cannot replace to directory {path} with file", path = .0.display())]
    DirInTheWay(PathBuf),
}

impl WriteError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, WriteError::Call(error) if error.is_full())
    }
}

/// Writer of a layer above a lower tree.
pub struct LayerWriter {
    /// Merged view: the layer first, then the tree below.
    tree: Tree,
    /// Times of the layer's directories, to be set when all files are written.
    times: BTreeMap<RealPath, (i64, u32)>,
}

impl LayerWriter {
    /// Creates a writer into the directory `upper`; `lower` is the root of the tree below, if there is one.
    pub fn new(upper: &Path, lower: Option<OwnedFd>) -> Result<LayerWriter, CallError> {
        let roots = std::iter::once(sys::open_dir(upper)?).chain(lower).collect();
        Ok(LayerWriter { tree: Tree::of(roots), times: BTreeMap::new() })
    }

    /// Creates a writer into an open directory without a tree below.
    pub fn at(dir: OwnedFd) -> LayerWriter {
        LayerWriter { tree: Tree::of(vec![dir]), times: BTreeMap::new() }
    }

    /// Opens the directory `path`, following links; it is copied up if necessary.
    ///
    /// # Errors
    /// Fails when the path does not exist or is not a directory.
    pub fn open_dir(&mut self, path: &[u8]) -> Result<OwnedFd, WriteError> {
        let real = self.tree.resolve(path)?;
        Ok(self.enter(&real)?)
    }

    /// Sets the remaining times and closes the layer.
    pub fn finish(self) -> Result<(), CallError> {
        for (path, (seconds, nanos)) in &self.times {
            let times = sys::timestamps(*seconds, *nanos);
            let opened = open_inside(self.upper(), path, OFlags::RDONLY | OFlags::DIRECTORY);
            opened.and_then(|dir| fs::futimens(dir, &times)).call("utimensat", path.display())?;
        }
        Ok(())
    }

    /// Metadata of `path` in the merged view, following links; `None` when the path does not exist.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>, WriteError> {
        let real = self.tree.resolve(path)?;
        Ok(self.tree.stat(&real)?)
    }

    /// Creates the directory `path` and missing parents; returns true when it did not exist.
    ///
    /// All new directories get the same metadata.
    ///
    /// # Errors
    /// [`WriteError::NotADir`] when the path leads through a file.
    pub fn make_dirs(&mut self, path: &[u8], metadata: &Metadata) -> Result<bool, WriteError> {
        let real = self.tree.resolve(path)?;
        self.make_real_dirs(&real, metadata)
    }

    /// Sets the metadata of the directory `path`, following links.
    ///
    /// # Errors
    /// Fails in the cases of [`LayerWriter::open_dir`].
    pub fn set_dir(&mut self, path: &[u8], metadata: &Metadata) -> Result<(), WriteError> {
        let real = self.tree.resolve(path)?;
        let dir = self.enter(&real)?;
        set_owner_and_mode(dir.as_fd(), metadata).call("chmod", real.display())?;
        self.times.insert(real, metadata.mtime);
        Ok(())
    }

    /// Writes a file at `path`, following links; replaces an existing file.
    ///
    /// # Errors
    /// [`WriteError::DirInTheWay`] when `path` is a directory.
    pub fn put_file(
        &mut self,
        path: &[u8],
        data: FileData<'_>,
        metadata: &Metadata,
    ) -> Result<(), WriteError> {
        let real = self.tree.resolve(path)?;
        let (dir, name) = self.enter_parent(&real)?;
        self.clear_for_file(&real)?;
        write_file(dir.as_fd(), &name, data, metadata).call("write", real.display())?;
        Ok(())
    }

    pub(crate) fn make_real_dirs(
        &mut self,
        real: &RealPath,
        metadata: &Metadata,
    ) -> Result<bool, WriteError> {
        match self.tree.stat(real)? {
            Some(stat) if sys::file_type(&stat) == FileType::Directory => return Ok(false),
            Some(_) => return Err(WriteError::NotADir(real.display())),
            None => {}
        }
        let Some(name) = real.name() else { return Ok(false) };
        let above = real.parent();
        self.make_real_dirs(&above, metadata)?;
        let dir = self.enter(&above)?;
        make_dir(dir.as_fd(), name, metadata).call("mkdir", real.display())?;
        self.times.insert(real.clone(), metadata.mtime);
        Ok(true)
    }

    /// Directory of the layer for `real`, which exists in the merged view; copied up if necessary.
    pub(crate) fn enter(&mut self, real: &RealPath) -> Result<OwnedFd, CallError> {
        let mut dir = self.upper().try_clone_to_owned().call("dup", real.display())?;
        let mut here = RealPath::root();
        for name in real.names() {
            here = here.child(name);
            dir = match sys::open_dir_at(dir.as_fd(), name) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => self.copy_up(dir.as_fd(), name, &here)?,
                Err(errno) => return Err(CallError { call: "open", path: here.display(), errno }),
            };
        }
        Ok(dir)
    }

    /// Parent directory of a real path in the layer, and its last name.
    pub(crate) fn enter_parent(&mut self, real: &RealPath) -> Result<(OwnedFd, CString), WriteError> {
        let name = real.name().ok_or_else(|| WriteError::DirInTheWay("/".into()))?;
        Ok((self.enter(&real.parent())?, name.clone()))
    }

    /// Merged view of the layer and the tree below.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Directory of the lower tree at `real`, if it has one.
    pub(crate) fn lower_dir(&self, real: &RealPath) -> Option<OwnedFd> {
        let lower = self.tree.roots().get(1)?;
        open_inside(lower.as_fd(), real, OFlags::RDONLY | OFlags::DIRECTORY).ok()
    }

    /// Root of the layer.
    pub(crate) fn upper(&self) -> BorrowedFd<'_> {
        self.tree.roots()[0].as_fd()
    }

    /// Records the time that the directory `real` gets at the end.
    pub(crate) fn set_dir_time(&mut self, real: RealPath, time: (i64, u32)) {
        self.times.insert(real, time);
    }

    /// Removes a file of the layer that is to be replaced; a directory is an error.
    pub(crate) fn clear_for_file(&self, real: &RealPath) -> Result<(), WriteError> {
        match self.tree.stat(real)? {
            Some(stat) if sys::file_type(&stat) == FileType::Directory => {
                Err(WriteError::DirInTheWay(real.display()))
            }
            Some(_) => {
                let name = real.name().ok_or_else(|| WriteError::DirInTheWay("/".into()))?;
                let above = open_inside(self.upper(), &real.parent(), OFlags::RDONLY | OFlags::DIRECTORY);
                match above.and_then(|above| fs::unlinkat(above, name, AtFlags::empty())) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(CallError { call: "unlink", path: real.display(), errno }.into()),
                }
            }
            None => Ok(()),
        }
    }

    fn copy_up(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        real: &RealPath,
    ) -> Result<OwnedFd, CallError> {
        let missing = || CallError { call: "open", path: real.display(), errno: Errno::NOENT };
        let below = self.lower_dir(real).ok_or_else(missing)?;
        let stat = fs::fstat(&below).call("stat", real.display())?;
        let metadata = Metadata::of(&stat);
        let dir = make_dir(parent, name, &metadata).call("mkdir", real.display())?;
        copy_xattrs(below.as_fd(), dir.as_fd()).call("setxattr", real.display())?;
        self.times.insert(real.clone(), metadata.mtime);
        Ok(dir)
    }
}

impl Metadata {
    /// Metadata of an existing file.
    pub fn of(stat: &Stat) -> Metadata {
        Metadata {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        }
    }
}

/// Creates a directory with owner and mode; the caller sets its time once it is filled.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &CStr, metadata: &Metadata) -> Result<OwnedFd, Errno> {
    fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    let dir = sys::open_dir_at(dir, name)?;
    set_owner_and_mode(dir.as_fd(), metadata)?;
    Ok(dir)
}

pub(crate) fn set_owner_and_mode(fd: BorrowedFd<'_>, metadata: &Metadata) -> Result<(), Errno> {
    let (uid, gid) = sys::owner(metadata.uid, metadata.gid);
    fs::fchown(fd, uid, gid)?;
    fs::fchmod(fd, Mode::from_raw_mode(metadata.mode))
}

/// Creates the file `name`, which must not exist.
pub(crate) fn write_file(
    dir: BorrowedFd<'_>,
    name: &CStr,
    data: FileData<'_>,
    metadata: &Metadata,
) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
    match data {
        FileData::Bytes(bytes) => file.write_all(bytes).map_err(|error| errno(&error))?,
        FileData::File(source) => copy_content(source, &file)?,
    }
    set_owner_and_mode(file.as_fd(), metadata)?;
    fs::futimens(&file, &sys::timestamps(metadata.mtime.0, metadata.mtime.1))?;
    Ok(file)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Copies in the kernel, sharing blocks where the file system supports it; otherwise by reading and writing.
fn copy_content(source: &File, target: &File) -> Result<(), Errno> {
    const SHARE_FROM: i64 = 128 * 1024;
    let size = fs::fstat(source)?.st_size;
    if size >= SHARE_FROM && fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let mut copied = 0;
    while copied < size {
        let wanted = usize::try_from(size - copied).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(source, None, target, None, wanted) {
            Ok(0) => break,
            Ok(count) => copied += count as i64,
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::IO)
                if copied == 0 =>
            {
                std::io::copy(&mut &*source, &mut &*target).map_err(|error| errno(&error))?;
                return Ok(());
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Copies the extended attributes that the target's file system supports.
pub(crate) fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = [0u8; 1024];
    let length = match fs::flistxattr(from, &mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::RANGE) => return Ok(()),
        Ok(length) => length,
        Err(errno) => return Err(errno),
    };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if super::overlay::is_internal_xattr(name.to_bytes()) {
            continue;
        }
        let mut value = [0u8; 64 * 1024];
        let Ok(length) = fs::fgetxattr(from, name, &mut value) else { continue };
        let set = fs::fsetxattr(to, name, &value[..length], XattrFlags::empty());
        // As in the reference, attributes that the file system cannot store are dropped.
        match set {
            Err(Errno::DQUOT) => return Err(Errno::DQUOT),
            // The same error means a value that is too large, however much space is free.
            Err(Errno::NOSPC) if !crate::sys::has_room(to) => return Err(Errno::NOSPC),
            _ => {}
        }
    }
    Ok(())
}
