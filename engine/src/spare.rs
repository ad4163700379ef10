//! Space for the records of containers on a full disk.
//!
//! A container that ends, is paused or is stopped changes its record, and a change that is lost is worse than a failed
//! command: an exit code is known only once. So some files with allocated space wait in the store, and one of them becomes
//! the record where no other file can be written. That is synced before, since allocated space that was not written reads
//! as zeros after a power cut.

use kiln_image::sys::{CallError, Named};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fdatasync, ftruncate, open};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Number of files in the store.
const FILES: usize = 32;
/// Size of each in bytes: a record has two to four thousand.
const SIZE: u64 = 16 << 10;

fn dir(root: &Path) -> PathBuf {
    root.join("spares")
}

fn file(root: &Path, number: usize) -> PathBuf {
    dir(root).join(format!("{number:02}"))
}

/// Creates the files of the store in `root` that are missing. On a full disk they are created later.
pub(crate) fn keep(root: &Path) {
    // The first one is taken first.
    if file(root, 0).exists() {
        return;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    for number in (0..FILES).rev() {
        let path = file(root, number);
        let made = match open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT) if make_dir(root) => open(&path, flags, Mode::RUSR | Mode::WUSR),
            made => made,
        };
        let allocated = match made {
            Err(Errno::EXIST) => continue,
            made => made.and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, SIZE)),
        };
        if allocated.is_err() {
            let _ = fs::remove_file(&path);
            return;
        }
    }
}

/// Creates the directory, which only the owner of the store can enter.
fn make_dir(root: &Path) -> bool {
    fs::DirBuilder::new().mode(0o700).create(dir(root)).is_ok()
}

/// Writes `bytes` to a new file at `path` in the space of one of the files.
///
/// # Errors
/// Fails with the error of the write, and with ENOSPC when all files have been used.
pub(crate) fn write(root: &Path, path: &Path, bytes: &[u8]) -> Result<(), CallError> {
    // A file that another process takes first is gone.
    let is_taken = (0..FILES).any(|number| fs::rename(file(root, number), path).is_ok());
    if !is_taken {
        return Err(Errno::NOSPC).call("write", path);
    }
    let file = open(path, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let file = file.call("open", path)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = rustix::io::write(&file, rest).call("write", path)?;
        rest = &rest[length..];
    }
    ftruncate(&file, bytes.len() as u64).call("truncate", path)?;
    fdatasync(&file).call("fdatasync", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_with_space_become_others() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new");
        assert_eq!(write(root.path(), &path, b"x").unwrap_err().errno, Errno::NOSPC);
        keep(root.path());
        let left = || fs::read_dir(dir(root.path())).unwrap().count();
        assert_eq!(left(), FILES);
        assert!(fs::metadata(file(root.path(), 0)).unwrap().blocks() * 512 >= SIZE);
        write(root.path(), &path, b"longer text").unwrap();
        write(root.path(), &path, b"text").unwrap();
        assert_eq!((fs::read(&path).unwrap(), left()), (b"text".to_vec(), FILES - 2));
        keep(root.path());
        assert_eq!(left(), FILES);
    }
}
