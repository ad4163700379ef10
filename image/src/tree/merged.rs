//! Merged view of the directories of several layers, as overlayfs presents it, without a mount.
//!
//! Every lookup is of one name in open directories and follows no link; the target of a link is resolved from the root
//! of the tree, where `..` stays. So no path of a layer, however crafted, reaches a file of the host.

use crate::layer::is_opaque;
use crate::sys;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// Number of links in the resolution of one path, as in Linux.
const MAX_LINKS: usize = 40;

/// A directory of the merged tree: the directories that layers have at its path, the highest first.
#[derive(Clone, Debug)]
pub struct MergedDir {
    pieces: Vec<Piece>,
    /// Whether unknown layers may be below.
    is_open_ended: bool,
}

/// Directory of one layer; `layer` counts from the highest layer of the tree.
#[derive(Clone, Debug)]
struct Piece {
    layer: usize,
    dir: Rc<OwnedFd>,
}

/// Result of looking up a name.
#[derive(Debug)]
pub enum Found {
    /// No layer has the name, or a whiteout hides it.
    Nothing,
    /// No known layer has the name, and unknown ones may be below.
    Unknown,
    /// A directory of the merged tree.
    Dir(MergedDir),
    /// A file of another kind.
    File(FoundFile),
}

/// A member of a directory that is not itself a directory.
#[derive(Debug)]
pub struct FoundFile {
    /// Number of the layer that has it, counted from the highest.
    pub layer: usize,
    /// Directory of that layer.
    pub dir: Rc<OwnedFd>,
    /// Metadata of the file, without following links.
    pub stat: Stat,
}

impl FoundFile {
    fn is_link(&self) -> bool {
        sys::file_type(&self.stat) == FileType::Symlink
    }
}

/// Failure to resolve a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The path depends on unknown layers.
    Unknown,
    /// A parent directory does not exist.
    Missing,
    /// A parent is not a directory.
    NotADirectory,
    /// The path has too many links.
    Loop,
    /// A system call failed.
    Call(Errno),
}

impl From<Errno> for Unresolved {
    fn from(errno: Errno) -> Unresolved {
        Unresolved::Call(errno)
    }
}

/// A resolved path: a name in a directory that exists.
#[derive(Debug)]
pub struct Resolved {
    /// Names along the path from the root, without links except for the last one.
    pub names: Vec<CString>,
    /// File at the last name; links are not followed.
    pub found: Found,
}

impl MergedDir {
    /// Root of a tree of layers, the highest first.
    pub fn root(layers: Vec<OwnedFd>) -> MergedDir {
        let pieces = layers.into_iter().enumerate().map(|(layer, dir)| Piece { layer, dir: Rc::new(dir) });
        MergedDir { pieces: pieces.collect(), is_open_ended: false }
    }

    /// Root of a layer that may have unknown layers below.
    pub fn open_partial(layer: OwnedFd) -> Result<MergedDir, Errno> {
        let is_open_ended = !is_opaque(layer.as_fd())?;
        Ok(MergedDir { is_open_ended, ..MergedDir::root(vec![layer]) })
    }

    /// Root of this tree with one more layer on top.
    pub fn under(&self, layer: OwnedFd) -> Result<MergedDir, Errno> {
        if is_opaque(layer.as_fd())? {
            return Ok(MergedDir::root(vec![layer]));
        }
        let below = self.pieces.iter().map(|piece| Piece { layer: piece.layer + 1, dir: piece.dir.clone() });
        let pieces = std::iter::once(Piece { layer: 0, dir: Rc::new(layer) }).chain(below).collect();
        Ok(MergedDir { pieces, is_open_ended: self.is_open_ended })
    }

    /// Directory of the highest layer, whose metadata the tree presents; `None` for a tree without layers.
    pub fn top(&self) -> Option<BorrowedFd<'_>> {
        Some(self.pieces.first()?.dir.as_fd())
    }

    /// Looks up a name as overlayfs does: the highest layer that has it decides; directories are merged down to an
    /// opaque one or a file of another kind.
    pub fn lookup(&self, name: &CStr) -> Result<Found, Errno> {
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let opened = sys::open_dir_at(piece.dir.as_fd(), name);
            let dir = match opened {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) if pieces.is_empty() => {
                    return Ok(match sys::stat_at(piece.dir.as_fd(), name)? {
                        None => Found::Nothing,
                        Some(stat) if sys::is_whiteout(&stat) => Found::Nothing,
                        Some(stat) => {
                            Found::File(FoundFile { layer: piece.layer, dir: piece.dir.clone(), stat })
                        }
                    });
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Ok(Found::Dir(MergedDir { pieces, is_open_ended: false }));
                }
                Err(errno) => return Err(errno),
            };
            let ends = is_opaque(dir.as_fd())?;
            pieces.push(Piece { layer: piece.layer, dir: Rc::new(dir) });
            if ends {
                return Ok(Found::Dir(MergedDir { pieces, is_open_ended: false }));
            }
        }
        Ok(match (pieces.is_empty(), self.is_open_ended) {
            (true, true) => Found::Unknown,
            (true, false) => Found::Nothing,
            (false, is_open_ended) => Found::Dir(MergedDir { pieces, is_open_ended }),
        })
    }

    /// Names in the directory, sorted by bytes.
    pub fn names(&self) -> Result<Vec<CString>, Errno> {
        let mut names = BTreeSet::new();
        for piece in &self.pieces {
            names.extend(sys::sorted_names(piece.dir.as_fd())?);
        }
        let mut shown = Vec::new();
        for name in names {
            if !matches!(self.lookup(&name)?, Found::Nothing) {
                shown.push(name);
            }
        }
        Ok(shown)
    }

    /// Resolves a path from `self` as the root. Links on the way are followed, one at the end is not.
    ///
    /// # Errors
    /// Fails when a parent is missing, is not a directory or is in an unknown layer, and for too many links.
    pub fn resolve(&self, path: &[CString]) -> Result<Resolved, Unresolved> {
        let mut pending: VecDeque<CString> = path.iter().cloned().collect();
        let mut names: Vec<CString> = Vec::new();
        let mut way: Vec<MergedDir> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name.as_c_str() == c".." {
                names.pop();
                way.pop();
                continue;
            }
            let found = way.last().unwrap_or(self).lookup(&name)?;
            if pending.is_empty() {
                names.push(name);
                return Ok(Resolved { names, found });
            }
            match found {
                Found::Nothing => return Err(Unresolved::Missing),
                Found::Unknown => return Err(Unresolved::Unknown),
                Found::Dir(dir) => {
                    names.push(name);
                    way.push(dir);
                }
                Found::File(file) if file.is_link() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Unresolved::Loop);
                    }
                    let target = fs::readlinkat(&*file.dir, &name, Vec::new())?;
                    if target.to_bytes().starts_with(b"/") {
                        names.clear();
                        way.clear();
                    }
                    link_names(&target).rev().for_each(|part| pending.push_front(part));
                }
                Found::File(_) => return Err(Unresolved::NotADirectory),
            }
        }
        let root = self.clone();
        Ok(Resolved { names, found: Found::Dir(way.pop().unwrap_or(root)) })
    }
}

/// Names in the target of a link, without `.` and empty ones.
pub fn link_names(target: &CStr) -> impl DoubleEndedIterator<Item = CString> + '_ {
    target
        .to_bytes()
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .filter_map(|part| CString::new(part).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn layer(make: impl FnOnce(&Path)) -> (tempfile::TempDir, OwnedFd) {
        let root = tempfile::tempdir().unwrap();
        make(root.path());
        let opened = sys::open_dir(root.path()).unwrap();
        (root, opened)
    }

    fn names(path: &str) -> Vec<CString> {
        path.split('/').filter(|part| !part.is_empty()).map(|part| CString::new(part).unwrap()).collect()
    }

    fn resolved(tree: &MergedDir, path: &str) -> Result<(String, usize), Unresolved> {
        let found = tree.resolve(&names(path))?;
        let shown: Vec<_> = found.names.iter().map(|name| name.to_str().unwrap()).collect();
        let layer = match found.found {
            Found::File(file) => file.layer,
            Found::Dir(dir) => dir.pieces[0].layer,
            Found::Nothing => 98,
            Found::Unknown => 99,
        };
        Ok((shown.join("/"), layer))
    }

    #[test]
    fn links_of_layers_are_resolved_inside() {
        let (_lower, lower) = layer(|root| {
            std::fs::create_dir_all(root.join("run/lock")).unwrap();
            std::fs::write(root.join("run/lock/f"), "").unwrap();
            std::fs::create_dir(root.join("var")).unwrap();
            symlink("../../../run", root.join("var/run")).unwrap();
            symlink("/etc", root.join("out")).unwrap();
            symlink("loop", root.join("loop")).unwrap();
            std::fs::write(root.join("file"), "").unwrap();
        });
        let (_upper, upper) = layer(|root| std::fs::create_dir(root.join("var")).unwrap());
        let tree = MergedDir::root(vec![lower]).under(upper).unwrap();
        assert_eq!(resolved(&tree, "var/run/lock/f"), Ok(("run/lock/f".into(), 1)));
        assert_eq!(resolved(&tree, "var/run"), Ok(("var/run".into(), 1)));
        assert_eq!(resolved(&tree, "var"), Ok(("var".into(), 0)));
        assert_eq!(resolved(&tree, "out/shadow"), Err(Unresolved::Missing));
        assert_eq!(resolved(&tree, "loop/x"), Err(Unresolved::Loop));
        assert_eq!(resolved(&tree, "file/x"), Err(Unresolved::NotADirectory));
        assert_eq!(resolved(&tree, "none"), Ok(("none".into(), 98)));
    }

    #[test]
    fn results_that_depend_on_unknown_layers_are_unknown() {
        let (_upper, upper) = layer(|root| {
            std::fs::create_dir(root.join("a")).unwrap();
            std::fs::write(root.join("a/f"), "").unwrap();
        });
        let tree = MergedDir::open_partial(upper).unwrap();
        assert_eq!(resolved(&tree, "a/f"), Ok(("a/f".into(), 0)));
        assert_eq!(resolved(&tree, "a/g"), Ok(("a/g".into(), 99)));
        assert_eq!(resolved(&tree, "b/g"), Err(Unresolved::Unknown));
    }
}
