//! Lookups in file trees whose links are resolved inside the tree: a context, a root file system, or a layer over one.

pub mod merged;

use crate::sys::{self, CallError, Named};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Number of links in the resolution of one path, as in Linux.
const MAX_LINKS: usize = 40;

/// A path from the root of a tree without links in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealPath(pub(crate) Vec<CString>);

impl RealPath {
    /// Path of the root itself.
    pub fn root() -> RealPath {
        RealPath::default()
    }

    /// Names along the path.
    pub fn names(&self) -> &[CString] {
        &self.0
    }

    /// Last name; `None` for the root.
    pub fn name(&self) -> Option<&CString> {
        self.0.last()
    }

    /// Path without its last name.
    pub fn parent(&self) -> RealPath {
        RealPath(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// Path with one more name.
    #[must_use]
    pub fn child(&self, name: &std::ffi::CStr) -> RealPath {
        RealPath(self.0.iter().cloned().chain([name.to_owned()]).collect())
    }

    /// True when `other` is this path or below it.
    pub fn contains(&self, other: &RealPath) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Names joined by slashes, without a leading one; empty for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(|name| name.to_bytes()).collect::<Vec<_>>().join(&b'/')
    }

    /// Path relative to the root, for [`open_inside`].
    fn relative(&self) -> CString {
        relative(&self.0)
    }

    /// Absolute path, for messages.
    pub fn display(&self) -> PathBuf {
        shown(&self.0)
    }
}

/// One tree, or several on top of each other: the first that has a path provides it.
///
/// The upper trees must not contain whiteouts or opaque directories.
pub struct Tree {
    roots: Vec<OwnedFd>,
}

impl Tree {
    /// Opens the tree below a directory.
    ///
    /// # Errors
    /// Fails when the path is not a directory.
    pub fn open(path: &Path) -> Result<Tree, CallError> {
        Ok(Tree { roots: vec![sys::open_dir(path)?] })
    }

    /// Tree from handles on roots, the uppermost first.
    pub fn of(roots: Vec<OwnedFd>) -> Tree {
        Tree { roots }
    }

    /// Handles on the roots, the uppermost first.
    pub fn roots(&self) -> &[OwnedFd] {
        &self.roots
    }

    /// Resolves the links in `path` as far as it exists; the rest stays as written.
    ///
    /// `..` at the root stays there; a link that begins with `/` begins at the root.
    ///
    /// # Errors
    /// `ELOOP` for too many links, otherwise failures to read links.
    pub fn resolve(&self, path: &[u8]) -> Result<RealPath, CallError> {
        self.walk(path, true)
    }

    /// Resolves like [`Tree::resolve`], except for a link at the very end.
    ///
    /// # Errors
    /// Fails in the cases of [`Tree::resolve`].
    pub fn resolve_parent(&self, path: &[u8]) -> Result<RealPath, CallError> {
        self.walk(path, false)
    }

    fn walk(&self, path: &[u8], follow_last: bool) -> Result<RealPath, CallError> {
        let mut real = RealPath::default();
        let mut pending: VecDeque<CString> = parts(path).collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name.as_c_str() == c".." {
                real.0.pop();
                continue;
            }
            real.0.push(name);
            if pending.is_empty() && !follow_last {
                break;
            }
            let is_link = self.stat(&real)?.is_some_and(|stat| sys::file_type(&stat) == FileType::Symlink);
            if !is_link {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(CallError { call: "open", path: real.display(), errno: Errno::LOOP });
            }
            let target = self.read_link(&real)?;
            real.0.pop();
            if target.to_bytes().starts_with(b"/") {
                real.0.clear();
            }
            let target: Vec<CString> = parts(target.to_bytes()).collect();
            target.into_iter().rev().for_each(|part| pending.push_front(part));
        }
        Ok(real)
    }

    /// Metadata of a path; `None` when it does not exist.
    pub fn stat(&self, real: &RealPath) -> Result<Option<Stat>, CallError> {
        for root in &self.roots {
            match open_inside(root.as_fd(), real, OFlags::PATH).and_then(fs::fstat) {
                Ok(stat) => return Ok(Some(stat)),
                Err(Errno::NOENT) => {}
                // A file of an upper tree hides the path in lower ones.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(CallError { call: "stat", path: real.display(), errno }),
            }
        }
        Ok(None)
    }

    fn read_link(&self, real: &RealPath) -> Result<CString, CallError> {
        let mut failure = Errno::NOENT;
        for root in &self.roots {
            let link = open_inside(root.as_fd(), real, OFlags::PATH);
            match link.and_then(|link| fs::readlinkat(link, c"", Vec::new())) {
                Ok(target) => return Ok(target),
                Err(errno) => failure = errno,
            }
        }
        Err(CallError { call: "readlink", path: real.display(), errno: failure })
    }

    /// Opens a directory of the uppermost tree that has it.
    ///
    /// # Errors
    /// `ENOENT` when no tree has it.
    pub fn open_dir(&self, real: &RealPath) -> Result<OwnedFd, CallError> {
        let mut failure = Errno::NOENT;
        for root in &self.roots {
            match open_inside(root.as_fd(), real, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(dir) => return Ok(dir),
                Err(errno) => failure = errno,
            }
        }
        Err(CallError { call: "open", path: real.display(), errno: failure })
    }

    /// Reads at most the first `limit` bytes of a regular file, following links; `None` when there is none.
    ///
    /// Other kinds of files are not opened: reading them may block, or never end.
    ///
    /// # Errors
    /// `ELOOP` for too many links, otherwise failures to read the file.
    pub fn read_file(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>, CallError> {
        let real = self.resolve(path)?;
        let is_file = self.stat(&real)?.is_some_and(|stat| sys::file_type(&stat) == FileType::RegularFile);
        if !is_file {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = self.roots.iter().find_map(|root| open_inside(root.as_fd(), &real, flags).ok());
        let Some(file) = opened else { return Ok(None) };
        let mut bytes = Vec::new();
        File::from(file).take(limit).read_to_end(&mut bytes).call("read", real.display())?;
        Ok(Some(bytes))
    }
}

/// Opens a path below `root` that had no links when it was resolved; links created since, even at its end, are not
/// followed (openat2 of Linux 5.6). With `PATH` a link itself is opened.
pub(crate) fn open_inside(root: BorrowedFd<'_>, real: &RealPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    sys::open_below(root, &real.relative(), flags)
}

/// Names of a path, without empty ones and `.`.
fn parts(path: &[u8]) -> impl Iterator<Item = CString> + '_ {
    path.split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .filter_map(|part| CString::new(part).ok())
}

fn relative(real: &[CString]) -> CString {
    let bytes = real.iter().map(|name| name.to_bytes()).collect::<Vec<_>>().join(&b'/');
    let bytes = if bytes.is_empty() { b".".to_vec() } else { bytes };
    CString::new(bytes).expect("names hold no NUL")
}

pub(crate) fn shown(real: &[CString]) -> PathBuf {
    let names = real.iter().map(|name| Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())));
    std::iter::once(Path::new("/")).chain(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_resolved_inside_the_tree() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/f"), "text").unwrap();
        symlink("/a/b", root.path().join("absolute")).unwrap();
        symlink("../../../../a", root.path().join("a/up")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        let resolve =
            |path: &str| String::from_utf8(tree.resolve(path.as_bytes()).unwrap().to_bytes()).unwrap();
        assert_eq!(resolve("absolute/f"), "a/b/f");
        assert_eq!(resolve("a/up/b/./../b/f"), "a/b/f");
        assert_eq!(resolve("../../etc"), "etc");
        assert_eq!(resolve("missing/../x"), "x");
        assert!(tree.resolve(b"loop").is_err());
        assert_eq!(tree.resolve_parent(b"absolute").unwrap().to_bytes(), b"absolute");
        assert_eq!(tree.read_file(b"absolute/f", 2).unwrap(), Some(b"te".to_vec()));
        assert_eq!(tree.read_file(b"a", 9).unwrap(), None);
    }

    #[test]
    fn upper_trees_take_precedence() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(lower.path().join("x"), "lower").unwrap();
        std::fs::write(lower.path().join("y"), "lower").unwrap();
        std::fs::write(upper.path().join("x"), "upper").unwrap();
        let open = |path: &Path| sys::open_dir(path).unwrap();
        let tree = Tree::of(vec![open(upper.path()), open(lower.path())]);
        let read = |name: &[u8]| tree.read_file(name, 10).unwrap().unwrap();
        assert_eq!((read(b"x"), read(b"y")), (b"upper".to_vec(), b"lower".to_vec()));
    }
}
