//! Following a log while it is written and rotated.

use super::read::{Lines, LogError, failed, open_after};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A watch on the files of a log.
pub(super) struct Follower<'a> {
    dir: PathBuf,
    watch: OwnedFd,
    /// Readable when the writer has ended.
    ended: BorrowedFd<'a>,
}

impl<'a> Follower<'a> {
    pub(super) fn new(dir: &Path, ended: BorrowedFd<'a>) -> Result<Follower<'a>, LogError> {
        let make = || {
            let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
            inotify::add_watch(&watch, dir, changes)?;
            Ok(watch)
        };
        let watch =
            make().map_err(|errno: Errno| LogError::Watch { path: dir.to_owned(), source: errno.into() })?;
        Ok(Follower { dir: dir.to_owned(), watch, ended })
    }

    /// Passes on entries written after `last`, the file that was read to its end; `None` when there was no file.
    pub(super) fn run(
        &mut self,
        mut last: Option<Lines>,
        pass: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), LogError> {
        loop {
            // Check for the writer's end first: after it, everything that was written can be read.
            let has_ended = self.wait(true)?;
            loop {
                if let Some(lines) = &mut last
                    && lines.pass(pass).map_err(|source| failed(&self.dir, source))?.is_break()
                {
                    return Ok(());
                }
                let Some(next) = self.after(last.as_ref())? else { break };
                // The writer may have appended to this file after it was read above; since its rotation it is complete.
                if let Some(lines) = &mut last
                    && lines.pass(pass).map_err(|source| failed(&self.dir, source))?.is_break()
                {
                    return Ok(());
                }
                last = Some(next);
            }
            if has_ended {
                return Ok(());
            }
            self.wait(false)?;
        }
    }

    /// File that was begun after `last`. `None` when `last` is the newest.
    fn after(&self, last: Option<&Lines>) -> Result<Option<Lines>, LogError> {
        let next = open_after(&self.dir, last.map(Lines::inode))?.into_iter().next();
        next.map(|file| Lines::new(file).map_err(|source| failed(&self.dir, source))).transpose()
    }

    /// Waits for a change, or for the end of the writer; with `only_look` it does not wait. True when the writer has
    /// ended.
    fn wait(&mut self, only_look: bool) -> Result<bool, LogError> {
        let failed = |errno: Errno| LogError::Watch { path: self.dir.clone(), source: errno.into() };
        let mut polled =
            [PollFd::from_borrowed_fd(self.ended, PollFlags::IN), PollFd::new(&self.watch, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut polled, only_look.then_some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let has_ended = !polled[0].revents().is_empty();
        let has_changed = !polled[1].revents().is_empty();
        if has_changed && !only_look {
            let mut buffer = [0u8; 4096];
            // The events need not be decoded: all files are checked after any of them.
            while rustix::io::read(self.watch.as_fd(), &mut buffer).is_ok_and(|length| length > 0) {}
        }
        Ok(has_ended)
    }
}
