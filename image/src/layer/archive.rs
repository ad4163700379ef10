//! Packing of a file or directory of any tree as a plain tar: copies out of containers, and into them.
//!
//! The tree may change meanwhile, and its owner may be hostile: every name is looked up in an open directory, no link is
//! followed, and only regular files are opened. File systems of the kernel, such as /proc, are packed as empty
//! directories: their files are not the tree's, and reading them may never end.

use super::check_length;
use super::diff::DiffError;
use super::pack::{Owner, Packer, display};
use crate::sys::{self, Descent, Named};
use crate::tar::EntryKind;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io::Write;

/// File systems whose files are the kernel's (`linux/magic.h`): proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs,
/// tracefs, securityfs, bpf, configfs, selinuxfs, efivarfs, binfmt_misc, fusectl, nsfs, pstore.
const OF_KERNEL: [i64; 17] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6265_6570,
    0xf97c_ff8c,
    0xde5e_81e4,
    0x4249_4e4d,
    0x6573_5543,
    0x6e73_6673,
    0x6165_676c,
];

/// True for a file of a file system whose files are the kernel's, such as /proc and /sys.
///
/// # Errors
/// Fails in the cases of fstatfs(2).
pub fn is_of_kernel(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let kind = fs::fstatfs(file)?.f_type & 0xffff_ffff;
    Ok(OF_KERNEL.contains(&kind))
}

/// Writes the file `name` of `dir` to `output`, with everything below it; `.` is the directory itself. Its own entry has the
/// path `shown`.
///
/// # Errors
/// [`DiffError::Changed`] when a file becomes shorter meanwhile; other errors are those of reading and writing.
pub fn archive<W: Write>(dir: OwnedFd, name: &CStr, shown: &[u8], output: W) -> Result<W, DiffError> {
    let stat = sys::stat_at(std::os::fd::AsFd::as_fd(&dir), name).call("stat", display(shown))?;
    let stat = stat.ok_or_else(|| DiffError::Changed(display(shown)))?;
    let mut archiver =
        Archiver { packer: Packer::new(output, i64::MAX, Owner::Container), way: Descent::new(dir) };
    if sys::file_type(&stat) == FileType::Directory {
        archiver.tree(name, shown)?;
    } else {
        archiver.packer.member(archiver.way.here(), name, shown, &stat)?;
    }
    Ok(archiver.packer.writer.finish()?)
}

struct Archiver<W: Write> {
    packer: Packer<W>,
    /// Current directory of the walk.
    way: Descent,
}

impl<W: Write> Archiver<W> {
    /// Writes a directory. Not recursive, as a tree may be deeper than the stack of a thread.
    fn tree(&mut self, name: &CStr, shown: &[u8]) -> Result<(), DiffError> {
        let mut path = shown.to_vec();
        self.way.enter(name).call("open", display(&path))?;
        let mut pending = vec![(shown.len(), self.list(&mut path)?)];
        while let Some((length, names)) = pending.last_mut() {
            // Behind the slash of the directory.
            path.truncate(*length + 1);
            let Some(name) = names.next() else {
                pending.pop();
                self.way.leave().call("open", display(&path))?;
                continue;
            };
            path.extend_from_slice(name.to_bytes());
            let here = self.way.here();
            // The file was removed after the directory was listed.
            let Some(stat) = sys::stat_at(here, &name).call("stat", display(&path))? else { continue };
            if sys::file_type(&stat) == FileType::Directory {
                match self.way.enter(&name) {
                    Err(Errno::NOENT) => continue,
                    entered => entered.call("open", display(&path))?,
                }
                pending.push((path.len(), self.list(&mut path)?));
                continue;
            }
            match self.packer.member(here, &name, &path, &stat) {
                Err(DiffError::Call(error)) if error.is_not_found() => {}
                written => written?,
            }
        }
        Ok(())
    }

    /// Writes the entry of the current directory, adds a slash to its path, and lists it.
    fn list(&mut self, path: &mut Vec<u8>) -> Result<std::vec::IntoIter<CString>, DiffError> {
        check_length(path)?;
        let stat = fs::fstat(self.way.here()).call("stat", display(path))?;
        self.packer.writer.begin(&self.packer.entry(EntryKind::Directory, path, &stat))?;
        path.push(b'/');
        if is_of_kernel(self.way.here()).call("statfs", display(path))? {
            return Ok(Vec::new().into_iter());
        }
        Ok(sys::names_if_any(self.way.here()).call("getdents", display(path))?.into_iter())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files that the tests made themselves")]
mod tests {
    use super::*;
    use crate::tar::Reader;

    fn names(dir: &std::path::Path, name: &CStr, shown: &str) -> Vec<String> {
        let tar = archive(sys::open_dir(dir).unwrap(), name, shown.as_bytes(), Vec::new()).unwrap();
        let mut reader = Reader::new(tar.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.name).unwrap());
        }
        names
    }

    #[test]
    fn entries_have_the_shown_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/f"), "f").unwrap();
        std::fs::hard_link(dir.path().join("a/f"), dir.path().join("a/g")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("a/b/link")).unwrap();
        assert_eq!(names(dir.path(), c"a", "x"), ["x/", "x/b/", "x/b/link", "x/f", "x/g"]);
        assert_eq!(names(&dir.path().join("a"), c".", "."), ["./", "./b/", "./b/link", "./f", "./g"]);
        assert_eq!(names(&dir.path().join("a"), c"f", "y"), ["y"]);
        assert_eq!(names(&dir.path().join("a/b"), c"link", "l"), ["l"]);
    }

    #[test]
    fn files_of_the_kernel_are_left_out() {
        assert_eq!(names(std::path::Path::new("/"), c"proc", "proc"), ["proc/"]);
        assert!(
            is_of_kernel(std::os::fd::AsFd::as_fd(&sys::open_dir("/proc/self".as_ref()).unwrap())).unwrap()
        );
    }
}
