//! Several layers as one.

use super::{overlay, write};
use crate::sys::{self, CallError, Named};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Lays the layer folders `layers`, the highest first, into the empty folder `target` on the same file system.
///
/// Files are linked, not copied. Marks of what is deleted stay, unless the layers are `all` there are: then there is
/// nothing that they could hide.
pub fn merge(layers: &[PathBuf], target: &Path, all: bool) -> Result<(), CallError> {
    let opened = layers.iter().map(|path| sys::open_dir(path)).collect::<Result<Vec<_>, _>>()?;
    let target = sys::open_dir(target)?;
    if let Some(top) = opened.first() {
        let stat = fs::fstat(top).call("stat", "/")?;
        write::set_owner_and_mode(target.as_fd(), &write::Metadata::of(&stat)).call("chmod", "/")?;
    }
    Merger { all }.folder(&opened, target.as_fd(), Path::new("/"))
}

struct Merger {
    all: bool,
}

impl Merger {
    /// Merges folders of one path, the highest first.
    fn folder(&self, layers: &[OwnedFd], target: BorrowedFd<'_>, path: &Path) -> Result<(), CallError> {
        let mut names: BTreeSet<CString> = BTreeSet::new();
        for layer in layers {
            names.extend(sys::sorted_names(layer.as_fd()).call("getdents", path)?);
        }
        for name in names {
            let shown = path.join(&*name.to_string_lossy());
            self.member(layers, target, &name, &shown)?;
        }
        Ok(())
    }

    fn member(
        &self,
        layers: &[OwnedFd],
        target: BorrowedFd<'_>,
        name: &CString,
        path: &Path,
    ) -> Result<(), CallError> {
        let mut folders: Vec<OwnedFd> = Vec::new();
        let mut is_opaque = false;
        for layer in layers {
            let Some(stat) = sys::stat_at(layer.as_fd(), name).call("stat", path)? else { continue };
            if sys::file_type(&stat) != FileType::Directory {
                if folders.is_empty() {
                    return self.file(layer.as_fd(), target, name, &stat, path);
                }
                // A folder stands where lower layers have, or have deleted, something else.
                is_opaque = true;
                break;
            }
            let folder = sys::open_dir_at(layer.as_fd(), name).call("open", path)?;
            is_opaque = overlay::is_opaque(folder.as_fd()).call("getxattr", path)?;
            folders.push(folder);
            if is_opaque {
                break;
            }
        }
        let Some(top) = folders.first() else { return Ok(()) };
        let stat = fs::fstat(top).call("stat", path)?;
        let metadata = write::Metadata::of(&stat);
        let made = write::make_folder(target, name, &metadata).call("mkdir", path)?;
        write::copy_xattrs(top.as_fd(), made.as_fd()).call("setxattr", path)?;
        if is_opaque && !self.all {
            overlay::make_opaque(made.as_fd()).call("setxattr", path)?;
        }
        self.folder(&folders, made.as_fd(), path)?;
        let (seconds, nanos) = metadata.mtime;
        fs::futimens(&made, &sys::timestamps(seconds, nanos)).call("utimensat", path)
    }

    fn file(
        &self,
        layer: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &CString,
        stat: &fs::Stat,
        path: &Path,
    ) -> Result<(), CallError> {
        if sys::is_whiteout(stat) {
            return match self.all {
                true => Ok(()),
                false => overlay::make_whiteout(target, name).call("mknod", path),
            };
        }
        fs::linkat(layer, name, target, name, AtFlags::empty()).call("link", path)
    }
}
