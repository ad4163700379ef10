//! Comparison of two layers.

use super::overlay;
use crate::sys::{self, CallError, Descent, Named};
use rustix::fd::BorrowedFd;
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The first difference between two layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path of the file, from the root.
    pub path: PathBuf,
    /// Property that differs, such as `content`.
    pub what: &'static str,
}

/// Compares the layer directories `one` and `other` in the order of names; with `times` also modification times, in
/// whole seconds. `None` when they are equal.
pub fn first_difference(one: &Path, other: &Path, times: bool) -> Result<Option<Difference>, CallError> {
    let open = |path| sys::open_dir(path).map(Descent::new);
    Comparer { times, one: open(one)?, other: open(other)? }.dir(Path::new("/"))
}

struct Comparer {
    times: bool,
    /// Walk through both directories.
    one: Descent,
    other: Descent,
}

type Found = Result<Option<Difference>, CallError>;

impl Comparer {
    fn dir(&mut self, path: &Path) -> Found {
        let mut names: BTreeSet<CString> = BTreeSet::new();
        names.extend(sys::sorted_names(self.one.here()).call("getdents", path)?);
        names.extend(sys::sorted_names(self.other.here()).call("getdents", path)?);
        for name in names {
            let inner = path.join(&*name.to_string_lossy());
            let found = self.member(&name, &inner)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn member(&mut self, name: &CStr, path: &Path) -> Found {
        let (one, other) = (self.one.here(), self.other.here());
        let differs = |what| Ok(Some(Difference { path: path.to_owned(), what }));
        let stat = |dir| sys::stat_at(dir, name).call("stat", path);
        let (Some(first), Some(second)) = (stat(one)?, stat(other)?) else {
            return differs("only one of them has it");
        };
        if let Some(what) = self.metadata(&first, &second) {
            return differs(what);
        }
        match sys::file_type(&first) {
            FileType::RegularFile => {
                let same = same_content(&open(one, name, path)?, &open(other, name, path)?, path)?;
                if same { Ok(None) } else { differs("content") }
            }
            FileType::Symlink => {
                let target = |dir| fs::readlinkat(dir, name, Vec::new()).call("readlink", path);
                if target(one)? == target(other)? { Ok(None) } else { differs("target") }
            }
            FileType::Directory => {
                self.one.enter(name).call("open", path)?;
                self.other.enter(name).call("open", path)?;
                let opaque = |dir| overlay::is_opaque(dir).call("getxattr", path);
                if opaque(self.one.here())? != opaque(self.other.here())? {
                    return differs("what it hides");
                }
                let found = self.dir(path)?;
                self.one.leave().call("open", path)?;
                self.other.leave().call("open", path)?;
                Ok(found)
            }
            _ => Ok(None),
        }
    }

    fn metadata(&self, one: &Stat, other: &Stat) -> Option<&'static str> {
        // A whiteout has no properties in a tar but its name.
        if sys::is_whiteout(one) && sys::is_whiteout(other) {
            return None;
        }
        let is_file = sys::file_type(one) == FileType::RegularFile;
        if sys::file_type(one) != sys::file_type(other) {
            Some("kind")
        } else if one.st_mode != other.st_mode {
            Some("mode")
        } else if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid) {
            Some("owner")
        } else if one.st_rdev != other.st_rdev {
            Some("device")
        } else if is_file && one.st_size != other.st_size {
            Some("size")
        } else if self.times && one.st_mtime != other.st_mtime {
            Some("time")
        } else {
            None
        }
    }
}

fn open(dir: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<File, CallError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(fs::openat(dir, name, flags, Mode::empty()).call("open", path)?))
}

fn same_content(mut one: &File, mut other: &File, path: &Path) -> Result<bool, CallError> {
    let (mut first, mut second) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = one.read(&mut first).call("read", path)?;
        if count == 0 {
            return Ok(true);
        }
        if other.read_exact(&mut second[..count]).is_err() || first[..count] != second[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files that the tests made themselves")]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_difference_is_returned() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let both = |name: &str, content: &str| {
            for dir in [one.path(), other.path()] {
                std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
                std::fs::write(dir.join(name), content).unwrap();
            }
        };
        let check = |expected: Option<(&str, &str)>| {
            let found = first_difference(one.path(), other.path(), false).unwrap();
            let found = found.as_ref().map(|it| (it.path.to_str().unwrap(), it.what));
            assert_eq!(found, expected);
        };
        both("d/f", "same");
        both("d/g", "same");
        check(None);
        std::fs::write(other.path().join("d/g"), "diff").unwrap();
        check(Some(("/d/g", "content")));
        std::fs::set_permissions(other.path().join("d/f"), PermissionsExt::from_mode(0o600)).unwrap();
        check(Some(("/d/f", "mode")));
        std::fs::write(one.path().join("a"), "").unwrap();
        check(Some(("/a", "only one of them has it")));
        // Whiteouts with different times are equal.
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (number, dir) in [one.path(), other.path()].into_iter().enumerate() {
            let dir = sys::open_dir(dir).unwrap();
            if overlay::make_whiteout(dir.as_fd(), c"w").is_err() {
                return;
            }
            sys::set_mtime_at(dir.as_fd(), c"w", number as i64, 0).unwrap();
        }
        assert_eq!(first_difference(one.path(), other.path(), true).unwrap(), None);
    }
}
