//! Unpacking of a tar stream into the directory of a layer (OCI image-spec, layer.md, "Applying Changesets").
//!
//! The directory holds one changeset, in the form that overlayfs stacks. Most directories depend on their tar alone.
//! Three cases depend on lower layers: a directory without an entry in the tar has the metadata of the one in lower
//! layers, a path may lead through a link of a lower layer, and a hard link may refer to a file of one. Such a tar
//! needs the layers below ([`Below`]), and [`Applied::asked_below`] reports that its directory is valid above these
//! layers only.
//!
//! The stream is untrusted. Every path is resolved name by name on directory handles, in this layer and those below it
//! ([`crate::tree::merged`]); links are followed inside the tree only, and metadata is set through handles.

mod below;
mod descent;
mod error;
mod place;

pub use error::ApplyError;
pub use place::{Placed, Placement, place};

use super::{CAPABILITY, WHITEOUT, check_length, overlay};
use crate::sys::{self, CallError, Named};
use crate::tar::{Entry, EntryKind, Reader, TarError};
use crate::tree::merged::MergedDir;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const CHUNK: usize = 256 * 1024;
/// Memory for the directories of one layer, in bytes: some millions of them with paths of a usual length.
const MAX_KNOWN: usize = 512 << 20;
/// Memory for a directory besides its path, in bytes.
const KNOWN: usize = 128;
/// Length of runs of zeros that become holes, in bytes.
const HOLE: usize = 4096;

/// Properties of an unpacked layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Whether the layers below were consulted: the directory is valid above these only.
    pub asked_below: bool,
    /// Whether the root itself is opaque.
    pub opaque_root: bool,
    /// Size of all file contents in bytes.
    pub size: u64,
}

/// Layers below the one that is unpacked.
#[derive(Clone, Copy)]
pub enum Below<'a> {
    /// There are none that could matter.
    Nothing,
    /// Returns the root of their tree; called when a path first needs it. `None` when the layers are missing: the tar
    /// then fails with [`ApplyError::NeedsBelow`].
    Layers(&'a dyn Fn() -> Option<MergedDir>),
}

/// Unpacks the layer `stream` into the existing empty directory `root`.
///
/// # Errors
/// [`ApplyError::NeedsBelow`] when the layers below must be unpacked first; other errors are those of the stream and
/// the disk.
pub fn apply(stream: impl Read, root: &Path, below: Below<'_>) -> Result<Applied, ApplyError> {
    unpack(stream, sys::open_dir(root)?, Options { is_layer: true, ..Options::default() }, below)
}

/// Unpacks any tar into the existing directory `root`: whiteout names have no meaning, and existing files are replaced.
///
/// # Errors
/// Fails when the stream is not a valid tar, a path leads out of `root`, or a file cannot be created.
pub fn extract(stream: impl Read, root: &Path) -> Result<Applied, ApplyError> {
    extract_at(stream, sys::open_dir(root)?, None)
}

/// Unpacks like [`extract`], into an open directory; everything gets the `owner` (uid and gid) if there is one.
///
/// # Errors
/// Fails in the cases of [`extract`].
pub fn extract_at(
    stream: impl Read,
    root: OwnedFd,
    owner: Option<(u32, u32)>,
) -> Result<Applied, ApplyError> {
    unpack(stream, root, Options { owner, ..Options::default() }, Below::Nothing)
}

/// True when a stream is a tar with at least one entry.
pub fn is_tar(stream: impl Read) -> bool {
    // A tar that is refused for its expansion is a tar, too.
    matches!(Reader::new(stream).next_entry(), Ok(Some(_)) | Err(TarError::Expands(..)))
}

/// Options for unpacking a tar.
#[derive(Clone, Copy, Default)]
struct Options {
    /// Whether whiteouts are applied, and the root has metadata.
    is_layer: bool,
    /// Whether a directory is never replaced by another file, nor the other way round.
    keeps_kinds: bool,
    /// Owner of everything, instead of that in the tar.
    owner: Option<(u32, u32)>,
}

fn unpack(
    stream: impl Read,
    root: OwnedFd,
    options: Options,
    below: Below<'_>,
) -> Result<Applied, ApplyError> {
    let mut unpacker = Unpacker::new(root, options, below);
    let mut reader = Reader::new(stream);
    while let Some(mut entry) = reader.next_entry()? {
        if let Some((uid, gid)) = options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.set_directory_times()?;
    Ok(unpacker.applied)
}

/// Path of a directory of the layer: its names with slashes between, none of them a link; empty for the root.
type Key = Vec<u8>;

struct Unpacker<'a> {
    root: OwnedFd,
    /// Whether whiteouts are applied.
    is_layer: bool,
    /// Whether a directory is never replaced by another file, nor the other way round.
    keeps_kinds: bool,
    below: Below<'a>,
    /// Tree of the layers below, once it is loaded.
    tree: Option<MergedDir>,
    /// Directories on the path of the last entry, none of them a link.
    here: Vec<Level>,
    /// All directories of the layer, by path.
    dirs: BTreeMap<Key, DirState>,
    /// Bytes of memory that the entries of `dirs` take.
    known: usize,
    /// Paths of files that were copied up from lower layers as targets of hard links.
    copied_up: BTreeSet<Key>,
    applied: Applied,
    buffer: Vec<u8>,
}

/// A directory on the path of the last entry.
struct Level {
    name: CString,
    /// Handle; `None` for directories far above the innermost one.
    dir: Option<OwnedFd>,
    /// Length of its path.
    length: usize,
    /// The same directory in the layers below, once it is looked up; the inner `None` when they have none.
    below: Option<Option<Rc<MergedDir>>>,
}

/// State of a directory of the layer.
#[derive(Clone, Copy, Debug, Default)]
struct DirState {
    /// Whether the tar has an entry for it, or no layer below has it. Others exist only as parents of entries.
    is_own: bool,
    /// Whether the directory is opaque.
    is_opaque: bool,
    /// Modification time; set at the end, since creating members changes it.
    mtime: Option<(i64, u32)>,
}

/// Modification time of directories that neither the tar nor a layer below has.
const IMPLIED_TIME: (i64, u32) = (0, 0);

impl<'a> Unpacker<'a> {
    fn new(root: OwnedFd, options: Options, below: Below<'a>) -> Unpacker<'a> {
        Unpacker {
            root,
            is_layer: options.is_layer,
            keeps_kinds: options.keeps_kinds,
            below,
            tree: None,
            here: Vec::new(),
            dirs: BTreeMap::from([(Vec::new(), DirState { is_own: true, ..DirState::default() })]),
            known: 0,
            copied_up: BTreeSet::new(),
            applied: Applied::default(),
            buffer: vec![0; CHUNK],
        }
    }
}

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
            self.check_kinds(existing.as_ref().is_some_and(is_dir), entry)?;
            if self.keeps_kinds && sys::is_mount(parent.as_fd(), &name) {
                // In the mount namespace of another process, the kernel would unmount it there.
                return Err(call("unlink")(Errno::BUSY).into());
            }
            if existing.as_ref().is_some_and(is_dir) {
                self.here.clear();
            }
            self.forget(&key);
            overlay::clear(parent.as_fd(), &name).map_err(call("remove"))?;
        }
        match entry.kind {
            EntryKind::Directory => {
                // The replaced file hid the layers below.
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
                // A character device 0:0 is a whiteout for overlayfs, whatever its entry means.
                fs::mknodat(&parent, &name, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(call("mknod"))?;
            }
        }
        metadata(parent.as_fd(), &name, entry).call("set metadata of", path(&entry.name))?;
        Ok(())
    }

    /// Creates a directory, or sets the metadata of the existing one (`stays`). With `hides` it is opaque.
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

    /// Fails for an entry that replaces a directory by another file or another file by a directory, where that is not
    /// allowed.
    fn check_kinds(&self, is_dir: bool, entry: &Entry) -> Result<(), ApplyError> {
        match (is_dir, entry.kind == EntryKind::Directory) {
            _ if !self.keeps_kinds => Ok(()),
            (true, false) => Err(ApplyError::ReplacesDirectory(path(&entry.name))),
            (false, true) => Err(ApplyError::ReplacesFile(path(&entry.name))),
            _ => Ok(()),
        }
    }

    fn innermost(&self) -> BorrowedFd<'_> {
        let Some(level) = self.here.last() else { return self.root.as_fd() };
        level.dir.as_ref().expect("going up opens the directory that is innermost then").as_fd()
    }

    /// State of a directory of the layer; created when it is new.
    fn state(&mut self, key: Key) -> Result<&mut DirState, ApplyError> {
        if !self.dirs.contains_key(&key) {
            self.known = self.known.saturating_add(key.len() + KNOWN);
        }
        if self.known > MAX_KNOWN {
            return Err(ApplyError::TooManyDirectories);
        }
        Ok(self.dirs.entry(key).or_default())
    }

    /// Path of `name` in the innermost directory.
    fn key(&self, name: &CStr) -> Key {
        let mut key = self.key_at(self.here.len());
        append(&mut key, name);
        key
    }

    /// Path of the directory at `depth` levels below the root.
    fn key_at(&self, depth: usize) -> Key {
        let mut key = Key::new();
        self.here[..depth].iter().for_each(|level| append(&mut key, &level.name));
        key
    }

    /// Drops the state of a path and everything below it.
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

    /// Checks an entry for the root, whose metadata is ignored: as in the reference, it belongs to root with mode 0755.
    fn root_entry(&self, entry: &Entry) -> Result<(), ApplyError> {
        match entry.kind {
            EntryKind::Directory => Ok(()),
            // In other tars, entries without a name are ignored, as in the reference.
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
                // The hole is within the file's size, which fits into this type.
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

/// Kind of a name in the layers below that the layer itself does not have.
enum Implied {
    Made(OwnedFd),
    /// A link with this target.
    Link(CString),
}

/// The target of a hard link, in the layer.
struct LinkTarget {
    dir: OwnedFd,
    name: CString,
    key: Key,
    is_symlink: bool,
}

/// Path of the joined names.
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

/// True when the path `key` is `above` or below it.
fn is_inside(key: &[u8], above: &[u8]) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Sets owner, mode, attributes and times of a file that is not a directory, without following links.
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
            // As in the reference, attributes that this file system does not support are dropped, except for
            // capabilities, without which a program would lose privileges.
            Err(Errno::OPNOTSUPP | Errno::PERM) if name.as_slice() != CAPABILITY => {}
            // File systems return the same errors for a value that is too large, however much space is free.
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) if sys::has_room(file) => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(ApplyError::Attribute { name, size: value.len(), path: path(&entry.name) });
            }
            other => other.call("setxattr", path(&entry.name))?,
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the content ends.
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

/// Splits a path into names and resolves `.` and `..` lexically; `None` when it leads out.
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
