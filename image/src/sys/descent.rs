//! Walks down a tree of any depth with a bounded number of handles.

use super::open_dir_at;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs;
use rustix::io::Errno;
use std::ffi::CStr;

/// Number of open handles of a walk, besides that of its top.
const MAX_OPEN: usize = 16;

/// Path of open directories from the top of a tree to the current directory.
///
/// Handles of directories far above are closed; on the way back they are opened through `..`, and must be the same
/// directories. Links are not followed.
#[derive(Debug)]
pub struct Descent {
    top: OwnedFd,
    levels: Vec<Level>,
}

#[derive(Debug)]
enum Level {
    Open(OwnedFd),
    /// Device and inode of a directory whose handle was closed.
    Closed(u64, u64),
}

impl Descent {
    /// Starts a walk at a directory.
    pub fn new(top: OwnedFd) -> Descent {
        Descent { top, levels: Vec::new() }
    }

    /// Handle on the current directory.
    pub fn here(&self) -> BorrowedFd<'_> {
        match self.levels.last() {
            // The innermost handle is never closed.
            Some(Level::Open(dir)) => dir.as_fd(),
            _ => self.top.as_fd(),
        }
    }

    /// Enters a directory of the current one.
    ///
    /// # Errors
    /// Fails as open(2): a link with `ELOOP` or `ENOTDIR`.
    pub fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let dir = open_dir_at(self.here(), name)?;
        self.push(dir)
    }

    /// Enters a directory of the current one that is open already.
    ///
    /// # Errors
    /// Fails when the identity of a directory that is closed for it cannot be read.
    pub fn push(&mut self, dir: OwnedFd) -> Result<(), Errno> {
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN)
            && let Level::Open(above) = &self.levels[far]
        {
            let stat = fs::fstat(above)?;
            self.levels[far] = Level::Closed(stat.st_dev, stat.st_ino);
        }
        self.levels.push(Level::Open(dir));
        Ok(())
    }

    /// Returns to the parent directory; has no effect at the top.
    ///
    /// # Errors
    /// `ESTALE` when the current directory was moved meanwhile.
    pub fn leave(&mut self) -> Result<(), Errno> {
        let left = self.levels.pop();
        if let (Some(Level::Open(left)), Some(Level::Closed(device, inode))) = (&left, self.levels.last()) {
            let above = open_dir_at(left.as_fd(), c"..")?;
            let stat = fs::fstat(&above)?;
            if (stat.st_dev, stat.st_ino) != (*device, *inode) {
                return Err(Errno::STALE);
            }
            self.levels.pop();
            self.levels.push(Level::Open(above));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{open_dir, remove_path, sorted_names};

    const DEPTH: usize = 200;

    #[test]
    fn leaving_returns_to_the_directories_entered() {
        let root = tempfile::tempdir().unwrap();
        let mut way = Descent::new(open_dir(root.path()).unwrap());
        let before = open_files();
        for _ in 0..DEPTH {
            fs::mkdirat(way.here(), c"d", fs::Mode::RWXU).unwrap();
            fs::mkdirat(way.here(), c"f", fs::Mode::RWXU).unwrap();
            way.enter(c"d").unwrap();
        }
        assert!(open_files() - before <= MAX_OPEN + 10, "{before} {}", open_files());
        assert!(sorted_names(way.here()).unwrap().is_empty());
        for _ in 0..DEPTH {
            way.leave().unwrap();
            assert_eq!(sorted_names(way.here()).unwrap(), [c"d".to_owned(), c"f".to_owned()]);
        }
        way.leave().unwrap();
        assert_eq!(fs::fstat(way.here()).unwrap().st_ino, fs::fstat(&way.top).unwrap().st_ino);
    }

    #[test]
    fn moved_directories_are_errors() {
        let root = tempfile::tempdir().unwrap();
        let mut way = Descent::new(open_dir(root.path()).unwrap());
        for _ in 0..=MAX_OPEN {
            fs::mkdirat(way.here(), c"d", fs::Mode::RWXU).unwrap();
            way.enter(c"d").unwrap();
        }
        let top = open_dir(root.path()).unwrap();
        fs::renameat(&top, c"d/d", &top, c"moved").unwrap();
        let back: Result<(), Errno> = (0..MAX_OPEN).try_for_each(|_| way.leave());
        assert_eq!(back, Err(Errno::STALE));
        // The moved directory can be removed as well.
        remove_path(&root.path().join("moved")).unwrap();
    }

    /// Number of open handles of this process, including those of other tests.
    fn open_files() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }
}
