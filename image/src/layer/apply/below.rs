//! Lower layers during unpacking: directories and files taken from them, and whiteouts that hide them.

use super::descent::MAX_OPEN;
use super::{
    ApplyError, Below, DirState, IMPLIED_TIME, Implied, Key, LinkTarget, Unpacker, append, c_string, clean,
    joined, path,
};
use crate::layer::write::{self, FileData, Metadata};
use crate::layer::{OPAQUE, WHITEOUT, check_length, overlay};
use crate::sys::{self, CallError, Descent, Named};
use crate::tar::Entry;
use crate::tree::merged::{Found, FoundFile, MergedDir, Resolved, Unresolved};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::rc::Rc;

/// Prefix of the metadata files of aufs, which have no meaning here.
const AUFS: &[u8] = b".wh..wh.";
/// Metadata of directories that neither the tar nor a layer below has.
const IMPLIED: Metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: IMPLIED_TIME };

/// Fate of a directory of the layer once it is opaque or whited out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    Yes,
    No,
}

impl Unpacker<'_> {
    /// Directory of the layers below at `depth` levels below the root; `None` when they have none or it is hidden.
    fn below(&mut self, depth: usize, shown: &[u8]) -> Result<Option<Rc<MergedDir>>, ApplyError> {
        let mut known = depth;
        let mut below = loop {
            if self.dirs.get(&self.key_at(known)).is_some_and(|state| state.is_opaque) {
                break None;
            }
            let Some(above) = known.checked_sub(1) else {
                break self.tree_below(shown)?.map(Rc::new);
            };
            if let Some(found) = &self.here[above].below {
                break found.clone();
            }
            known = above;
        };
        for level in known..depth {
            let found = match below {
                None => Found::Nothing,
                Some(parent) => parent.lookup(&self.here[level].name).call("open", path(shown))?,
            };
            below = match found {
                Found::Dir(dir) => Some(Rc::new(dir)),
                _ => None,
            };
            // Levels far above do not keep handles.
            if level + MAX_OPEN >= self.here.len() {
                self.here[level].below = Some(below.clone());
            }
        }
        Ok(below)
    }

    /// Root of the layers below; `None` when there are none that could matter.
    fn tree_below(&mut self, shown: &[u8]) -> Result<Option<MergedDir>, ApplyError> {
        let Below::Layers(ask) = self.below else { return Ok(None) };
        if self.tree.is_none() {
            self.tree = ask();
            self.applied.asked_below = true;
        }
        self.tree.clone().map(Some).ok_or_else(|| ApplyError::NeedsBelow(path(shown)))
    }

    /// Creates the parent directory `name` of an entry with the metadata of the one in the layers below.
    pub(super) fn make_implied(&mut self, name: &CStr, shown: &[u8]) -> Result<Implied, ApplyError> {
        let found = match self.below(self.here.len(), shown)? {
            None => Found::Nothing,
            Some(parent) => parent.lookup(name).call("open", path(shown))?,
        };
        let lower = match found {
            Found::Nothing | Found::Unknown => None,
            Found::Dir(dir) => Some(dir),
            Found::File(file) if sys::file_type(&file.stat) == FileType::Symlink => {
                let target = fs::readlinkat(&*file.dir, name, Vec::new()).call("readlink", path(shown))?;
                return Ok(Implied::Link(target));
            }
            Found::File(_) => return Err(ApplyError::NotADirectory(path(shown))),
        };
        let top = lower.as_ref().and_then(MergedDir::top);
        let metadata = match top {
            None => IMPLIED,
            Some(top) => Metadata::of(&fs::fstat(top).call("stat", path(shown))?),
        };
        let dir = write::make_dir(self.innermost(), name, &metadata).call("mkdir", path(shown))?;
        if let Some(top) = top {
            write::copy_xattrs(top, dir.as_fd()).call("setxattr", path(shown))?;
        }
        // In archives that are not layers, such directories keep their creation time.
        let mtime = (self.is_layer || top.is_some()).then_some(metadata.mtime);
        let state = DirState { is_own: top.is_none(), is_opaque: false, mtime };
        *self.state(self.key(name))? = state;
        Ok(Implied::Made(dir))
    }

    /// Replaces a whiteout of the layer by an opaque directory.
    pub(super) fn replace_whiteout(&mut self, name: &CStr, shown: &[u8]) -> Result<OwnedFd, ApplyError> {
        let parent = self.innermost();
        overlay::clear(parent, name).call("remove", path(shown))?;
        let dir = write::make_dir(parent, name, &IMPLIED).call("mkdir", path(shown))?;
        overlay::make_opaque(dir.as_fd()).call("setxattr", path(shown))?;
        let state = DirState { is_own: true, is_opaque: true, mtime: Some(IMPLIED.mtime) };
        *self.state(self.key(name))? = state;
        Ok(dir)
    }

    /// Applies the whiteout `name` of the innermost directory. It hides the contents of lower layers and none of this
    /// one, wherever it is in the tar.
    pub(super) fn whiteout(&mut self, name: &CStr, entry: &Entry) -> Result<(), ApplyError> {
        let shown = || path(&entry.name);
        let parent = self.innermost().try_clone_to_owned().call("dup", shown())?;
        let parent_key = self.key_at(self.here.len());
        if name.to_bytes() == OPAQUE && self.dirs.get(&parent_key).is_some_and(|state| state.is_opaque) {
            return Ok(());
        }
        if name.to_bytes() == OPAQUE {
            self.here.clear();
            let mut way = Descent::new(parent.try_clone().call("dup", shown())?);
            self.keep_own_alone(&mut way, &parent_key).call("remove", shown())?;
            overlay::make_opaque(parent.as_fd()).call("setxattr", shown())?;
            self.applied.opaque_root |= parent_key.is_empty();
            self.dirs.entry(parent_key).or_default().is_opaque = true;
            return Ok(());
        }
        if name.to_bytes().starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name.to_bytes()[WHITEOUT.len()..];
        let hidden = c_string(hidden).filter(|_| !matches!(hidden, b"" | b"." | b".."));
        let hidden = hidden.ok_or_else(|| ApplyError::Whiteout(shown()))?;
        let key = self.key(&hidden);
        match sys::stat_at(parent.as_fd(), &hidden).call("stat", shown())? {
            // The directory is opaque already and contains only entries of this layer.
            Some(stat) if sys::file_type(&stat) == FileType::Directory && self.is_settled(&key) => {}
            Some(stat) if sys::file_type(&stat) == FileType::Directory => {
                self.here.clear();
                self.hide_below(parent.as_fd(), &hidden, &key).call("remove", shown())?;
            }
            Some(_) if self.copied_up.remove(&key) => {
                overlay::clear(parent.as_fd(), &hidden).call("remove", shown())?;
                overlay::make_whiteout(parent.as_fd(), &hidden).call("mknod", shown())?;
            }
            // A file of this layer hides the lower ones already.
            Some(_) => {}
            None => overlay::make_whiteout(parent.as_fd(), &hidden).call("mknod", shown())?,
        }
        Ok(())
    }

    /// True for an opaque directory that the tar has an entry for.
    fn is_settled(&self, key: &[u8]) -> bool {
        self.dirs.get(key).is_some_and(|state| state.is_opaque && state.is_own)
    }

    /// Removes the directory `name` of the layers below; members from this layer stay.
    fn hide_below(&mut self, parent: BorrowedFd<'_>, name: &CStr, key: &[u8]) -> Result<(), Errno> {
        let mut way = Descent::new(sys::open_dir_at(parent, name)?);
        self.keep_own_alone(&mut way, key)?;
        if self.settle_own(way.here(), key)? == Stays::No {
            overlay::clear(parent, name)?;
            return overlay::make_whiteout(parent, name);
        }
        overlay::make_opaque(way.here())?;
        self.dirs.entry(key.to_vec()).or_default().is_opaque = true;
        Ok(())
    }

    /// Removes members of the current directory of `way` that exist only as copies of lower layers.
    fn keep_own_alone(&mut self, way: &mut Descent, key: &[u8]) -> Result<(), Errno> {
        for name in sys::sorted_names(way.here())? {
            let mut inner_key = key.to_vec();
            append(&mut inner_key, &name);
            let Some(stat) = sys::stat_at(way.here(), &name)? else { continue };
            if sys::file_type(&stat) == FileType::Directory {
                way.enter(&name)?;
                self.keep_own_alone(way, &inner_key)?;
                let stays = self.settle_own(way.here(), &inner_key)?;
                way.leave()?;
                if stays == Stays::No {
                    overlay::clear(way.here(), &name)?;
                }
            } else if sys::is_whiteout(&stat) || self.copied_up.remove(&inner_key) {
                overlay::clear(way.here(), &name)?;
            }
        }
        Ok(())
    }

    /// Decides about a directory that became opaque: removed when it is empty and exists only as a parent, otherwise
    /// reset to the metadata of a new one.
    fn settle_own(&mut self, dir: BorrowedFd<'_>, key: &[u8]) -> Result<Stays, Errno> {
        let state = self.dirs.entry(key.to_vec()).or_default();
        if state.is_own {
            return Ok(Stays::Yes);
        }
        if sys::is_empty_dir(dir)? {
            self.forget(key);
            return Ok(Stays::No);
        }
        *state = DirState { is_own: true, mtime: Some(IMPLIED.mtime), ..*state };
        overlay::clear_xattrs(dir)?;
        write::set_owner_and_mode(dir, &IMPLIED)?;
        Ok(Stays::Yes)
    }

    /// Target of a hard link if this layer has it on a path without links: the usual case, which is independent of its
    /// depth.
    fn own_target(
        &mut self,
        components: &mut Vec<CString>,
        link: &[u8],
    ) -> Result<Option<LinkTarget>, ApplyError> {
        let Some(name) = components.pop() else { return Ok(None) };
        if self.dirs.contains_key(&joined(components)) {
            self.enter(components, link)?;
            match sys::stat_at(self.innermost(), &name).call("stat", path(link))? {
                Some(stat) if sys::is_whiteout(&stat) => {}
                Some(stat) if sys::file_type(&stat) != FileType::Directory => {
                    let dir = self.innermost().try_clone_to_owned().call("dup", path(link))?;
                    let is_symlink = sys::file_type(&stat) == FileType::Symlink;
                    return Ok(Some(LinkTarget { dir, key: self.key(&name), name, is_symlink }));
                }
                _ => {}
            }
        }
        components.push(name);
        Ok(None)
    }

    /// Target of a hard link in the layer; a file of a lower layer is copied up first.
    pub(super) fn link_target(&mut self, link: &[u8]) -> Result<LinkTarget, ApplyError> {
        let outside = || ApplyError::Outside(path(link));
        check_length(link)?;
        let mut components = clean(link).filter(|components| !components.is_empty()).ok_or_else(outside)?;
        if let Some(own) = self.own_target(&mut components, link)? {
            return Ok(own);
        }
        let call = |name: &'static str| move |errno| CallError { call: name, path: path(link), errno };
        let own = self.root.try_clone().call("dup", path(link))?;
        let resolved = match MergedDir::open_partial(own).map_err(call("getxattr"))?.resolve(&components) {
            Ok(Resolved { found: Found::Unknown, .. }) | Err(Unresolved::Unknown) => {
                let below = self.tree_below(link)?.unwrap_or_else(|| MergedDir::root(Vec::new()));
                let own = self.root.try_clone().call("dup", path(link))?;
                below.under(own).map_err(call("getxattr"))?.resolve(&components)
            }
            resolved => resolved,
        };
        let resolved = resolved.map_err(|astray| match astray {
            Unresolved::Missing | Unresolved::NotADirectory | Unresolved::Unknown => {
                ApplyError::MissingLink(path(link))
            }
            Unresolved::Loop => call("link")(Errno::LOOP).into(),
            Unresolved::Call(errno) => call("link")(errno).into(),
        })?;
        let file = match resolved.found {
            Found::File(file) => file,
            Found::Dir(_) => return Err(ApplyError::DirectoryLink(path(link))),
            Found::Nothing | Found::Unknown => return Err(ApplyError::MissingLink(path(link))),
        };
        let mut names = resolved.names;
        let name = names.pop().ok_or_else(outside)?;
        self.enter(&names, link)?;
        let dir = self.innermost().try_clone_to_owned().call("dup", path(link))?;
        let key = self.key(&name);
        if file.layer != 0 {
            let size = copy_up(&file, &name, dir.as_fd()).map_err(call("copy"))?;
            self.applied.size += size;
            self.copied_up.insert(key.clone());
        }
        let is_symlink = sys::file_type(&file.stat) == FileType::Symlink;
        Ok(LinkTarget { dir, name, key: Key::from(key), is_symlink })
    }
}

/// Copies a file of a lower layer to the same path in this one; returns the size of its content.
fn copy_up(file: &FoundFile, name: &CString, target: BorrowedFd<'_>) -> Result<u64, Errno> {
    let metadata = Metadata::of(&file.stat);
    let kind = sys::file_type(&file.stat);
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let source = File::from(fs::openat(&*file.dir, name, flags, Mode::empty())?);
            let made = write::write_file(target, name, FileData::File(&source), &metadata)?;
            write::copy_xattrs(source.as_fd(), made.as_fd())?;
            return Ok(u64::try_from(file.stat.st_size).unwrap_or(0));
        }
        FileType::Symlink => {
            let link = fs::readlinkat(&*file.dir, name, Vec::new())?;
            fs::symlinkat(&link, target, name)?;
        }
        _ => fs::mknodat(target, name, kind, Mode::from_raw_mode(0o600), file.stat.st_rdev)?,
    }
    sys::chown_at(target, name, metadata.uid, metadata.gid)?;
    if kind != FileType::Symlink {
        sys::chmod_at(target, name, metadata.mode)?;
    }
    sys::set_mtime_at(target, name, metadata.mtime.0, metadata.mtime.1)?;
    Ok(0)
}
