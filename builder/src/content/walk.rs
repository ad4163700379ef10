//! Digest of the files that a copy takes.

use super::{Content, ContentError, CopySelection, Source, StatCache};
use crate::graph::Copy;
use kiln_image::layer::{Choice, Selection, check_length};
use kiln_image::sys::{self, CallError, Descent, Named};
use kiln_parser::ignore::Patterns;
use rayon::prelude::*;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, OFlags, Stat};
use sha2::{Digest as _, Sha256};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Digest of the files that a copy takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesDigest {
    /// Digest of all files, as hexadecimal digits.
    pub digest: String,
    /// Facts about each file by path, for explanations: kind, mode, owner and the beginning of its content's digest,
    /// separated by blanks.
    pub files: Vec<(String, String)>,
}

/// Maximum number of files whose facts are kept: the cost of more exceeds their use.
const MAX_EXPLAINED: usize = 2000;

/// A selected file, link or directory.
struct Entry {
    /// Directory to which `place` is relative. The file's own directory is not kept open: their number may exceed the
    /// limit of open files.
    top: Arc<OwnedFd>,
    place: CString,
    /// Path below the source; empty for the source itself.
    path: Vec<u8>,
    stat: Stat,
}

/// Hashes the files that `copy` takes from `sources`, each in its context or tree.
///
/// # Errors
/// Fails when a file cannot be read.
pub fn digest(
    sources: &[(&Content, Source)],
    exclude: &Patterns,
    copy: &Copy,
    cache: &StatCache,
) -> Result<FilesDigest, ContentError> {
    let mut whole = Sha256::new();
    let mut files = Vec::new();
    for (content, source) in sources {
        let entries = entries(content, source, exclude)?;
        let rule = Rule { is_local: content.is_local(), copy, cache };
        let digests = entries.par_iter().map(|entry| rule.digest(entry)).collect::<Result<Vec<_>, _>>()?;
        // The name of a directory is irrelevant: its content is copied.
        let base: &[u8] = if source.is_dir() { b"/" } else { &source.base };
        add(&mut whole, base);
        if copy.whole && source.is_dir() {
            let stat = &source.stat;
            let (uid, gid) = if content.is_local() { (0, 0) } else { (stat.st_uid, stat.st_gid) };
            [stat.st_mode, uid, gid].into_iter().for_each(|number| whole.update(number.to_le_bytes()));
        }
        whole.update((entries.len() as u64).to_le_bytes());
        for (entry, taken) in entries.iter().zip(digests) {
            add(&mut whole, &entry.path);
            whole.update(taken.digest);
            if files.len() <= MAX_EXPLAINED {
                files.push((shown(source, entry), taken.facts()));
            }
        }
    }
    if files.len() > MAX_EXPLAINED {
        files.clear();
    }
    Ok(FilesDigest { digest: kiln_image::digest::hex(&whole.finalize()), files })
}

/// Hashes a part with its length first: no two lists of parts have the same bytes.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

fn shown(source: &Source, entry: &Entry) -> String {
    let root = source.path.to_bytes();
    let path = match (root.is_empty(), entry.path.is_empty()) {
        (true, _) => entry.path.clone(),
        (false, true) => root,
        (false, false) => [&root[..], b"/", &entry.path].concat(),
    };
    String::from_utf8_lossy(&path).into_owned()
}

fn entries(content: &Content, source: &Source, exclude: &Patterns) -> Result<Vec<Entry>, ContentError> {
    let dir = source.dir.try_clone().map_err(|error| CallError {
        call: "dup",
        path: source.path.display(),
        errno: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
    })?;
    if !source.is_dir() {
        let (top, place) = (Arc::new(dir), source.name.clone());
        return Ok(vec![Entry { top, place, path: Vec::new(), stat: source.stat }]);
    }
    // A new destination inherits only the directory's times, so the directory itself is not hashed.
    let open = || sys::open_dir_at(dir.as_fd(), &source.name).call("open", source.path.display());
    let selection = CopySelection::new(content, source, exclude);
    let mut collector = Collector {
        selection: &selection,
        top: Arc::new(open()?),
        way: Descent::new(open()?),
        list: Vec::new(),
    };
    collector.members(&[], &selection.top())?;
    Ok(collector.list)
}

/// Calls `hear` for each member that a copy takes from `source`: with its path, and the opened file for a regular file.
pub(crate) fn each_file(
    content: &Content,
    source: &Source,
    exclude: &Patterns,
    hear: &mut dyn FnMut(&[u8], Option<File>),
) -> Result<(), ContentError> {
    for entry in entries(content, source, exclude)? {
        let path = shown(source, &entry);
        let is_file = sys::file_type(&entry.stat) == FileType::RegularFile;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = is_file.then(|| sys::open_below(entry.top.as_fd(), &entry.place, flags));
        let file = opened.transpose().call("open", display(path.as_bytes()))?;
        hear(path.as_bytes(), file.map(File::from));
    }
    Ok(())
}

/// Lists a directory's selected members, each directory before its content.
struct Collector<'a, S> {
    selection: &'a S,
    top: Arc<OwnedFd>,
    way: Descent,
    list: Vec<Entry>,
}

impl<S: Selection> Collector<'_, S> {
    /// Lists the members of the current directory, whose path from the top is `path`.
    fn members(&mut self, path: &[u8], decision: &S::Dir) -> Result<(), CallError> {
        check_length(path)?;
        for name in sys::sorted_names(self.way.here()).call("getdents", display(path))? {
            let inner = if path.is_empty() {
                name.to_bytes().to_vec()
            } else {
                [path, b"/", name.to_bytes()].concat()
            };
            let stat = sys::stat_at(self.way.here(), &name).call("stat", display(&inner))?;
            // Removed since it was listed.
            let Some(stat) = stat else { continue };
            let is_dir = sys::file_type(&stat) == FileType::Directory;
            let (choice, inner_decision) = self.selection.choose(&inner, is_dir, decision);
            if choice == Choice::Skip {
                continue;
            }
            let before = self.list.len();
            let place = CString::new(inner.clone()).expect("names of files hold no NUL");
            self.list.push(Entry { top: self.top.clone(), place, path: inner.clone(), stat });
            if is_dir {
                self.way.enter(&name).call("open", display(&inner))?;
                self.members(&inner, &inner_decision)?;
                self.way.leave().call("open", display(path))?;
                // A parent directory that is not selected itself is created only for selected files.
                if choice == Choice::Enter && self.list.len() == before + 1 {
                    self.list.pop();
                }
            }
        }
        Ok(())
    }
}

fn display(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

/// Digest and facts of a file, link or directory.
struct Taken {
    digest: [u8; 32],
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    /// Beginning of the digest of the file's content or the link's target.
    content: [u8; 8],
}

impl Taken {
    fn facts(&self) -> String {
        let (kind, content) = (char::from(self.kind), kiln_image::digest::hex(&self.content));
        format!("{kind} {:o} {}:{} {content}", self.mode, self.owner.0, self.owner.1)
    }
}

/// Rules that determine the metadata in a digest.
struct Rule<'a> {
    is_local: bool,
    copy: &'a Copy,
    cache: &'a StatCache,
}

impl Rule<'_> {
    fn digest(&self, entry: &Entry) -> Result<Taken, CallError> {
        let Entry { top, place, path, stat } = entry;
        let kind = sys::file_type(stat);
        let is_dir = kind == FileType::Directory;
        let mut mode = stat.st_mode & 0o7777;
        if let Some(change) = &self.copy.mode
            && kind != FileType::Symlink
        {
            mode = change.apply(mode, is_dir);
        }
        let (uid, gid) = match (&self.copy.owner, self.is_local) {
            (None, false) => (stat.st_uid, stat.st_gid),
            // Root, or an owner that is already in the key.
            _ => (0, 0),
        };
        let mut hash = Sha256::new();
        hash.update([kind_code(kind)]);
        for number in [mode, uid, gid] {
            hash.update(number.to_le_bytes());
        }
        let mut content = [0; 8];
        match kind {
            FileType::RegularFile => {
                let digest = self.file(top.as_fd(), place, path, stat)?;
                content.copy_from_slice(&digest[..8]);
                hash.update(digest);
            }
            FileType::Symlink => {
                let link = sys::open_below(top.as_fd(), place, OFlags::PATH);
                let target = link.and_then(|link| fs::readlinkat(link, c"", Vec::new()));
                let target = target.call("readlink", display(path))?;
                content.copy_from_slice(&Sha256::digest(target.to_bytes())[..8]);
                add(&mut hash, target.to_bytes());
            }
            FileType::CharacterDevice | FileType::BlockDevice => hash.update(stat.st_rdev.to_le_bytes()),
            _ => {}
        }
        let owner = (uid, gid);
        Ok(Taken { digest: hash.finalize().into(), kind: kind_code(kind), mode, owner, content })
    }

    /// Digest of a file's bytes and, where attributes are copied, of the one attribute that layers contain.
    fn file(
        &self,
        top: BorrowedFd<'_>,
        place: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<[u8; 32], CallError> {
        if let Some(digest) = self.cache.get(stat) {
            return Ok(digest);
        }
        let read_at = SystemTime::now();
        let file = sys::open_below(top, place, OFlags::RDONLY | OFlags::NONBLOCK);
        let file = file.call("open", display(path))?;
        let mut capability = [0u8; 256];
        let length = match self.is_local {
            true => 0,
            false => fs::fgetxattr(&file, c"security.capability", &mut capability).unwrap_or(0),
        };
        let mut hash = Sha256::new();
        add(&mut hash, &capability[..length]);
        let mut file = File::from(file);
        let mut buffer = vec![0u8; buffer_size(stat)];
        loop {
            match file.read(&mut buffer).call("read", display(path))? {
                0 => break,
                count => {
                    hash.update(&buffer[..count]);
                    self.cache.read().fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
        let digest = hash.finalize().into();
        self.cache.put(stat, digest, read_at);
        Ok(digest)
    }
}

fn buffer_size(stat: &Stat) -> usize {
    const LARGEST: usize = 256 * 1024;
    usize::try_from(stat.st_size).unwrap_or(LARGEST).clamp(64, LARGEST)
}

fn kind_code(kind: FileType) -> u8 {
    match kind {
        // A socket is copied as an empty file.
        FileType::RegularFile | FileType::Socket => b'-',
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::Fifo => b'p',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        FileType::Unknown => b'?',
    }
}
