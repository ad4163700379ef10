//! Volumes as tars: `volume export` and `volume import`.

use super::{Volume, VolumeFiles, VolumeOwner, Volumes};
use crate::container::Records;
use crate::copy::{CopyError, CopyOptions, Place, copy_in, copy_out};
use crate::directory::is_at;
use crate::error::EngineError;
use kiln_image::layer::{ApplyError, Placed};
use kiln_image::sys::{self, CallError, Named};
use kiln_image::tree::Tree;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Deepest directory that is merged with another one, in levels: each has two open descriptors.
const DEEPEST: usize = 200;

const OPTIONS: CopyOptions = CopyOptions { keeps_owners: true, follows: false, owner: None };

impl Records {
    /// Writes the files of a volume as a tar.
    ///
    /// # Errors
    /// [`EngineError::NoSuchVolume`], also when it is removed meanwhile; [`EngineError::NotInMemory`]; a file that
    /// cannot be read, and an `output` that cannot be written.
    pub fn export_volume(&self, name: &str, output: impl Write) -> Result<(), CopyError> {
        let volume = self.find_volume(name)?;
        let files = self.files_of(&volume)?;
        let dir = sys::open_dir(files.path())?;
        copy_out(&contents(&tree(&dir)?), output, OPTIONS)?;
        still_there(&volume, &files, &dir)
    }

    /// Unpacks a tar into a volume. Files that it has stay, or are replaced by those of the same name. Device nodes are
    /// left out.
    ///
    /// A volume of the store is not changed before the whole tar has been read.
    ///
    /// # Errors
    /// Fails in the cases of [`Records::export_volume`], and for a stream that is no valid tar, or whose paths lead out
    /// of the volume.
    pub fn import_volume(&self, name: &str, stream: impl Read) -> Result<Placed, CopyError> {
        let volume = self.find_volume(name)?;
        let files = self.files_of(&volume)?;
        let dir = sys::open_dir(files.path())?;
        let placed = if files.is_in_store {
            let volumes = Volumes::open(&self.root)?;
            let new = volumes.new_dir()?;
            let staged = sys::open_dir(&new.data())?;
            let placed = copy_in(stream, &root(&tree(&staged)?), OPTIONS)?;
            let shown = Path::new("");
            merge(&staged, &dir, shown, false, 0)?;
            merge(&staged, &dir, shown, true, 0)?;
            placed
        } else {
            copy_in(stream, &root(&tree(&dir)?), OPTIONS)?
        };
        own(&volume, &placed, &dir).call("chown", files.path())?;
        still_there(&volume, &files, &dir)?;
        Ok(placed)
    }

    fn files_of(&self, volume: &Volume) -> Result<VolumeFiles, EngineError> {
        self.open_volume(volume)?.ok_or_else(|| EngineError::NotInMemory(volume.name.clone()))
    }
}

fn tree(dir: &OwnedFd) -> Result<Tree, CopyError> {
    Ok(Tree::of(vec![dir.try_clone().call("dup", Path::new("volume"))?]))
}

fn root(tree: &Tree) -> Place<'_> {
    Place { tree, path: b"/", container: None }
}

fn contents(tree: &Tree) -> Place<'_> {
    Place { tree, path: b"/.", container: None }
}

/// Fails when a volume of the store has been removed since its directory was opened.
fn still_there(volume: &Volume, files: &VolumeFiles, dir: &OwnedFd) -> Result<(), CopyError> {
    match files.is_in_store && !is_at(dir, files.path()) {
        true => Err(EngineError::NoSuchVolume(volume.name.clone()).into()),
        false => Ok(()),
    }
}

/// Moves everything from one directory into another one, by renaming: files of the same names are replaced, directories
/// merged. Without `acts` it only finds out what is in the way.
fn merge(from: &OwnedFd, to: &OwnedFd, path: &Path, acts: bool, depth: usize) -> Result<(), ApplyError> {
    if depth > DEEPEST {
        return Err(CallError { call: "open", path: path.to_owned(), errno: Errno::NAMETOOLONG }.into());
    }
    for name in sys::sorted_names(from.as_fd()).call("getdents", path)? {
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let Some(new) = sys::stat_at(from.as_fd(), &name).call("stat", &path)? else { continue };
        let old = sys::stat_at(to.as_fd(), &name).call("stat", &path)?;
        match (is_dir(&new), old.as_ref().map(is_dir)) {
            (true, Some(true)) => {
                let open = |dir: &OwnedFd| sys::open_dir_at(dir.as_fd(), &name).call("open", &path);
                let (from, to) = (open(from)?, open(to)?);
                merge(&from, &to, &path, acts, depth + 1)?;
                if acts {
                    let mode = Some(new.st_mode & 0o7777);
                    let owner = VolumeOwner { uid: Some(new.st_uid), gid: Some(new.st_gid), mode };
                    owner.apply(&to).call("chown", &path)?;
                }
            }
            (true, Some(false)) => return Err(ApplyError::ReplacesFile(path)),
            (false, Some(true)) => return Err(ApplyError::ReplacesDirectory(path)),
            _ if acts => rustix::fs::renameat(from, &name, to, &name).call("rename", &path)?,
            _ => {}
        }
    }
    Ok(())
}

fn is_dir(stat: &Stat) -> bool {
    sys::file_type(stat) == FileType::Directory
}

/// Sets the owner and mode of a volume's directory to those in the tar, unless its user has chosen others.
fn own(volume: &Volume, placed: &Placed, dir: &OwnedFd) -> Result<(), Errno> {
    let Some((uid, gid, mode)) = placed.base else { return Ok(()) };
    let chosen = volume.owner;
    let owner = VolumeOwner {
        uid: chosen.uid.or(Some(uid)),
        gid: chosen.gid.or(Some(gid)),
        mode: chosen.mode.or(Some(mode)),
    };
    owner.apply(dir)
}
