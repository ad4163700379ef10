//! Resolution of paths in the layer: the innermost directory of the last entry, and the way from there to the next one.

use super::{ApplyError, Implied, Level, Unpacker, joined, path};
use crate::layer::MAX_PATH;
use crate::sys::{self, CallError, Named};
use crate::tree::merged::link_names;
use crate::tree::{RealPath, open_inside};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, FileType, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};

/// Number of links in the resolution of one path, as in Linux.
const MAX_LINKS: usize = 40;

/// Number of open directory handles on the path of the last entry; others are reopened by their path.
pub(super) const MAX_OPEN: usize = 16;

/// Result of entering a name.
enum Step {
    Entered,
    /// The name is a link with this target.
    Link(CString),
}

impl Unpacker<'_> {
    /// Makes the directory `components` the innermost one; missing directories are created.
    pub(super) fn enter(&mut self, components: &[CString], shown: &[u8]) -> Result<(), ApplyError> {
        let common = self.here.iter().zip(components).take_while(|(level, wanted)| level.name == **wanted);
        let common = common.count();
        self.here.truncate(common);
        let rest = &components[common..];
        if rest.len() > 1 && self.dirs.contains_key(&joined(components)) {
            return self.jump(components, shown);
        }
        self.reopen(shown)?;
        for name in rest {
            if let Step::Link(_) = self.step(name, shown)? {
                return self.walk(components, shown);
            }
        }
        Ok(())
    }

    /// Makes a known directory, whose path has no links, the innermost one in one step: the cost does not depend on the
    /// distance to the previous entry.
    pub(super) fn jump(&mut self, components: &[CString], shown: &[u8]) -> Result<(), ApplyError> {
        let common = self.here.iter().zip(components).take_while(|(level, wanted)| level.name == **wanted);
        let common = common.count();
        self.here.truncate(common);
        components[common..].iter().for_each(|name| self.push(name.clone(), None));
        self.reopen(shown)
    }

    /// Opens the innermost directory unless it is open.
    fn reopen(&mut self, shown: &[u8]) -> Result<(), ApplyError> {
        if self.here.last().is_none_or(|level| level.dir.is_some()) {
            return Ok(());
        }
        let names = RealPath(self.here.iter().map(|level| level.name.clone()).collect());
        let opened = open_inside(self.root.as_fd(), &names, OFlags::RDONLY | OFlags::DIRECTORY);
        let opened = opened.call("open", path(shown))?;
        if let Some(level) = self.here.last_mut() {
            level.dir = Some(opened);
        }
        Ok(())
    }

    /// Descends one level from the innermost directory.
    fn push(&mut self, name: CString, dir: Option<OwnedFd>) {
        if let Some(far) = self.here.len().checked_sub(MAX_OPEN) {
            self.here[far].dir = None;
            self.here[far].below = None;
        }
        let length = self.here.last().map_or(0, |level| level.length) + 1 + name.as_bytes().len();
        self.here.push(Level { name, dir, length, below: None });
    }

    /// Resolves like [`Unpacker::enter`] from the root, following links; `..` at the root is the root.
    fn walk(&mut self, components: &[CString], shown: &[u8]) -> Result<(), ApplyError> {
        let mut pending: VecDeque<CString> = components.iter().cloned().collect();
        let mut links = 0;
        self.here.clear();
        while let Some(name) = pending.pop_front() {
            if name.as_c_str() == c".." {
                if self.here.pop().is_none() && !self.is_layer {
                    return Err(ApplyError::Outside(path(shown)));
                }
                self.reopen(shown)?;
                continue;
            }
            let Step::Link(target) = self.step(&name, shown)? else { continue };
            links += 1;
            if links > MAX_LINKS {
                return Err(CallError { call: "open", path: path(shown), errno: Errno::LOOP }.into());
            }
            if target.to_bytes().starts_with(b"/") {
                self.here.clear();
            }
            link_names(&target).rev().for_each(|part| pending.push_front(part));
        }
        Ok(())
    }

    /// Enters `name` in the innermost directory and creates it when it is missing; returns the target of a link.
    fn step(&mut self, name: &CStr, shown: &[u8]) -> Result<Step, ApplyError> {
        let call = |name: &'static str| move |errno| CallError { call: name, path: path(shown), errno };
        if self.here.last().map_or(0, |level| level.length) + name.count_bytes() > MAX_PATH {
            return Err(call("open")(Errno::NAMETOOLONG).into());
        }
        let here = self.innermost();
        let dir = match sys::open_dir_at(here, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => match self.make_implied(name, shown)? {
                Implied::Made(dir) => dir,
                Implied::Link(target) => return Ok(Step::Link(target)),
            },
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = sys::stat_at(here, name).map_err(call("stat"))?;
                match stat {
                    Some(stat) if sys::file_type(&stat) == FileType::Symlink => {
                        let target = fs::readlinkat(here, name, Vec::new()).map_err(call("readlink"))?;
                        return Ok(Step::Link(target));
                    }
                    Some(stat) if sys::is_whiteout(&stat) => self.replace_whiteout(name, shown)?,
                    _ => return Err(ApplyError::NotADirectory(path(shown))),
                }
            }
            Err(errno) => return Err(call("open")(errno).into()),
        };
        self.push(name.to_owned(), Some(dir));
        Ok(Step::Entered)
    }
}
