//! Merging of several layers into one.

use super::{overlay, write};
use crate::sys::{self, CallError, Named};
use crate::tree::merged::{Found, MergedDir};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Merges the layer directories `layers`, the highest first, into the empty directory `target` on the same file system.
///
/// Files are linked, not copied. Whiteouts are kept where the tree `below` these layers has a file that they hide.
pub fn merge(layers: &[PathBuf], target: &Path, below: &MergedDir) -> Result<(), CallError> {
    let opened = layers.iter().map(|path| sys::open_dir(path)).collect::<Result<Vec<_>, _>>()?;
    let target = sys::open_dir(target)?;
    Merger.dir(&opened, target.as_fd(), Some(below), Path::new("/"))
}

struct Merger;

impl Merger {
    /// Merges directories with the same path, the highest first.
    fn dir(
        &self,
        layers: &[OwnedFd],
        target: BorrowedFd<'_>,
        below: Option<&MergedDir>,
        path: &Path,
    ) -> Result<(), CallError> {
        let mut names: BTreeSet<CString> = BTreeSet::new();
        for layer in layers {
            names.extend(sys::sorted_names(layer.as_fd()).call("getdents", path)?);
        }
        for name in names {
            let shown = path.join(&*name.to_string_lossy());
            self.member(layers, (target, below), &name, &shown)?;
        }
        Ok(())
    }

    fn member(
        &self,
        layers: &[OwnedFd],
        (target, below): (BorrowedFd<'_>, Option<&MergedDir>),
        name: &CString,
        path: &Path,
    ) -> Result<(), CallError> {
        let below = match below {
            None => Found::Nothing,
            Some(below) => below.lookup(name).call("open", path)?,
        };
        let mut dirs: Vec<OwnedFd> = Vec::new();
        let mut is_opaque = false;
        for layer in layers {
            let Some(stat) = sys::stat_at(layer.as_fd(), name).call("stat", path)? else { continue };
            if sys::file_type(&stat) != FileType::Directory {
                if dirs.is_empty() {
                    return self.file(layer.as_fd(), (target, &below), name, &stat, path);
                }
                // Lower layers have a file or whiteout of that name, which the directory replaces.
                is_opaque = true;
                break;
            }
            let dir = sys::open_dir_at(layer.as_fd(), name).call("open", path)?;
            is_opaque = overlay::is_opaque(dir.as_fd()).call("getxattr", path)?;
            dirs.push(dir);
            if is_opaque {
                break;
            }
        }
        let Some(top) = dirs.first() else { return Ok(()) };
        let stat = fs::fstat(top).call("stat", path)?;
        let metadata = write::Metadata::of(&stat);
        let made = write::make_dir(target, name, &metadata).call("mkdir", path)?;
        write::copy_xattrs(top.as_fd(), made.as_fd()).call("setxattr", path)?;
        let below = match &below {
            Found::Dir(_) if is_opaque => {
                overlay::make_opaque(made.as_fd()).call("setxattr", path)?;
                None
            }
            Found::Dir(dir) => Some(dir),
            _ => None,
        };
        self.dir(&dirs, made.as_fd(), below, path)?;
        let (seconds, nanos) = metadata.mtime;
        fs::futimens(&made, &sys::timestamps(seconds, nanos)).call("utimensat", path)
    }

    fn file(
        &self,
        layer: BorrowedFd<'_>,
        (target, below): (BorrowedFd<'_>, &Found),
        name: &CString,
        stat: &fs::Stat,
        path: &Path,
    ) -> Result<(), CallError> {
        if sys::is_whiteout(stat) {
            return match below {
                Found::Nothing => Ok(()),
                _ => overlay::make_whiteout(target, name).call("mknod", path),
            };
        }
        fs::linkat(layer, name, target, name, AtFlags::empty()).call("link", path)
    }
}
