//! Copying of trees into a layer, with the semantics of COPY.
//!
//! They are those of the reference builder's copier (tonistiigi/fsutil `copy/copy.go`): the contents of a directory are
//! copied to the destination, an existing directory keeps its metadata only at the top, files replace files, and hard
//! links within one copy stay linked.

use super::write::{self, FileData, LayerWriter, Metadata, WriteError};
use crate::sys::{self, CallError, Named};
use crate::tree::{RealPath, open_inside};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::sync::Mutex;

/// Decision about a member of a copied directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The member is copied.
    Take,
    /// The member is excluded, with everything below it.
    Skip,
    /// A directory is entered, and created only when something below it is copied.
    Enter,
}

/// Filter for the members of copied directories.
pub trait Selection: Sync {
    /// State of a directory that decisions about its members need.
    type Dir: Send + Sync;

    /// State of the copied directory itself.
    fn top(&self) -> Self::Dir;

    /// Decides about `path`, relative to the copied directory, in the directory with state `parent`.
    fn choose(&self, path: &[u8], is_dir: bool, parent: &Self::Dir) -> (Choice, Self::Dir);
}

/// Filter that selects everything.
#[derive(Clone, Copy, Debug)]
pub struct Everything;

impl Selection for Everything {
    type Dir = ();

    fn top(&self) {}

    fn choose(&self, _path: &[u8], _is_dir: bool, _parent: &()) -> (Choice, ()) {
        (Choice::Take, ())
    }
}

/// Change of the metadata of copied files.
pub trait Change: Sync {
    /// Metadata of the copy of a file with `metadata` and of this kind.
    fn change(&self, metadata: Metadata, kind: FileType) -> Metadata;
}

impl<F: Fn(Metadata, FileType) -> Metadata + Sync> Change for F {
    fn change(&self, metadata: Metadata, kind: FileType) -> Metadata {
        self(metadata, kind)
    }
}

/// One source and its destination.
pub struct CopyRequest<'a, S> {
    /// Open parent directory of the source.
    pub source: BorrowedFd<'a>,
    /// Name of the source in there; `.` for the directory itself.
    pub name: &'a CStr,
    /// Name of the copy in a destination directory.
    pub base: &'a [u8],
    /// Destination path, from the root; links are followed.
    pub destination: &'a [u8],
    /// Metadata of parent directories that have to be created.
    pub dirs: Metadata,
    /// Filter for the members of a directory.
    pub selection: &'a S,
    /// Change of the metadata of copies.
    pub change: &'a dyn Change,
    /// Whether extended attributes are copied.
    pub attributes: bool,
}

impl LayerWriter {
    /// Copies a file, link or directory.
    ///
    /// # Errors
    /// Fails when a directory would replace a file or a file a directory, and when reading or writing fails.
    pub fn copy<S: Selection>(&mut self, request: &CopyRequest<'_, S>) -> Result<(), WriteError> {
        let stat = sys::stat_at(request.source, request.name).call("stat", show(request.base))?;
        let stat =
            stat.ok_or_else(|| CallError { call: "stat", path: show(request.base), errno: Errno::NOENT })?;
        let is_dir = sys::file_type(&stat) == FileType::Directory;
        let mut real = self.tree().resolve(request.destination)?;
        let names_dir = matches!(request.destination.rsplit(|b| *b == b'/').next(), Some(b"" | b"."));
        if names_dir || is_dir {
            self.make_real_dirs(&real, &request.dirs)?;
        } else {
            self.make_real_dirs(&real.parent(), &request.dirs)?;
        }
        if is_dir {
            return self.copy_contents(request, real, &stat);
        }
        let into = self.tree().stat(&real)?.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
        if into {
            real = real.child(&CString::new(request.base).expect("a file name holds no NUL"));
        }
        let (dir, name) = self.enter_parent(&real)?;
        self.clear_for_file(&real)?;
        let copier = Copier { writer: self, request, links: Mutex::default() };
        copier.member(request.source, request.name, dir.as_fd(), &name, &stat, &real)
    }

    /// Copies the contents of a directory into the directory `real`, which gets the source's time.
    fn copy_contents<S: Selection>(
        &mut self,
        request: &CopyRequest<'_, S>,
        real: RealPath,
        stat: &Stat,
    ) -> Result<(), WriteError> {
        let source = sys::open_dir_at(request.source, request.name).call("open", show(request.base))?;
        let target = self.enter(&real)?;
        let lower = self.lower_dir(&real);
        let copier = Copier { writer: self, request, links: Mutex::default() };
        let dir = Dir { source, target: Some(target), lower, path: Vec::new(), real: real.clone() };
        copier.contents(&dir, &request.selection.top())?;
        let time = request.change.change(Metadata::of(stat), FileType::Directory).mtime;
        self.set_dir_time(real, time);
        Ok(())
    }
}

struct Copier<'a, 'b, S> {
    writer: &'a LayerWriter,
    request: &'a CopyRequest<'b, S>,
    /// First copy of a file with several names, by device and inode.
    links: Mutex<HashMap<(u64, u64), RealPath>>,
}

/// A subdirectory of the source, not opened yet.
struct Subdir<D> {
    name: CString,
    path: Vec<u8>,
    stat: Stat,
    choice: Choice,
    decision: D,
}

/// A directory being copied.
struct Dir {
    source: OwnedFd,
    /// Directory in the layer; `None` until something below it is copied.
    target: Option<OwnedFd>,
    lower: Option<OwnedFd>,
    /// Path relative to the source.
    path: Vec<u8>,
    /// Path in the image.
    real: RealPath,
}

impl<S: Selection> Copier<'_, '_, S> {
    fn contents(&self, dir: &Dir, decision: &S::Dir) -> Result<(), WriteError> {
        let names = sys::sorted_names(dir.source.as_fd()).call("getdents", show(&dir.path))?;
        let mut dirs = Vec::new();
        for name in names {
            let path = join_bytes(&dir.path, name.to_bytes());
            let stat = sys::stat_at(dir.source.as_fd(), &name).call("stat", show(&path))?;
            // The file was removed after the directory was listed.
            let Some(stat) = stat else { continue };
            let is_dir = sys::file_type(&stat) == FileType::Directory;
            let (choice, below) = self.request.selection.choose(&path, is_dir, decision);
            match choice {
                Choice::Skip => {}
                Choice::Enter if !is_dir => {}
                _ if is_dir => dirs.push(Subdir { name, path, stat, choice, decision: below }),
                _ => self.take_member(dir, &name, &path, &stat)?,
            }
        }
        self.dirs(dir, dirs)
    }

    /// Copies subdirectories in parallel.
    ///
    /// Each is opened only when its turn comes: a directory may have more subdirectories than a process may have open
    /// files.
    fn dirs(&self, dir: &Dir, subdirs: Vec<Subdir<S::Dir>>) -> Result<(), WriteError> {
        use rayon::prelude::*;
        subdirs.into_par_iter().try_for_each(|subdir| {
            let inner = self.subdir(dir, &subdir)?;
            self.contents(&inner, &subdir.decision)?;
            self.finish_dir(&inner, &subdir.stat)
        })
    }

    fn take_member(&self, dir: &Dir, name: &CStr, path: &[u8], stat: &Stat) -> Result<(), WriteError> {
        let target = self.target(dir)?;
        let real = dir.real.child(name);
        self.make_room(dir, target.as_fd(), name, &real)?;
        self.member(dir.source.as_fd(), name, target.as_fd(), name, stat, &real).map_err(
            |error| match error {
                WriteError::Call(call) => WriteError::Call(CallError { path: show(path), ..call }),
                other => other,
            },
        )
    }

    /// Directory in the layer; one that was only entered is created on the first call.
    fn target(&self, dir: &Dir) -> Result<OwnedFd, WriteError> {
        match &dir.target {
            Some(target) => Ok(target.try_clone().call("dup", show(&dir.path))?),
            None => Ok(self.make_entered(dir)?),
        }
    }

    fn make_entered(&self, dir: &Dir) -> Result<OwnedFd, CallError> {
        let names = dir.real.names();
        let top = names.len() - dir.path.split(|b| *b == b'/').filter(|p| !p.is_empty()).count();
        let above = RealPath(names[..top].to_vec());
        let mut target = open_inside(self.writer.upper(), &above, OFlags::RDONLY | OFlags::DIRECTORY)
            .call("open", show(&dir.path))?;
        for (depth, name) in names.iter().enumerate().skip(top) {
            target = match sys::open_dir_at(target.as_fd(), name) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => self.make_one_entered(dir, target.as_fd(), name, depth - top)?,
                Err(errno) => return Err(CallError { call: "open", path: show(&dir.path), errno }),
            };
        }
        Ok(target)
    }

    fn make_one_entered(
        &self,
        dir: &Dir,
        parent: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> Result<OwnedFd, CallError> {
        let names: Vec<&[u8]> = dir.path.split(|b| *b == b'/').collect();
        let up = names.len() - depth - 1;
        let back = CString::new([&b"."[..], &b"/..".repeat(up)].concat()).expect("dots hold no NUL");
        let stat = fs::statat(&dir.source, &back, AtFlags::empty()).call("stat", show(&dir.path))?;
        let metadata = self.request.change.change(Metadata::of(&stat), FileType::Directory);
        match write::make_dir(parent, name, &metadata) {
            // Another thread created it.
            Err(Errno::EXIST) => sys::open_dir_at(parent, name).call("open", show(&dir.path)),
            made => made.call("mkdir", show(&dir.path)),
        }
    }

    fn subdir<D>(&self, dir: &Dir, subdir: &Subdir<D>) -> Result<Dir, WriteError> {
        let Subdir { name, path, stat, choice, .. } = subdir;
        let source = sys::open_dir_at(dir.source.as_fd(), name).call("open", show(path))?;
        let real = dir.real.child(name);
        let lower = match &dir.lower {
            Some(lower) => self.lower_subdir(lower.as_fd(), name, &real)?,
            None => None,
        };
        let target = match choice {
            Choice::Take => {
                let parent = self.target(dir)?;
                let metadata = self.request.change.change(Metadata::of(stat), FileType::Directory);
                Some(take_dir(parent.as_fd(), name, &metadata, &real)?)
            }
            _ => None,
        };
        if let Some(target) = target.as_ref().filter(|_| self.request.attributes) {
            write::copy_xattrs(source.as_fd(), target.as_fd()).call("setxattr", show(path))?;
        }
        Ok(Dir { source, target, lower, path: path.clone(), real })
    }

    /// Directory of that name in the lower tree; fails for other kinds of files, which a directory does not replace.
    fn lower_subdir(
        &self,
        lower: BorrowedFd<'_>,
        name: &CStr,
        real: &RealPath,
    ) -> Result<Option<OwnedFd>, WriteError> {
        match sys::open_dir_at(lower, name) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(WriteError::NotADir(real.display())),
            Err(errno) => Err(CallError { call: "open", path: real.display(), errno }.into()),
        }
    }

    /// Times are set last, since filling a directory changes them.
    fn finish_dir(&self, dir: &Dir, stat: &Stat) -> Result<(), WriteError> {
        let entered = match &dir.target {
            Some(_) => None,
            // It exists if anything below it was copied.
            None => open_inside(self.writer.upper(), &dir.real, OFlags::RDONLY | OFlags::DIRECTORY).ok(),
        };
        let Some(target) = dir.target.as_ref().or(entered.as_ref()) else { return Ok(()) };
        let time = self.request.change.change(Metadata::of(stat), FileType::Directory).mtime;
        fs::futimens(target, &sys::timestamps(time.0, time.1)).call("utimensat", show(&dir.path))?;
        Ok(())
    }

    fn make_room(
        &self,
        dir: &Dir,
        target: BorrowedFd<'_>,
        name: &CStr,
        real: &RealPath,
    ) -> Result<(), WriteError> {
        let is_dir = |stat: Option<Stat>| stat.is_some_and(|s| sys::file_type(&s) == FileType::Directory);
        let call = |errno| CallError { call: "stat", path: real.display(), errno };
        let above = sys::stat_at(target, name).map_err(call)?;
        let below = match &dir.lower {
            Some(lower) if above.is_none() => sys::stat_at(lower.as_fd(), name).map_err(call)?,
            _ => None,
        };
        if is_dir(above) || is_dir(below) {
            return Err(WriteError::DirInTheWay(real.display()));
        }
        if above.is_some() {
            fs::unlinkat(target, name, AtFlags::empty()).call("unlink", real.display())?;
        }
        Ok(())
    }

    /// Copies a file that is not a directory to a free name in the layer.
    fn member(
        &self,
        source: BorrowedFd<'_>,
        name: &CStr,
        target: BorrowedFd<'_>,
        new_name: &CStr,
        stat: &Stat,
        real: &RealPath,
    ) -> Result<(), WriteError> {
        let kind = sys::file_type(stat);
        let metadata = self.request.change.change(Metadata::of(stat), kind);
        let call = |call| move |errno| CallError { call, path: real.display(), errno };
        match kind {
            FileType::RegularFile => {
                let copy = || {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                    let file = fs::openat(source, name, flags, Mode::empty()).map_err(call("open"))?;
                    let file = File::from(file);
                    let made = write::write_file(target, new_name, FileData::File(&file), &metadata);
                    let made = made.map_err(call("write"))?;
                    if !self.request.attributes {
                        return Ok(());
                    }
                    write::copy_xattrs(file.as_fd(), made.as_fd()).map_err(call("setxattr"))
                };
                return Ok(if stat.st_nlink < 2 {
                    copy()
                } else {
                    self.linked(target, new_name, stat, real, copy)
                }?);
            }
            FileType::Symlink => {
                let link = fs::readlinkat(source, name, Vec::new()).map_err(call("readlink"))?;
                fs::symlinkat(&link, target, new_name).map_err(call("symlink"))?;
            }
            // A socket has no function without its server: the copy is an empty file.
            FileType::Socket => {
                write::write_file(target, new_name, FileData::Bytes(b""), &metadata)
                    .map_err(call("create"))?;
                return Ok(());
            }
            kind => {
                let mode = Mode::from_raw_mode(metadata.mode);
                fs::mknodat(target, new_name, kind, mode, stat.st_rdev).map_err(call("mknod"))?;
                sys::chown_at(target, new_name, metadata.uid, metadata.gid).map_err(call("chown"))?;
                sys::chmod_at(target, new_name, metadata.mode).map_err(call("chmod"))?;
            }
        }
        sys::chown_at(target, new_name, metadata.uid, metadata.gid).map_err(call("chown"))?;
        sys::set_mtime_at(target, new_name, metadata.mtime.0, metadata.mtime.1).map_err(call("utimensat"))?;
        Ok(())
    }

    /// Copies a file with several names the first time, and links to that copy from then on.
    ///
    /// The lock is held while copying, so that the first copy is complete before it is linked.
    fn linked(
        &self,
        target: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        real: &RealPath,
        copy: impl FnOnce() -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let mut links = self.links.lock().expect("no thread panics while holding this lock");
        if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
            let above = open_inside(self.writer.upper(), &first.parent(), OFlags::RDONLY | OFlags::DIRECTORY);
            let first = first.name().map(CString::as_c_str).unwrap_or_default();
            match above.and_then(|above| fs::linkat(above, first, target, name, AtFlags::empty())) {
                Ok(()) => return Ok(()),
                Err(Errno::MLINK) => {}
                Err(errno) => return Err(CallError { call: "link", path: real.display(), errno }),
            }
        }
        copy()?;
        links.insert((stat.st_dev, stat.st_ino), real.clone());
        Ok(())
    }
}

/// Creates a directory with the source's metadata, or sets it on one that an earlier copy to this layer created.
fn take_dir(
    parent: BorrowedFd<'_>,
    name: &CStr,
    metadata: &Metadata,
    real: &RealPath,
) -> Result<OwnedFd, WriteError> {
    match write::make_dir(parent, name, metadata) {
        Ok(dir) => Ok(dir),
        Err(Errno::EXIST) => {
            let dir = sys::open_dir_at(parent, name).map_err(|_| WriteError::NotADir(real.display()))?;
            write::set_owner_and_mode(dir.as_fd(), metadata).call("chmod", real.display())?;
            Ok(dir)
        }
        Err(errno) => Err(CallError { call: "mkdir", path: real.display(), errno }.into()),
    }
}

fn join_bytes(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn show(path: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::path::PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
