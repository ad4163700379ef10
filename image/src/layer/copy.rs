//! Copying trees into a layer, with the semantics of COPY.
//!
//! They are those of the reference builder's copier (tonistiigi/fsutil `copy/copy.go`): a folder's contents
//! go into the destination, a folder that exists keeps its own metadata only at the top, files replace
//! files, and hard links within one copy stay linked.

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

/// Whether a member of a copied folder is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Copy it.
    Take,
    /// Leave it out, with everything below it.
    Skip,
    /// A folder that is made only when something below it is copied.
    Enter,
}

/// Decides about the members of a folder while it is walked.
pub trait Selection: Sync {
    /// What the members of a folder need to know of it.
    type Folder: Send + Sync;

    /// What holds for the copied folder itself.
    fn top(&self) -> Self::Folder;

    /// Decides about `path`, relative to the copied folder, below `parent`.
    fn choose(&self, path: &[u8], is_folder: bool, parent: &Self::Folder) -> (Choice, Self::Folder);
}

/// Takes everything.
#[derive(Clone, Copy, Debug)]
pub struct Everything;

impl Selection for Everything {
    type Folder = ();

    fn top(&self) {}

    fn choose(&self, _path: &[u8], _is_folder: bool, _parent: &()) -> (Choice, ()) {
        (Choice::Take, ())
    }
}

/// How copied files' metadata changes.
pub trait Change: Sync {
    /// The metadata of the copy of something with `metadata` and of this kind.
    fn change(&self, metadata: Metadata, kind: FileType) -> Metadata;
}

impl<F: Fn(Metadata, FileType) -> Metadata + Sync> Change for F {
    fn change(&self, metadata: Metadata, kind: FileType) -> Metadata {
        self(metadata, kind)
    }
}

/// One thing to copy.
pub struct CopyRequest<'a, S> {
    /// The opened parent folder of what is copied.
    pub source: BorrowedFd<'a>,
    /// Its name there; `.` for the folder itself.
    pub name: &'a CStr,
    /// The name that the copy gets in a destination folder.
    pub base: &'a [u8],
    /// Where it goes, from the root; links are followed.
    pub destination: &'a [u8],
    /// Metadata of folders that have to be made on the way.
    pub folders: Metadata,
    /// What is taken out of a folder.
    pub selection: &'a S,
    /// What happens to metadata.
    pub change: &'a dyn Change,
    /// Extended attributes are copied.
    pub attributes: bool,
}

impl LayerWriter {
    /// Copies a file, link or folder.
    pub fn copy<S: Selection>(&mut self, request: &CopyRequest<'_, S>) -> Result<(), WriteError> {
        let stat = sys::stat_at(request.source, request.name).call("stat", show(request.base))?;
        let stat =
            stat.ok_or_else(|| CallError { call: "stat", path: show(request.base), errno: Errno::NOENT })?;
        let is_folder = sys::file_type(&stat) == FileType::Directory;
        let mut real = self.tree().resolve(request.destination)?;
        let names_folder = matches!(request.destination.rsplit(|b| *b == b'/').next(), Some(b"" | b"."));
        if names_folder || is_folder {
            self.make_real_folders(&real, &request.folders)?;
        } else {
            self.make_real_folders(&real.parent(), &request.folders)?;
        }
        if is_folder {
            return self.copy_contents(request, real, &stat);
        }
        let into = self.tree().stat(&real)?.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
        if into {
            real = real.child(&CString::new(request.base).expect("a file name holds no NUL"));
        }
        let (folder, name) = self.enter_parent(&real)?;
        self.clear_for_file(&real)?;
        let copier = Copier { writer: self, request, links: Mutex::default() };
        copier.member(request.source, request.name, folder.as_fd(), &name, &stat, &real)
    }

    /// The contents of a folder into the folder `real`, which takes over the source's time.
    fn copy_contents<S: Selection>(
        &mut self,
        request: &CopyRequest<'_, S>,
        real: RealPath,
        stat: &Stat,
    ) -> Result<(), WriteError> {
        let source = sys::open_dir_at(request.source, request.name).call("open", show(request.base))?;
        let target = self.enter(&real)?;
        let lower = self.lower_folder(&real);
        let copier = Copier { writer: self, request, links: Mutex::default() };
        let folder = Folder { source, target: Some(target), lower, path: Vec::new(), real: real.clone() };
        copier.contents(&folder, &request.selection.top())?;
        let time = request.change.change(Metadata::of(stat), FileType::Directory).mtime;
        self.set_folder_time(real, time);
        Ok(())
    }
}

struct Copier<'a, 'b, S> {
    writer: &'a LayerWriter,
    request: &'a CopyRequest<'b, S>,
    /// Where the first name of a file with several went, by device and inode.
    links: Mutex<HashMap<(u64, u64), RealPath>>,
}

/// A member of a folder that is a folder itself, not opened yet.
struct Subfolder<D> {
    name: CString,
    path: Vec<u8>,
    stat: Stat,
    choice: Choice,
    decision: D,
}

/// A folder being copied.
struct Folder {
    source: OwnedFd,
    /// The layer's folder; not made yet when only something below it may be wanted.
    target: Option<OwnedFd>,
    lower: Option<OwnedFd>,
    /// Relative to what is copied.
    path: Vec<u8>,
    /// In the image.
    real: RealPath,
}

impl<S: Selection> Copier<'_, '_, S> {
    fn contents(&self, folder: &Folder, decision: &S::Folder) -> Result<(), WriteError> {
        let names = sys::sorted_names(folder.source.as_fd()).call("getdents", show(&folder.path))?;
        let mut folders = Vec::new();
        for name in names {
            let path = join_bytes(&folder.path, name.to_bytes());
            let stat = sys::stat_at(folder.source.as_fd(), &name).call("stat", show(&path))?;
            // A file that is gone by now was never there.
            let Some(stat) = stat else { continue };
            let is_folder = sys::file_type(&stat) == FileType::Directory;
            let (choice, below) = self.request.selection.choose(&path, is_folder, decision);
            match choice {
                Choice::Skip => {}
                Choice::Enter if !is_folder => {}
                _ if is_folder => folders.push(Subfolder { name, path, stat, choice, decision: below }),
                _ => self.take_member(folder, &name, &path, &stat)?,
            }
        }
        self.folders(folder, folders)
    }

    /// Subfolders are independent of each other and are copied side by side.
    ///
    /// Each is opened only when its turn comes: a folder may have more subfolders than a process may have
    /// open files.
    fn folders(&self, folder: &Folder, subfolders: Vec<Subfolder<S::Folder>>) -> Result<(), WriteError> {
        use rayon::prelude::*;
        subfolders.into_par_iter().try_for_each(|subfolder| {
            let inner = self.subfolder(folder, &subfolder)?;
            self.contents(&inner, &subfolder.decision)?;
            self.finish_folder(&inner, &subfolder.stat)
        })
    }

    fn take_member(&self, folder: &Folder, name: &CStr, path: &[u8], stat: &Stat) -> Result<(), WriteError> {
        let target = self.target(folder)?;
        let real = folder.real.child(name);
        self.make_room(folder, target.as_fd(), name, &real)?;
        self.member(folder.source.as_fd(), name, target.as_fd(), name, stat, &real).map_err(|error| {
            match error {
                WriteError::Call(call) => WriteError::Call(CallError { path: show(path), ..call }),
                other => other,
            }
        })
    }

    /// Folders that are only entered are made when the first thing below them is taken.
    fn target(&self, folder: &Folder) -> Result<OwnedFd, WriteError> {
        match &folder.target {
            Some(target) => Ok(target.try_clone().call("dup", show(&folder.path))?),
            None => Ok(self.make_entered(folder)?),
        }
    }

    fn make_entered(&self, folder: &Folder) -> Result<OwnedFd, CallError> {
        let names = folder.real.names();
        let top = names.len() - folder.path.split(|b| *b == b'/').filter(|p| !p.is_empty()).count();
        let above = RealPath(names[..top].to_vec());
        let mut target = open_inside(self.writer.upper(), &above, OFlags::RDONLY | OFlags::DIRECTORY)
            .call("open", show(&folder.path))?;
        for (depth, name) in names.iter().enumerate().skip(top) {
            target = match sys::open_dir_at(target.as_fd(), name) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => self.make_one_entered(folder, target.as_fd(), name, depth - top)?,
                Err(errno) => return Err(CallError { call: "open", path: show(&folder.path), errno }),
            };
        }
        Ok(target)
    }

    fn make_one_entered(
        &self,
        folder: &Folder,
        parent: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> Result<OwnedFd, CallError> {
        let names: Vec<&[u8]> = folder.path.split(|b| *b == b'/').collect();
        let up = names.len() - depth - 1;
        let back = CString::new([&b"."[..], &b"/..".repeat(up)].concat()).expect("dots hold no NUL");
        let stat = fs::statat(&folder.source, &back, AtFlags::empty()).call("stat", show(&folder.path))?;
        let metadata = self.request.change.change(Metadata::of(&stat), FileType::Directory);
        match write::make_folder(parent, name, &metadata) {
            // Another thread was faster.
            Err(Errno::EXIST) => sys::open_dir_at(parent, name).call("open", show(&folder.path)),
            made => made.call("mkdir", show(&folder.path)),
        }
    }

    fn subfolder<D>(&self, folder: &Folder, subfolder: &Subfolder<D>) -> Result<Folder, WriteError> {
        let Subfolder { name, path, stat, choice, .. } = subfolder;
        let source = sys::open_dir_at(folder.source.as_fd(), name).call("open", show(path))?;
        let real = folder.real.child(name);
        let lower = match &folder.lower {
            Some(lower) => self.lower_subfolder(lower.as_fd(), name, &real)?,
            None => None,
        };
        let target = match choice {
            Choice::Take => {
                let parent = self.target(folder)?;
                let metadata = self.request.change.change(Metadata::of(stat), FileType::Directory);
                Some(take_folder(parent.as_fd(), name, &metadata, &real)?)
            }
            _ => None,
        };
        if let Some(target) = target.as_ref().filter(|_| self.request.attributes) {
            write::copy_xattrs(source.as_fd(), target.as_fd()).call("setxattr", show(path))?;
        }
        Ok(Folder { source, target, lower, path: path.clone(), real })
    }

    /// The lower tree's folder of that name; anything else there is an error, as a folder is to be laid on it.
    fn lower_subfolder(
        &self,
        lower: BorrowedFd<'_>,
        name: &CStr,
        real: &RealPath,
    ) -> Result<Option<OwnedFd>, WriteError> {
        match sys::open_dir_at(lower, name) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(WriteError::NotAFolder(real.display())),
            Err(errno) => Err(CallError { call: "open", path: real.display(), errno }.into()),
        }
    }

    /// Times are set last, since filling a folder changes them.
    fn finish_folder(&self, folder: &Folder, stat: &Stat) -> Result<(), WriteError> {
        let entered = match &folder.target {
            Some(_) => None,
            // It was made if anything below it was taken.
            None => open_inside(self.writer.upper(), &folder.real, OFlags::RDONLY | OFlags::DIRECTORY).ok(),
        };
        let Some(target) = folder.target.as_ref().or(entered.as_ref()) else { return Ok(()) };
        let time = self.request.change.change(Metadata::of(stat), FileType::Directory).mtime;
        fs::futimens(target, &sys::timestamps(time.0, time.1)).call("utimensat", show(&folder.path))?;
        Ok(())
    }

    fn make_room(
        &self,
        folder: &Folder,
        target: BorrowedFd<'_>,
        name: &CStr,
        real: &RealPath,
    ) -> Result<(), WriteError> {
        let is_folder = |stat: Option<Stat>| stat.is_some_and(|s| sys::file_type(&s) == FileType::Directory);
        let call = |errno| CallError { call: "stat", path: real.display(), errno };
        let above = sys::stat_at(target, name).map_err(call)?;
        let below = match &folder.lower {
            Some(lower) if above.is_none() => sys::stat_at(lower.as_fd(), name).map_err(call)?,
            _ => None,
        };
        if is_folder(above) || is_folder(below) {
            return Err(WriteError::FolderInTheWay(real.display()));
        }
        if above.is_some() {
            fs::unlinkat(target, name, AtFlags::empty()).call("unlink", real.display())?;
        }
        Ok(())
    }

    /// Copies what is no folder to a name that is free in the layer.
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
            // A socket means nothing without the program behind it: the copy is an empty file.
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
    /// The lock is held while copying, so that the first copy is complete for whoever comes second.
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

/// Makes a folder, or takes over one that an earlier copy of this layer made, with the source's metadata.
fn take_folder(
    parent: BorrowedFd<'_>,
    name: &CStr,
    metadata: &Metadata,
    real: &RealPath,
) -> Result<OwnedFd, WriteError> {
    match write::make_folder(parent, name, metadata) {
        Ok(folder) => Ok(folder),
        Err(Errno::EXIST) => {
            let folder =
                sys::open_dir_at(parent, name).map_err(|_| WriteError::NotAFolder(real.display()))?;
            write::set_owner_and_mode(folder.as_fd(), metadata).call("chmod", real.display())?;
            Ok(folder)
        }
        Err(errno) => Err(CallError { call: "mkdir", path: real.display(), errno }.into()),
    }
}

fn join_bytes(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn show(path: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::path::PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
