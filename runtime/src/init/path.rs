//! Paths below the new root, resolved relative to its file descriptor.

use super::{Done, Failed, Init, Named};
use crate::op::Bytes;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::path::Path;

/// Maximum number of links in one path, as in Linux.
const MAX_LINKS: usize = 40;

/// Maximum number of tries for a path that other processes move.
const MAX_TRIES: usize = 1024;

/// Kind of a mount target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Dir,
    File,
}

/// A directory that is kept open.
pub(super) struct Dir {
    /// Path from the root, as returned by [`Bytes::names`].
    path: Bytes,
    pub(super) handle: OwnedFd,
    /// True for the top of a tmpfs that only this process has entered.
    is_ours: bool,
}

impl Init {
    /// Opens the file at `path`; `None` when there is none.
    pub(super) fn find(&self, path: &Bytes, follow: bool) -> Done<Option<OwnedFd>> {
        match open_in_root(self.root()?, &path.to_c_string(), follow) {
            Ok(handle) => Ok(Some(handle)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::LOOP) if !follow => {
                let shown = path.as_path().display();
                Err(Failed::saying(
                    path.clone(),
                    format!(
                        "`{shown}` must be mounted on ordinary directory, and is a symbolic link in the image"
                    ),
                ))
            }
            Err(Errno::LOOP) => {
                let shown = Path::new("/").join(path.as_path());
                Err(Failed::saying(
                    path.clone(),
                    format!("`{}` leads over an open file, or in a circle of links", shown.display()),
                ))
            }
            Err(errno) => Err(errno).call("open", path.clone()),
        }
    }

    /// Opens the link at the end of `path`; `None` when it is not a link.
    pub(super) fn find_itself(&self, path: &Bytes) -> Done<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(handle) = open_as(self.root()?, &path.to_c_string(), flags, true) else { return Ok(None) };
        let stat = fs::fstat(&handle).call("stat", path.clone())?;
        Ok((FileType::from_raw_mode(stat.st_mode) == FileType::Symlink).then_some(handle))
    }

    /// Creates a link, and the directories above it.
    pub(super) fn copy_link(&mut self, led: &Bytes, path: &Bytes) -> Done {
        let above = path.as_path().parent().unwrap_or_else(|| Path::new("/"));
        if above != Path::new("/") {
            self.target(&above.into(), Target::Dir, true)?;
        }
        self.link(led, path)
    }

    /// Opens a mount target, and creates it when it is missing.
    pub(super) fn target(&mut self, path: &Bytes, target: Target, follow: bool) -> Done<OwnedFd> {
        // The directory in which a file was created last most often lacks the target: in a new /dev, for example.
        if self.is_in_last_dir(path)
            && let Some(made) = self.make_in_parent(path, target)?
        {
            return Ok(made);
        }
        // The call that opens it determines whether it is a directory.
        let kind = if target == Target::Dir { OFlags::DIRECTORY } else { OFlags::empty() };
        match open_as(self.root()?, &path.to_c_string(), OFlags::PATH | kind, follow) {
            Ok(handle) if target == Target::Dir => Ok(handle),
            Ok(handle) => check_kind(handle, path, target),
            Err(Errno::NOENT) => match self.make_in_parent(path, target)? {
                Some(handle) => Ok(handle),
                None => self.make_target(path, target, 0),
            },
            Err(_) => match self.find(path, follow)? {
                Some(handle) => check_kind(handle, path, target),
                None => self.make_target(path, target, 0),
            },
        }
    }

    fn is_in_last_dir(&self, path: &Bytes) -> bool {
        self.dir.as_ref().is_some_and(|dir| above(path).as_ref() == Some(&dir.path))
    }

    /// Closes the directory in which a file was created last if a mount at `path` may cover it: over links it may be
    /// any directory.
    pub(super) fn forget_dir(&mut self, path: &Bytes, follow: bool) {
        let covers = |dir: &Bytes| follow || dir.names().starts_with(&path.names());
        self.tmpfs.take_if(|tmpfs| covers(tmpfs));
        if let Some(dir) = self.dir.take_if(|dir| covers(&dir.path)) {
            self.leave(dir.handle);
        }
    }

    /// Remembers that a tmpfs was mounted at `path`.
    pub(super) fn remember_tmpfs(&mut self, path: &Bytes) {
        self.tmpfs = Some(Bytes(path.names().join(&b'/')));
    }

    /// Creates a missing directory in one where no other process can replace it, and enters that one: its name is then
    /// enough. `None` for all other paths.
    pub(super) fn make_in_own(&mut self, path: &Bytes) -> Done<Option<CString>> {
        if self.tmpfs.is_none() || above(path) != self.tmpfs {
            return Ok(None);
        }
        let Ok((parent, name)) = self.parent(path) else { return Ok(None) };
        let made = fs::mkdirat(parent, &name, Mode::from_raw_mode(0o755)).is_ok();
        if !made || !self.dir.as_ref().is_some_and(|dir| dir.is_ours) {
            return Ok(None);
        }
        let Some(dir) = &self.dir else { return Ok(None) };
        rustix::process::fchdir(&dir.handle).call("chdir", path.clone())?;
        Ok(Some(name))
    }

    /// Creates a missing target whose directory exists, the usual case. `None` in all other cases.
    fn make_in_parent(&mut self, path: &Bytes, target: Target) -> Done<Option<OwnedFd>> {
        let Ok((parent, name)) = self.parent(path) else { return Ok(None) };
        match make(parent, &name, target) {
            Ok(made) => Ok(Some(made)),
            // The path exists after all: a link with a missing target.
            Err(Errno::EXIST | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno).call("create", path.clone()),
        }
    }

    fn make_target(&mut self, path: &Bytes, target: Target, links: usize) -> Done<OwnedFd> {
        let components = path.names();
        let mut dir = rustix::io::fcntl_dupfd_cloexec(self.root()?, 3).call("dup", path.clone())?;
        for (depth, name) in components.iter().enumerate() {
            let last = depth + 1 == components.len();
            let here = Bytes(components[..=depth].join(&b'/'));
            let c_name = Bytes(name.clone()).to_c_string();
            match open_in_root(self.root()?, &here.to_c_string(), true) {
                Ok(handle) if last => return check_kind(handle, path, target),
                Ok(handle) => dir = handle,
                Err(Errno::NOENT) => {
                    if let Some(led) = link_target(dir.as_fd(), &c_name, &components, depth) {
                        if links >= MAX_LINKS {
                            return Err(Errno::LOOP).call("open", path.clone());
                        }
                        return self.make_target(&led, target, links + 1);
                    }
                    let kind = if last { target } else { Target::Dir };
                    dir = make(dir.as_fd(), &c_name, kind).call("create", path.clone())?;
                }
                Err(errno) => return Err(errno).call("open", path.clone()),
            }
        }
        Ok(dir)
    }

    /// Creates a directory and those above it, unless they exist.
    pub(super) fn make_dir(&mut self, path: &Bytes, mode: u32) -> Done {
        let components = path.names();
        for depth in 0..components.len() {
            let here = Bytes(components[..=depth].join(&b'/'));
            if self.find(&here, true)?.is_some() {
                continue;
            }
            let above = Bytes(components[..depth].join(&b'/'));
            let above = if depth == 0 { Bytes::from(".") } else { above };
            let parent = open_in_root(self.root()?, &above.to_c_string(), true).call("open", path.clone())?;
            let name = Bytes(components[depth].clone()).to_c_string();
            fs::mkdirat(&parent, &name, Mode::from_raw_mode(mode)).call("mkdir", path.clone())?;
        }
        Ok(())
    }

    /// Opens the parent of `path`, which must exist, and returns the last name. The last parent is remembered: nodes
    /// and links are created in groups.
    pub(super) fn parent(&mut self, path: &Bytes) -> Done<(BorrowedFd<'_>, CString)> {
        let mut components = path.names();
        let name = components.pop().ok_or_else(|| Failed::saying(path.clone(), "`/` cannot be made"))?;
        let above = if components.is_empty() { b".".to_vec() } else { components.join(&b'/') };
        let above = Bytes(above);
        if self.dir.as_ref().is_none_or(|dir| dir.path != above) {
            let handle =
                open_in_root(self.root()?, &above.to_c_string(), false).call("open", path.clone())?;
            // Another process may have moved the directory on which it was mounted.
            let is_ours = self.tmpfs.as_ref() == Some(&above) && is_top_of_mount(handle.as_fd());
            if let Some(dir) = self.dir.replace(Dir { path: above, handle, is_ours }) {
                self.leave(dir.handle);
            }
        }
        let Some(dir) = &self.dir else {
            return Err(Errno::NOENT).call("open", path.clone());
        };
        Ok((dir.handle.as_fd(), Bytes(name).to_c_string()))
    }

    pub(super) fn link(&mut self, target: &Bytes, path: &Bytes) -> Done {
        let (parent, name) = self.parent(path)?;
        match fs::symlinkat(target.to_c_string(), parent, &name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno).call("symlink", path.clone()),
        }
    }
}

fn resolution(follow: bool) -> ResolveFlags {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if follow { inside } else { inside | ResolveFlags::NO_SYMLINKS }
}

/// Opens a path inside a root; the kernel prevents `..` and links from leaving it.
pub(super) fn open_in_root(root: BorrowedFd<'_>, path: &CString, follow: bool) -> Result<OwnedFd, Errno> {
    open_as(root, path, OFlags::PATH, follow)
}

/// Opens a path inside a root and retries on `EAGAIN`: during a rename or mount anywhere, the kernel may be unable to
/// tell whether `..` stayed inside.
pub(super) fn open_as(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    follow: bool,
) -> Result<OwnedFd, Errno> {
    for _ in 0..MAX_TRIES {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolution(follow)) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Directory that contains `path`, in the same form.
fn above(path: &Bytes) -> Option<Bytes> {
    path.names().split_last().map(|(_, above)| Bytes(above.join(&b'/')))
}

fn is_top_of_mount(handle: BorrowedFd<'_>) -> bool {
    let stat = fs::statx(handle, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn check_kind(handle: OwnedFd, path: &Bytes, target: Target) -> Done<OwnedFd> {
    let stat = fs::fstat(&handle).call("stat", path.clone())?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_dir == (target == Target::Dir) {
        return Ok(handle);
    }
    let (is, wants) = if is_dir { ("a directory", "a file") } else { ("not a directory", "a directory") };
    let shown = path.as_path().display();
    Err(Failed::saying(path.clone(), format!("cannot mount {wants} on `{shown}`, which is {is}")))
}

fn make(dir: BorrowedFd<'_>, name: &CString, target: Target) -> Result<OwnedFd, Errno> {
    match target {
        Target::Dir => fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?,
        Target::File => fs::mknodat(dir, name, FileType::RegularFile, Mode::from_raw_mode(0o755), 0)?,
    }
    fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Target of a link to a missing file, followed by the rest of the path.
fn link_target(dir: BorrowedFd<'_>, name: &CString, components: &[Vec<u8>], depth: usize) -> Option<Bytes> {
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return None;
    }
    let target = fs::readlinkat(dir, name, Vec::new()).ok()?.into_bytes();
    let mut path = if target.starts_with(b"/") { Vec::new() } else { components[..depth].join(&b'/') };
    path.push(b'/');
    path.extend_from_slice(&target);
    for rest in &components[depth + 1..] {
        path.push(b'/');
        path.extend_from_slice(rest);
    }
    Some(Bytes(path))
}
