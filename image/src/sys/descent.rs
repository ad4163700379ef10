//! A walk down a tree of any depth with a bounded number of handles.

use super::open_dir_at;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs;
use rustix::io::Errno;
use std::ffi::CStr;

/// Handles that a walk holds at most, besides that of its top.
const MOST_OPEN: usize = 16;

/// The directories from the top of a tree to one of its directories.
///
/// Handles of directories far above are closed; on the way back they are opened through `..`, and must be the directories
/// that the walk came from. No link is followed.
#[derive(Debug)]
pub struct Descent {
    top: OwnedFd,
    levels: Vec<Level>,
}

#[derive(Debug)]
enum Level {
    Open(OwnedFd),
    /// Device and inode of one whose handle was closed.
    Closed(u64, u64),
}

impl Descent {
    /// Begins at a directory.
    pub fn new(top: OwnedFd) -> Descent {
        Descent { top, levels: Vec::new() }
    }

    /// The directory that was entered last.
    pub fn here(&self) -> BorrowedFd<'_> {
        match self.levels.last() {
            // The innermost one is never closed.
            Some(Level::Open(dir)) => dir.as_fd(),
            _ => self.top.as_fd(),
        }
    }

    /// Enters a directory of the current one.
    ///
    /// # Errors
    /// As open(2) has them: a link fails with `ELOOP` or `ENOTDIR`.
    pub fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let dir = open_dir_at(self.here(), name)?;
        self.push(dir)
    }

    /// Enters a directory of the current one that is open already.
    pub fn push(&mut self, dir: OwnedFd) -> Result<(), Errno> {
        if let Some(far) = self.levels.len().checked_sub(MOST_OPEN)
            && let Level::Open(above) = &self.levels[far]
        {
            let stat = fs::fstat(above)?;
            self.levels[far] = Level::Closed(stat.st_dev, stat.st_ino);
        }
        self.levels.push(Level::Open(dir));
        Ok(())
    }

    /// Goes back to the directory above; at the top nothing happens.
    ///
    /// # Errors
    /// `ESTALE` when the current directory was moved elsewhere meanwhile.
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
    fn the_way_back_is_the_way_in() {
        let root = tempfile::tempdir().unwrap();
        let mut way = Descent::new(open_dir(root.path()).unwrap());
        let before = open_files();
        for _ in 0..DEPTH {
            fs::mkdirat(way.here(), c"d", fs::Mode::RWXU).unwrap();
            fs::mkdirat(way.here(), c"f", fs::Mode::RWXU).unwrap();
            way.enter(c"d").unwrap();
        }
        assert!(open_files() - before <= MOST_OPEN + 10, "{before} {}", open_files());
        assert!(sorted_names(way.here()).unwrap().is_empty());
        for _ in 0..DEPTH {
            way.leave().unwrap();
            assert_eq!(sorted_names(way.here()).unwrap(), [c"d".to_owned(), c"f".to_owned()]);
        }
        way.leave().unwrap();
        assert_eq!(fs::fstat(way.here()).unwrap().st_ino, fs::fstat(&way.top).unwrap().st_ino);
    }

    #[test]
    fn moved_directories_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let mut way = Descent::new(open_dir(root.path()).unwrap());
        for _ in 0..=MOST_OPEN {
            fs::mkdirat(way.here(), c"d", fs::Mode::RWXU).unwrap();
            way.enter(c"d").unwrap();
        }
        let top = open_dir(root.path()).unwrap();
        fs::renameat(&top, c"d/d", &top, c"moved").unwrap();
        let back: Result<(), Errno> = (0..MOST_OPEN).try_for_each(|_| way.leave());
        assert_eq!(back, Err(Errno::STALE));
        // What was moved is removed as well.
        remove_path(&root.path().join("moved")).unwrap();
    }

    /// Handles of this process: other tests open some, too.
    fn open_files() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }
}
