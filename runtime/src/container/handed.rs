//! File descriptors that a parent passes to a container's first process.

use crate::op::FdSlot;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// File descriptors for a new process. Plans refer to each by the slot under which it was added.
#[derive(Debug, Default)]
pub struct Handed<'a> {
    fds: Vec<Handle<'a>>,
}

#[derive(Debug)]
enum Handle<'a> {
    Owned(OwnedFd),
    Borrowed(BorrowedFd<'a>),
}

impl AsFd for Handle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Owned(fd) => fd.as_fd(),
            Handle::Borrowed(fd) => *fd,
        }
    }
}

impl<'a> Handed<'a> {
    /// Adds a file descriptor that this process closes once the new process has it.
    pub fn give(&mut self, fd: OwnedFd) -> FdSlot {
        self.add(Handle::Owned(fd))
    }

    /// Adds a file descriptor that this process keeps.
    pub fn lend(&mut self, fd: BorrowedFd<'a>) -> FdSlot {
        self.add(Handle::Borrowed(fd))
    }

    fn add(&mut self, handle: Handle<'a>) -> FdSlot {
        self.fds.push(handle);
        FdSlot(self.fds.len() - 1)
    }

    /// All file descriptors, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd)
    }

    /// All file descriptors, in the order of their slots; borrowed ones are duplicated.
    pub(crate) fn into_owned(self) -> Result<Vec<OwnedFd>, Errno> {
        let own = |handle| match handle {
            Handle::Owned(fd) => Ok(fd),
            Handle::Borrowed(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 3),
        };
        self.fds.into_iter().map(own).collect()
    }
}
