//! A tar stream into the directory of a layer, as the OCI image-spec (layer.md, "Applying Changesets") has it.
//!
//! The directory holds one changeset alone, in the form that overlayfs stacks. Most are functions of their tar. Some are
//! not: a directory that the tar does not name has the metadata of the lower layers' one, a path may lead over a link of
//! theirs, and a hard link may name a file of theirs. Such a tar needs the layers below ([`Below`]), and
//! [`Applied::asked_below`] says that its directory is valid above these layers alone.
//!
//! The stream is hostile. Every path is walked name by name on directory handles, in this layer and those below it
//! ([`crate::tree::merged`]); links are followed inside of the tree alone, and metadata is set by handles.

mod below;

use super::{CAPABILITY, MAX_PATH, WHITEOUT, check_length, overlay};
use crate::sys::{self, CallError, Named};
use crate::tar::{Entry, EntryKind, Reader, TarError};
use crate::tree::merged::{MergedDir, link_names};
use crate::tree::{RealPath, open_inside};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Links that one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;
const CHUNK: usize = 256 * 1024;
/// Handles of directories on the way to the last entry that are kept at most; others are opened again by their path.
const MOST_OPEN: usize = 16;
/// What the directories of one layer may take of memory, in bytes: some millions of them with paths of a usual length.
const MOST_KNOWN: usize = 512 << 20;
/// What is kept of a directory besides its path, in bytes.
const KNOWN: usize = 128;
/// Runs of zeros of this length become holes.
const HOLE: usize = 4096;

/// What unpacking a layer found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// True when the layers below were looked at: the directory fits on these alone.
    pub asked_below: bool,
    /// True when the root itself hides all lower layers.
    pub opaque_root: bool,
    /// Bytes of file content.
    pub size: u64,
}

/// The layers below the one that is unpacked.
#[derive(Clone, Copy)]
pub enum Below<'a> {
    /// There are none that could matter.
    Nothing,
    /// The root of their tree, which is asked for when a path first needs it. Where it returns `None` the layers are not
    /// there, and the tar fails with [`ApplyError::NeedsBelow`].
    Layers(&'a dyn Fn() -> Option<MergedDir>),
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
    /// A file in the place of a directory.
    #[error("`{path}` lies below something that is not a directory", path = .0.display())]
    NotADirectory(PathBuf),
    /// The layers below decide what this path is.
    #[error("`{path}` depends on the layers below, which are not there yet", path = .0.display())]
    NeedsBelow(PathBuf),
    /// A hard link to a directory.
    #[error("`{path}` is a hard link to a directory", path = .0.display())]
    DirectoryLink(PathBuf),
    /// A hard link to nothing.
    #[error("the archive holds a link to a file that is not in it: `{path}`", path = .0.display())]
    MissingLink(PathBuf),
    /// An extended attribute that is too large for the file system.
    #[error(
        "cannot set the extended attribute `{name}` ({size} bytes) of `{path}`: the file system of the store does not hold that much",
        path = path.display()
    )]
    Attribute {
        /// The attribute.
        name: String,
        /// Bytes of its value.
        size: usize,
        /// The file.
        path: PathBuf,
    },
    /// More directories than are kept in memory.
    #[error("the archive holds too many directories: their paths take more than {} MiB", MOST_KNOWN >> 20)]
    TooManyDirectories,
    /// A whiteout of nothing, or of the directory itself.
    #[error("invalid whiteout `{path}`", path = .0.display())]
    Whiteout(PathBuf),
}

impl ApplyError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, ApplyError::Call(error) if error.is_full())
    }
}

/// Unpacks the layer `stream` into the existing empty directory `root`.
pub fn apply(stream: impl Read, root: &Path, below: Below<'_>) -> Result<Applied, ApplyError> {
    unpack(stream, sys::open_dir(root)?, Manner { is_layer: true, owner: None }, below)
}

/// Unpacks any tar into the existing directory `root`: no name in it means more than a name, and what is in the way goes.
pub fn extract(stream: impl Read, root: &Path) -> Result<Applied, ApplyError> {
    extract_at(stream, sys::open_dir(root)?, None)
}

/// Like [`extract`], into an opened directory; with an `owner` (uid and gid) everything gets that owner.
pub fn extract_at(
    stream: impl Read,
    root: OwnedFd,
    owner: Option<(u32, u32)>,
) -> Result<Applied, ApplyError> {
    unpack(stream, root, Manner { is_layer: false, owner }, Below::Nothing)
}

/// True when a stream is a tar with at least one entry.
pub fn is_tar(stream: impl Read) -> bool {
    // One that may not be unpacked is one, too.
    matches!(Reader::new(stream).next_entry(), Ok(Some(_)) | Err(TarError::Expands(..)))
}

/// How a tar is read.
#[derive(Clone, Copy)]
struct Manner {
    /// Whiteouts mean something, and the root has metadata.
    is_layer: bool,
    /// Whose everything is, whatever the tar says.
    owner: Option<(u32, u32)>,
}

fn unpack(stream: impl Read, root: OwnedFd, manner: Manner, below: Below<'_>) -> Result<Applied, ApplyError> {
    let mut unpacker = Unpacker {
        root,
        is_layer: manner.is_layer,
        below,
        tree: None,
        here: Vec::new(),
        dirs: BTreeMap::from([(Vec::new(), DirState { is_own: true, ..DirState::default() })]),
        known: 0,
        copied_up: BTreeSet::new(),
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
    unpacker.set_directory_times()?;
    Ok(unpacker.applied)
}

/// A path of the layer: its names with slashes between, none of them a link; empty for the root.
type Key = Vec<u8>;

struct Unpacker<'a> {
    root: OwnedFd,
    /// Whiteouts mean something.
    is_layer: bool,
    below: Below<'a>,
    /// The tree of the layers below, once it was asked for.
    tree: Option<MergedDir>,
    /// The directories that lead to the last entry, none of them a link.
    here: Vec<Level>,
    /// Every directory of the layer, by its path.
    dirs: BTreeMap<Key, DirState>,
    /// Bytes that entries have taken there.
    known: usize,
    /// Files of lower layers that were copied into this one, since hard links of the tar name them.
    copied_up: BTreeSet<Key>,
    applied: Applied,
    buffer: Vec<u8>,
}

/// A directory on the way to the last entry.
struct Level {
    name: CString,
    /// `None` where it is not among the last that were entered.
    dir: Option<OwnedFd>,
    /// Length of its path.
    length: usize,
    /// The same directory of the layers below, once it was looked up; the inner `None` when they have none.
    below: Option<Option<Rc<MergedDir>>>,
}

/// What is known about a directory of the layer.
#[derive(Clone, Copy, Debug, Default)]
struct DirState {
    /// True when the tar names it, or no layer below has it. Others are there as the way to something of this layer.
    is_own: bool,
    /// True when nothing of the layers below shows in it.
    is_opaque: bool,
    /// Its modification time, which is set at the end, since making members changes it.
    mtime: Option<(i64, u32)>,
}

/// Seconds and nanoseconds of directories that neither the tar nor a layer below has.
const IMPLIED_TIME: (i64, u32) = (0, 0);

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), ApplyError> {
        check_length(&entry.name)?;
        let mut components = clean(&entry.name).ok_or_else(|| ApplyError::Outside(path(&entry.name)))?;
        let Some(name) = components.pop() else { return self.root_entry(entry) };
        if self.is_layer && name.to_bytes().starts_with(WHITEOUT) {
            self.enter(&components, &entry.name)?;
            return self.whiteout(&name, entry);
        }
        let target = match entry.kind {
            EntryKind::HardLink => Some(self.link_target(&entry.link)?),
            _ => None,
        };
        self.enter(&components, &entry.name)?;
        let call = |name: &'static str| move |errno| CallError { call: name, path: path(&entry.name), errno };
        let parent = self.innermost().try_clone_to_owned().call("dup", path(&entry.name))?;
        let key = self.key(&name);
        check_length(&key)?;
        let existing = sys::stat_at(parent.as_fd(), &name).map_err(call("stat"))?;
        let is_dir = |stat: &fs::Stat| sys::file_type(stat) == FileType::Directory;
        let stays = entry.kind == EntryKind::Directory && existing.as_ref().is_some_and(is_dir);
        if let Some(target) = &target
            && is_inside(&target.key, &key)
        {
            return Err(ApplyError::MissingLink(path(&entry.link)));
        }
        if existing.is_some() && !stays {
            if existing.as_ref().is_some_and(is_dir) {
                self.here.clear();
            }
            self.forget(&key);
            overlay::clear(parent.as_fd(), &name).map_err(call("remove"))?;
        }
        match entry.kind {
            EntryKind::Directory => {
                // What was replaced hid the layers below.
                let hides = existing.is_some() && !stays;
                return self.directory(parent.as_fd(), &name, key, entry, (stays, hides));
            }
            EntryKind::File => return self.file(parent.as_fd(), &name, entry, reader),
            EntryKind::HardLink => {
                let target = target.as_ref().ok_or_else(|| ApplyError::MissingLink(path(&entry.link)))?;
                fs::linkat(&target.dir, &target.name, &parent, &name, AtFlags::empty())
                    .map_err(call("link"))?;
                if target.is_symlink {
                    return Ok(());
                }
            }
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
                // A character device 0:0 is a whiteout on disk, and to every engine that uses overlayfs.
                fs::mknodat(&parent, &name, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(call("mknod"))?;
            }
        }
        metadata(parent.as_fd(), &name, entry).call("set metadata of", path(&entry.name))?;
        Ok(())
    }

    /// Makes a directory, or gives the one that is there (`stays`) the metadata of its entry. With `hides` nothing of the
    /// layers below shows in it.
    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        key: Key,
        entry: &Entry,
        (stays, hides): (bool, bool),
    ) -> Result<(), ApplyError> {
        let call = |name: &'static str| move |errno| CallError { call: name, path: path(&entry.name), errno };
        if !stays {
            fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(call("mkdir"))?;
        }
        let dir = sys::open_dir_at(parent, name).map_err(call("open"))?;
        if hides {
            overlay::make_opaque(dir.as_fd()).map_err(call("setxattr"))?;
        }
        if stays && self.is_layer {
            overlay::clear_xattrs(dir.as_fd()).map_err(call("removexattr"))?;
        }
        self.directory_metadata(dir.as_fd(), entry)?;
        let state = self.state(key)?;
        state.is_own = true;
        state.is_opaque |= hides;
        state.mtime = Some((entry.mtime, entry.mtime_nanos));
        Ok(())
    }

    fn innermost(&self) -> BorrowedFd<'_> {
        let Some(level) = self.here.last() else { return self.root.as_fd() };
        level.dir.as_ref().expect("going up opens the directory that is innermost then").as_fd()
    }

    /// What is known about a directory of the layer, which may be new.
    fn state(&mut self, key: Key) -> Result<&mut DirState, ApplyError> {
        if !self.dirs.contains_key(&key) {
            self.known = self.known.saturating_add(key.len() + KNOWN);
        }
        if self.known > MOST_KNOWN {
            return Err(ApplyError::TooManyDirectories);
        }
        Ok(self.dirs.entry(key).or_default())
    }

    /// The path of `name` in the innermost directory.
    fn key(&self, name: &CStr) -> Key {
        let mut key = self.key_at(self.here.len());
        append(&mut key, name);
        key
    }

    /// The path of the directory that is `depth` levels below the root.
    fn key_at(&self, depth: usize) -> Key {
        let mut key = Key::new();
        self.here[..depth].iter().for_each(|level| append(&mut key, &level.name));
        key
    }

    /// Drops what is known about a path and everything below it.
    fn forget(&mut self, key: &[u8]) {
        let (from, to) = ([key, b"/"].concat(), [key, &[b'/' + 1]].concat());
        let dirs: Vec<Key> =
            self.dirs.range(from.clone()..to.clone()).map(|(known, _)| known.clone()).collect();
        for known in dirs.iter().map(Key::as_slice).chain([key]) {
            if self.dirs.remove(known).is_some() {
                self.known = self.known.saturating_sub(known.len() + KNOWN);
            }
        }
        let files: Vec<Key> = self.copied_up.range(from..to).cloned().collect();
        for known in files.iter().map(Key::as_slice).chain([key]) {
            self.copied_up.remove(known);
        }
    }

    /// The root of an image is root's, with mode 0755, whatever its layers say, as in the reference.
    fn root_entry(&self, entry: &Entry) -> Result<(), ApplyError> {
        match entry.kind {
            EntryKind::Directory => Ok(()),
            // Of other tars the reference leaves out whatever has no name.
            _ if !self.is_layer => Ok(()),
            _ => Err(ApplyError::Outside(path(&entry.name))),
        }
    }

    fn directory_metadata(&self, dir: BorrowedFd<'_>, entry: &Entry) -> Result<(), ApplyError> {
        let (uid, gid) = sys::owner(entry.uid, entry.gid);
        fs::fchown(dir, uid, gid).call("chown", path(&entry.name))?;
        fs::fchmod(dir, Mode::from_raw_mode(entry.mode & 0o7777)).call("chmod", path(&entry.name))?;
        set_xattrs(dir, entry)
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
        let (uid, gid) = sys::owner(entry.uid, entry.gid);
        fs::fchown(&file, uid, gid).call("chown", shown())?;
        fs::fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777)).call("chmod", shown())?;
        set_xattrs(file.as_fd(), entry)?;
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
            let hole = content.skip_hole();
            if hole > 0 {
                // Holes are part of a size that was checked, and file sizes are of this type.
                let offset = i64::try_from(hole).unwrap_or(i64::MAX);
                file.seek(SeekFrom::Current(offset)).call("lseek", path(&entry.name))?;
                ends_in_hole = true;
                left -= hole;
                continue;
            }
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

    /// Makes [`Unpacker::innermost`] the directory that `components` name; what is missing is made.
    fn enter(&mut self, components: &[CString], shown: &[u8]) -> Result<(), ApplyError> {
        let common = self.here.iter().zip(components).take_while(|(level, wanted)| level.name == **wanted);
        let common = common.count();
        self.here.truncate(common);
        let rest = &components[common..];
        if rest.len() > 1 && self.dirs.contains_key(&joined(components)) {
            return self.jump(components, shown);
        }
        self.reopen(shown)?;
        for name in rest {
            if let Step::Link(_) = self.step(name, shown)? {
                return self.walk(components, shown);
            }
        }
        Ok(())
    }

    /// Makes [`Unpacker::innermost`] a directory of the layer, whose path has no links, in one step: tars that hop about in
    /// deep trees cost no more than others.
    fn jump(&mut self, components: &[CString], shown: &[u8]) -> Result<(), ApplyError> {
        let common = self.here.iter().zip(components).take_while(|(level, wanted)| level.name == **wanted);
        let common = common.count();
        self.here.truncate(common);
        components[common..].iter().for_each(|name| self.push(name.clone(), None));
        self.reopen(shown)
    }

    /// Opens the innermost directory, if it is not open.
    fn reopen(&mut self, shown: &[u8]) -> Result<(), ApplyError> {
        if self.here.last().is_none_or(|level| level.dir.is_some()) {
            return Ok(());
        }
        let names = RealPath(self.here.iter().map(|level| level.name.clone()).collect());
        let opened = open_inside(self.root.as_fd(), &names, OFlags::RDONLY | OFlags::DIRECTORY);
        let opened = opened.call("open", path(shown))?;
        if let Some(level) = self.here.last_mut() {
            level.dir = Some(opened);
        }
        Ok(())
    }

    /// Goes one level down.
    fn push(&mut self, name: CString, dir: Option<OwnedFd>) {
        if let Some(far) = self.here.len().checked_sub(MOST_OPEN) {
            self.here[far].dir = None;
            self.here[far].below = None;
        }
        let length = self.here.last().map_or(0, |level| level.length) + 1 + name.as_bytes().len();
        self.here.push(Level { name, dir, length, below: None });
    }

    /// Like [`Unpacker::enter`], from the root and following links, `..` at the root being the root.
    fn walk(&mut self, components: &[CString], shown: &[u8]) -> Result<(), ApplyError> {
        let mut pending: VecDeque<CString> = components.iter().cloned().collect();
        let mut links = 0;
        self.here.clear();
        while let Some(name) = pending.pop_front() {
            if name.as_c_str() == c".." {
                if self.here.pop().is_none() && !self.is_layer {
                    return Err(ApplyError::Outside(path(shown)));
                }
                self.reopen(shown)?;
                continue;
            }
            let Step::Link(target) = self.step(&name, shown)? else { continue };
            links += 1;
            if links > MAX_LINKS {
                return Err(CallError { call: "open", path: path(shown), errno: Errno::LOOP }.into());
            }
            if target.to_bytes().starts_with(b"/") {
                self.here.clear();
            }
            link_names(&target).rev().for_each(|part| pending.push_front(part));
        }
        Ok(())
    }

    /// Enters `name` in the innermost directory, making it when it is missing; a link is left to the caller.
    fn step(&mut self, name: &CStr, shown: &[u8]) -> Result<Step, ApplyError> {
        let call = |name: &'static str| move |errno| CallError { call: name, path: path(shown), errno };
        if self.here.last().map_or(0, |level| level.length) + name.count_bytes() > MAX_PATH {
            return Err(call("open")(Errno::NAMETOOLONG).into());
        }
        let here = self.innermost();
        let dir = match sys::open_dir_at(here, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => match self.make_implied(name, shown)? {
                Implied::Made(dir) => dir,
                Implied::Link(target) => return Ok(Step::Link(target)),
            },
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = sys::stat_at(here, name).map_err(call("stat"))?;
                match stat {
                    Some(stat) if sys::file_type(&stat) == FileType::Symlink => {
                        let target = fs::readlinkat(here, name, Vec::new()).map_err(call("readlink"))?;
                        return Ok(Step::Link(target));
                    }
                    Some(stat) if sys::is_whiteout(&stat) => self.replace_whiteout(name, shown)?,
                    _ => return Err(ApplyError::NotADirectory(path(shown))),
                }
            }
            Err(errno) => return Err(call("open")(errno).into()),
        };
        self.push(name.to_owned(), Some(dir));
        Ok(Step::Entered)
    }

    fn set_directory_times(&mut self) -> Result<(), ApplyError> {
        for (key, state) in std::mem::take(&mut self.dirs) {
            let Some((seconds, nanos)) = state.mtime else { continue };
            let components = clean(&key).ok_or_else(|| ApplyError::Outside(path(&key)))?;
            self.jump(&components, &key)?;
            let times = sys::timestamps(seconds, nanos);
            fs::futimens(self.innermost(), &times).call("utimensat", path(&key))?;
        }
        Ok(())
    }
}

/// What entering a name led to.
enum Step {
    Entered,
    /// The name is a link with this target.
    Link(CString),
}

/// What the layers below made of a directory that the layer does not have.
enum Implied {
    Made(OwnedFd),
    /// It is a link of theirs, with this target.
    Link(CString),
}

/// A file of the layer that a hard link of the tar names.
struct LinkTarget {
    dir: OwnedFd,
    name: CString,
    key: Key,
    is_symlink: bool,
}

/// The path that names make.
fn joined(names: &[CString]) -> Key {
    let mut key = Key::new();
    names.iter().for_each(|name| append(&mut key, name));
    key
}

fn append(key: &mut Key, name: &CStr) {
    if !key.is_empty() {
        key.push(b'/');
    }
    key.extend_from_slice(name.to_bytes());
}

/// True when the path `key` is `above` or lies below it.
fn is_inside(key: &[u8], above: &[u8]) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Owner, mode, attributes and times of something that is no directory, links not followed.
fn metadata(dir: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<(), Errno> {
    sys::chown_at(dir, name, entry.uid, entry.gid)?;
    if entry.kind != EntryKind::Symlink {
        sys::chmod_at(dir, name, entry.mode)?;
    }
    sys::set_mtime_at(dir, name, entry.mtime, entry.mtime_nanos)
}

fn set_xattrs(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), ApplyError> {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !overlay::is_internal_xattr(name)) {
        let Some(c_name) = c_string(name) else { continue };
        match fs::fsetxattr(file, &c_name, value, XattrFlags::empty()) {
            // As the reference: attributes that this file system cannot hold are dropped, capabilities
            // are not, since a program would lose its rights.
            Err(Errno::OPNOTSUPP | Errno::PERM) if name.as_slice() != CAPABILITY => {}
            // File systems say so of a value that is too large, too, however much room there is.
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) if sys::has_room(file) => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(ApplyError::Attribute { name, size: value.len(), path: path(&entry.name) });
            }
            other => other.call("setxattr", path(&entry.name))?,
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

fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
