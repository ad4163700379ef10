//! Changes of a writable layer against the layers below, as `docker diff` lists them.

use super::overlay;
use crate::sys::{self, CallError, Named};
use crate::tree::merged::{Found, MergedDir};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// No layer below has the path.
    Added,
    /// The file, or something below a directory, is another one than below.
    Changed,
    /// The path exists in the layers below only.
    Deleted,
}

/// A path that differs from the layers below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Kind of the change.
    pub kind: ChangeKind,
    /// Absolute path in the tree.
    pub path: Vec<u8>,
}

/// Lists the changes of the layer in the directory `upper` against the tree below, sorted by path. A directory is listed in
/// front of changes below it.
///
/// # Errors
/// Fails when a directory cannot be read.
pub fn changes(upper: &Path, below: &MergedDir) -> Result<Vec<FileChange>, CallError> {
    let root = sys::open_dir(upper)?;
    let mut walk = Walk { path: Vec::new(), found: Vec::new() };
    walk.directory(root.as_fd(), Some(below))?;
    Ok(walk.found)
}

struct Walk {
    /// Absolute path of the current directory, without a slash at its end.
    path: Vec<u8>,
    found: Vec<FileChange>,
}

impl Walk {
    /// Lists the changes in a directory; `below` is the same directory in the layers below.
    fn directory(&mut self, dir: BorrowedFd<'_>, below: Option<&MergedDir>) -> Result<(), CallError> {
        super::check_length(&self.path)?;
        let mut names: BTreeSet<CString> = self.named(sys::names_if_any(dir))?.into_iter().collect();
        if let Some(below) = below
            && self.named(overlay::is_opaque(dir))?
        {
            names.extend(self.named(below.names())?);
        }
        for name in names {
            let length = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            let before = match below {
                Some(below) => self.named(below.lookup(&name))?,
                None => Found::Nothing,
            };
            self.member(dir, &name, &before)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn member(&mut self, dir: BorrowedFd<'_>, name: &CString, before: &Found) -> Result<(), CallError> {
        let existed = !matches!(before, Found::Nothing);
        let stat = self.named(sys::stat_at(dir, name))?;
        let Some(stat) = stat.filter(|stat| !sys::is_whiteout(stat)) else {
            if existed {
                self.push(ChangeKind::Deleted);
            }
            return Ok(());
        };
        let kind = if existed { ChangeKind::Changed } else { ChangeKind::Added };
        self.push(kind);
        if sys::file_type(&stat) != FileType::Directory {
            return Ok(());
        }
        let inner = match sys::open_dir_at(dir, name) {
            // The directory was removed, or replaced, after it was listed.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.found.pop();
                return Ok(());
            }
            opened => self.named(opened)?,
        };
        let Found::Dir(below) = before else { return self.directory(inner.as_fd(), None) };
        let listed = self.found.len();
        self.directory(inner.as_fd(), Some(below))?;
        let is_same = match below.top() {
            Some(top) => is_same(&stat, &self.named(fs::fstat(top))?),
            None => false,
        };
        // A directory that was only copied up, for a file that was then restored, has no change.
        if is_same && self.found.len() == listed {
            self.found.pop();
        }
        Ok(())
    }

    fn push(&mut self, kind: ChangeKind) {
        self.found.push(FileChange { kind, path: self.path.clone() });
    }

    /// Adds the current path to an error.
    fn named<T>(&self, result: Result<T, Errno>) -> Result<T, CallError> {
        use std::os::unix::ffi::OsStrExt;
        result.call("read", PathBuf::from(std::ffi::OsStr::from_bytes(&self.path)))
    }
}

/// True when a directory of the layer has the metadata of the one below.
fn is_same(upper: &Stat, lower: &Stat) -> bool {
    let key = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
    key(upper) == key(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_listed_by_path() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in ["etc", "var/old", "same"] {
            std::fs::create_dir_all(lower.path().join(dir)).unwrap();
        }
        for file in ["etc/passwd", "etc/gone", "var/old/a", "var/old/b", "same/f"] {
            std::fs::write(lower.path().join(file), "x").unwrap();
        }
        for dir in ["etc", "var/old", "same", "new/deep"] {
            std::fs::create_dir_all(upper.path().join(dir)).unwrap();
        }
        let dir = sys::open_dir(&upper.path().join("etc")).unwrap();
        overlay::make_whiteout(dir.as_fd(), c"gone").unwrap();
        overlay::make_whiteout(dir.as_fd(), c"never").unwrap();
        std::fs::write(upper.path().join("etc/passwd"), "y").unwrap();
        overlay::make_opaque(sys::open_dir(&upper.path().join("var/old")).unwrap().as_fd()).unwrap();
        std::fs::write(upper.path().join("var/old/a"), "y").unwrap();
        // A directory that was copied up with all metadata.
        let stat = fs::stat(lower.path().join("same")).unwrap();
        let same = sys::open_dir(&upper.path().join("same")).unwrap();
        fs::futimens(&same, &sys::timestamps(stat.st_mtime, stat.st_mtime_nsec as u32)).unwrap();
        let below = MergedDir::root(vec![sys::open_dir(lower.path()).unwrap()]);
        let found = changes(upper.path(), &below).unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|change| format!("{:?} {}", change.kind, String::from_utf8_lossy(&change.path)))
            .collect();
        let expected = [
            "Changed /etc",
            "Deleted /etc/gone",
            "Changed /etc/passwd",
            "Added /new",
            "Added /new/deep",
            "Changed /var",
            "Changed /var/old",
            "Changed /var/old/a",
            "Deleted /var/old/b",
        ];
        assert_eq!(shown, expected);
    }
}
