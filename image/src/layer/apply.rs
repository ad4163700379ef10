//! A tar stream into a layer folder.
//!
//! The folder holds one changeset alone, not the layers below it, so several layers of an image can be
//! unpacked at once. What a tar leaves to the layers below (a folder it does not name, a hard link to a
//! file it does not hold) is reported in [`Applied`], for the caller to settle when those layers are there.
//!
//! The stream is hostile: every path is resolved inside the layer folder on directory handles, links never
//! lead out, and nothing outside is touched.

use super::{CAPABILITY, OPAQUE, WHITEOUT, overlay};
use crate::sys::{self, CallError, Named};
use crate::tar::{Entry, EntryKind, Reader, TarError};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Links that one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;
/// How often a path is tried that others move.
const MAX_TRIES: usize = 1024;
/// Aufs kept its own records under this prefix; they mean nothing here.
const AUFS: &[u8] = b".wh..wh.";
const CHUNK: usize = 256 * 1024;
/// Runs of zeros of this length become holes.
const HOLE: usize = 4096;

/// What unpacking a layer found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Folders that the tar uses without naming them; they were made with mode 0755 and owner root.
    pub implied: Vec<PathBuf>,
    /// Hard links whose target this layer does not hold: link and target.
    pub missing_links: Vec<(PathBuf, PathBuf)>,
    /// True when the root itself hides all lower layers.
    pub opaque_root: bool,
    /// Bytes of file content.
    pub size: u64,
    /// Entries that are no whiteouts.
    pub entries: u64,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The stream is no tar.
    #[error("cannot read the layer")]
    Tar(#[from] TarError),
    /// A file could not be made.
    #[error("cannot unpack the layer")]
    Call(#[from] CallError),
    /// Reading a file's content failed.
    #[error("cannot read `{path}` from the layer", path = .0.display())]
    Content(PathBuf, #[source] std::io::Error),
    /// A path that leads out of the image.
    #[error("the layer holds a path outside of the image: `{path}`", path = .0.display())]
    Outside(PathBuf),
    /// A file in the place of a folder.
    #[error("`{path}` lies below something that is not a folder", path = .0.display())]
    NotAFolder(PathBuf),
    /// A hard link to nothing.
    #[error("the archive holds a link to a file that is not in it: `{path}`", path = .0.display())]
    MissingLink(PathBuf),
    /// A whiteout of nothing, or of the folder itself.
    #[error("invalid whiteout `{path}`", path = .0.display())]
    Whiteout(PathBuf),
}

impl ApplyError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, ApplyError::Call(error) if error.is_full())
    }
}

/// Unpacks the layer `stream` into the existing empty folder `root`.
pub fn apply(stream: impl Read, root: &Path) -> Result<Applied, ApplyError> {
    unpack(stream, sys::open_dir(root)?, Manner { is_layer: true, owner: None })
}

/// Unpacks any tar into the existing folder `root`: no name in it means more than a name, and what is in the way goes.
pub fn extract(stream: impl Read, root: &Path) -> Result<Applied, ApplyError> {
    extract_at(stream, sys::open_dir(root)?, None)
}

/// Like [`extract`], into an opened folder; with an `owner` (user and group) all is theirs.
pub fn extract_at(
    stream: impl Read,
    root: OwnedFd,
    owner: Option<(u32, u32)>,
) -> Result<Applied, ApplyError> {
    let applied = unpack(stream, root, Manner { is_layer: false, owner })?;
    match applied.missing_links.first() {
        Some((_, target)) => Err(ApplyError::MissingLink(target.clone())),
        None => Ok(applied),
    }
}

/// True when a stream is a tar with at least one entry.
pub fn is_tar(stream: impl Read) -> bool {
    Reader::new(stream).next_entry().is_ok_and(|entry| entry.is_some())
}

/// How a tar is read.
#[derive(Clone, Copy)]
struct Manner {
    /// Whiteouts mean something, and the root has metadata.
    is_layer: bool,
    /// Whose everything is, whatever the tar says.
    owner: Option<(u32, u32)>,
}

fn unpack(stream: impl Read, root: OwnedFd, manner: Manner) -> Result<Applied, ApplyError> {
    let mut unpacker = Unpacker {
        root,
        is_layer: manner.is_layer,
        open: Vec::new(),
        folders: Vec::new(),
        applied: Applied::default(),
        buffer: vec![0; CHUNK],
    };
    let mut reader = Reader::new(stream);
    while let Some(mut entry) = reader.next_entry()? {
        if let Some((uid, gid)) = manner.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.set_folder_times()?;
    Ok(unpacker.applied)
}

struct Unpacker {
    root: OwnedFd,
    /// Whiteouts mean something.
    is_layer: bool,
    /// The folders that lead to the last entry, none of them a link.
    open: Vec<(CString, OwnedFd)>,
    /// Folders with the times to set at the end, since making children changes them.
    folders: Vec<(Vec<CString>, i64, u32)>,
    applied: Applied,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), ApplyError> {
        let mut components = clean(&entry.name).ok_or_else(|| ApplyError::Outside(path(&entry.name)))?;
        let Some(name) = components.pop() else { return self.root_entry(entry) };
        let parent = self.parent(&components, &entry.name)?;
        let parent = parent.as_ref().map_or_else(|| self.innermost(), AsFd::as_fd);
        let parent = parent.try_clone_to_owned().call("dup", path(&entry.name))?;
        if self.is_layer && name.to_bytes().starts_with(WHITEOUT) {
            return self.whiteout(parent.as_fd(), &name, components.is_empty(), entry);
        }
        self.applied.entries += 1;
        let call = |name: &'static str| move |errno| CallError { call: name, path: path(&entry.name), errno };
        let existing = sys::stat_at(parent.as_fd(), &name).map_err(call("stat"))?;
        let was_whiteout = existing.as_ref().is_some_and(sys::is_whiteout);
        let is_folder = entry.kind == EntryKind::Directory;
        let keep = is_folder && existing.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
        if existing.is_some() && !keep {
            self.open.clear();
            overlay::clear(parent.as_fd(), &name).map_err(call("remove"))?;
        }
        match entry.kind {
            EntryKind::Directory => {
                if !keep {
                    fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o700)).map_err(call("mkdir"))?;
                }
                let folder = sys::open_dir_at(parent.as_fd(), &name).map_err(call("open"))?;
                if was_whiteout {
                    overlay::make_opaque(folder.as_fd()).map_err(call("setxattr"))?;
                }
                self.folder_metadata(folder.as_fd(), entry)?;
                components.push(name);
                self.applied.implied.retain(|implied| *implied != path_of(&components));
                self.folders.push((components, entry.mtime, entry.mtime_nanos));
                return Ok(());
            }
            EntryKind::File => return self.file(parent.as_fd(), &name, entry, reader),
            EntryKind::HardLink => return self.hard_link(parent.as_fd(), &name, entry),
            EntryKind::Symlink => {
                let target = c_string(&entry.link).ok_or_else(|| ApplyError::Outside(path(&entry.link)))?;
                fs::symlinkat(&target, &parent, &name).map_err(call("symlink"))?;
                self.applied.size += entry.link.len() as u64;
            }
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                let kind = match entry.kind {
                    EntryKind::CharDevice => FileType::CharacterDevice,
                    EntryKind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = if kind == FileType::Fifo { 0 } else { fs::makedev(entry.major, entry.minor) };
                fs::mknodat(&parent, &name, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(call("mknod"))?;
            }
        }
        Ok(metadata(parent.as_fd(), &name, entry).call("set metadata of", path(&entry.name))?)
    }

    fn innermost(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        if entry.kind != EntryKind::Directory {
            return Err(ApplyError::Outside(path(&entry.name)));
        }
        if !self.is_layer {
            // The folder is there, and stays what it is.
            return Ok(());
        }
        let root = self.root.try_clone().call("dup", "/")?;
        self.folder_metadata(root.as_fd(), entry)?;
        self.folders.push((Vec::new(), entry.mtime, entry.mtime_nanos));
        Ok(())
    }

    fn folder_metadata(&self, folder: BorrowedFd<'_>, entry: &Entry) -> Result<(), ApplyError> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fs::fchown(folder, Some(uid), Some(gid)).call("chown", path(&entry.name))?;
        fs::fchmod(folder, Mode::from_raw_mode(entry.mode & 0o7777)).call("chmod", path(&entry.name))?;
        Ok(())
    }

    fn whiteout(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        at_root: bool,
        entry: &Entry,
    ) -> Result<(), ApplyError> {
        if name.to_bytes() == OPAQUE {
            overlay::make_opaque(parent).call("setxattr", path(&entry.name))?;
            self.applied.opaque_root |= at_root;
            return Ok(());
        }
        if name.to_bytes().starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name.to_bytes()[WHITEOUT.len()..];
        let hidden = c_string(hidden).filter(|_| !matches!(hidden, b"" | b"." | b".."));
        let hidden = hidden.ok_or_else(|| ApplyError::Whiteout(path(&entry.name)))?;
        self.open.clear();
        overlay::clear(parent, &hidden).call("remove", path(&entry.name))?;
        overlay::make_whiteout(parent, &hidden).call("mknod", path(&entry.name))?;
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), ApplyError> {
        let shown = || path(&entry.name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).call("create", shown())?;
        let mut file = File::from(fd);
        self.write_content(&mut file, entry, reader)?;
        self.applied.size += entry.size;
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fs::fchown(&file, Some(uid), Some(gid)).call("chown", shown())?;
        fs::fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777)).call("chmod", shown())?;
        set_xattrs(file.as_fd(), entry).call("setxattr", shown())?;
        let times = sys::timestamps(entry.mtime, entry.mtime_nanos);
        fs::futimens(&file, &times).call("utimensat", shown())?;
        Ok(())
    }

    /// Copies the content; long runs of zeros become holes.
    fn write_content<R: Read>(
        &mut self,
        file: &mut File,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), ApplyError> {
        let mut content = reader.content();
        let mut left = entry.size;
        let mut ends_in_hole = false;
        while left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = read_full(&mut content, &mut self.buffer[..wanted])
                .map_err(|error| ApplyError::Content(path(&entry.name), error))?;
            if read == 0 {
                return Err(TarError::Truncated.into());
            }
            let chunk = &self.buffer[..read];
            ends_in_hole = read >= HOLE && chunk.iter().all(|byte| *byte == 0);
            let written = match ends_in_hole {
                true => file.seek(SeekFrom::Current(read as i64)).map(drop),
                false => file.write_all(chunk),
            };
            written.call("write", path(&entry.name))?;
            left -= read as u64;
        }
        if ends_in_hole {
            file.set_len(entry.size).call("truncate", path(&entry.name))?;
        }
        Ok(())
    }

    fn hard_link(&mut self, parent: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<(), ApplyError> {
        let outside = || ApplyError::Outside(path(&entry.link));
        let mut components = clean(&entry.link).ok_or_else(outside)?;
        let target = components.pop().ok_or_else(outside)?;
        let linked = match self.existing_folder(&components) {
            Ok(folder) => fs::linkat(&folder, &target, parent, name, AtFlags::empty()),
            Err(errno) => Err(errno),
        };
        match linked {
            Ok(()) => {
                let stat = sys::stat_at(parent, name).call("stat", path(&entry.name))?;
                if stat.is_some_and(|stat| sys::is_whiteout(&stat)) {
                    return Err(ApplyError::Outside(path(&entry.link)));
                }
                let is_link = stat.is_some_and(|stat| sys::file_type(&stat) == FileType::Symlink);
                if !is_link {
                    metadata(parent, name, entry).call("set metadata of", path(&entry.name))?;
                }
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {
                components.push(target);
                self.applied.missing_links.push((path(&entry.name), path_of(&components)));
                Ok(())
            }
            Err(errno) => Err(CallError { call: "link", path: path(&entry.name), errno }.into()),
        }
    }

    /// A folder of this layer, links followed inside it; nothing is made.
    fn existing_folder(&self, components: &[CString]) -> Result<OwnedFd, Errno> {
        let joined = joined(components);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = fs::ResolveFlags::IN_ROOT | fs::ResolveFlags::NO_MAGICLINKS;
        // While anything is renamed anywhere, the kernel may not be able to tell whether `..` stayed inside.
        for _ in 0..MAX_TRIES {
            match fs::openat2(&self.root, &joined, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Makes [`Unpacker::innermost`] the folder that `components` name, or gives it when the way led over a
    /// link. Folders that are missing are made.
    fn parent(&mut self, components: &[CString], shown: &[u8]) -> Result<Option<OwnedFd>, ApplyError> {
        let common =
            self.open.iter().zip(components).take_while(|((name, _), wanted)| name == *wanted).count();
        self.open.truncate(common);
        for (depth, name) in components.iter().enumerate().skip(common) {
            match self.step(name, &components[..depth], shown)? {
                Some(folder) => self.open.push((name.clone(), folder)),
                None => {
                    let folder = self.walk(components, shown)?;
                    self.open.clear();
                    return Ok(Some(folder));
                }
            }
        }
        Ok(None)
    }

    /// Enters or makes `name` in the innermost folder; `None` when it is a link.
    fn step(&mut self, name: &CStr, above: &[CString], shown: &[u8]) -> Result<Option<OwnedFd>, ApplyError> {
        let here = self.innermost();
        match sys::open_dir_at(here, name) {
            Ok(folder) => return Ok(Some(folder)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(CallError { call: "open", path: path(shown), errno }.into()),
        }
        let stat = sys::stat_at(here, name).call("stat", path(shown))?;
        match stat {
            Some(stat) if sys::file_type(&stat) == FileType::Symlink => Ok(None),
            Some(stat) if !sys::is_whiteout(&stat) => Err(ApplyError::NotAFolder(path(shown))),
            hidden => {
                let here = here.try_clone_to_owned().call("dup", path(shown))?;
                let folder = make_implied(here.as_fd(), name, hidden.is_some()).call("mkdir", path(shown))?;
                let mut implied = path_of(above);
                implied.push(path(name.to_bytes()));
                self.applied.implied.push(implied);
                Ok(Some(folder))
            }
        }
    }

    /// Like [`Unpacker::parent`], from the root and following links, `..` at the root being the root.
    fn walk(&mut self, components: &[CString], shown: &[u8]) -> Result<OwnedFd, ApplyError> {
        let mut pending: VecDeque<CString> = components.iter().cloned().collect();
        let mut links = 0;
        self.open.clear();
        while let Some(name) = pending.pop_front() {
            if name.as_c_str() == c".." {
                if self.open.pop().is_none() && !self.is_layer {
                    return Err(ApplyError::Outside(path(shown)));
                }
                continue;
            }
            let above: Vec<CString> = self.open.iter().map(|(name, _)| name.clone()).collect();
            if let Some(folder) = self.step(&name, &above, shown)? {
                self.open.push((name, folder));
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(CallError { call: "open", path: path(shown), errno: Errno::LOOP }.into());
            }
            let target = fs::readlinkat(self.innermost(), &name, Vec::new()).call("readlink", path(shown))?;
            if target.to_bytes().starts_with(b"/") {
                self.open.clear();
            }
            for part in target.to_bytes().split(|byte| *byte == b'/').rev() {
                if !matches!(part, b"" | b".") {
                    pending.push_front(c_string(part).expect("the target of a link holds no NUL"));
                }
            }
        }
        Ok(self.innermost().try_clone_to_owned().call("dup", path(shown))?)
    }

    fn set_folder_times(&mut self) -> Result<(), ApplyError> {
        for (components, seconds, nanos) in self.folders.iter().rev() {
            // A later entry may have put something else there.
            let Ok(folder) = self.existing_folder(components) else { continue };
            let times = sys::timestamps(*seconds, *nanos);
            fs::futimens(&folder, &times).call("utimensat", path_of(components))?;
        }
        Ok(())
    }
}

fn make_implied(dir: BorrowedFd<'_>, name: &CStr, replaces_whiteout: bool) -> Result<OwnedFd, Errno> {
    if replaces_whiteout {
        overlay::clear(dir, name)?;
    }
    fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
    let folder = sys::open_dir_at(dir, name)?;
    fs::fchmod(&folder, Mode::from_raw_mode(0o755))?;
    if replaces_whiteout {
        overlay::make_opaque(folder.as_fd())?;
    }
    Ok(folder)
}

/// Owner, mode and times of something that is no folder.
fn metadata(dir: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<(), Errno> {
    sys::chown_at(dir, name, entry.uid, entry.gid)?;
    if entry.kind != EntryKind::Symlink {
        sys::chmod_at(dir, name, entry.mode)?;
    }
    sys::set_mtime_at(dir, name, entry.mtime, entry.mtime_nanos)
}

fn set_xattrs(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !overlay::is_internal_xattr(name)) {
        let Some(c_name) = c_string(name) else { continue };
        match fs::fsetxattr(file, &c_name, value, XattrFlags::empty()) {
            // As the reference: attributes that this file system cannot hold are dropped, capabilities
            // are not, since a program would lose its rights.
            Err(Errno::OPNOTSUPP | Errno::PERM) if name.as_slice() != CAPABILITY => {}
            other => other?,
        }
    }
    Ok(())
}

/// Fills as much of the buffer as there is content.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Splits a path into names, resolving `.` and `..` by text; `None` when it leads out.
fn clean(name: &[u8]) -> Option<Vec<CString>> {
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(c_string(part)?),
        }
    }
    Some(parts)
}

fn c_string(bytes: &[u8]) -> Option<CString> {
    CString::new(bytes).ok()
}

fn joined(components: &[CString]) -> CString {
    let bytes = components.iter().map(|name| name.to_bytes()).collect::<Vec<_>>().join(&b'/');
    let bytes = if bytes.is_empty() { b".".to_vec() } else { bytes };
    CString::new(bytes).expect("names hold no NUL")
}

fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn path_of(components: &[CString]) -> PathBuf {
    components.iter().map(|name| path(name.to_bytes())).collect()
}
