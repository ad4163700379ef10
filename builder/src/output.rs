//! What a build leaves besides an image: its tree as a folder or a tar.

use kiln_image::digest::ImageId;
use kiln_image::layer::{CopyRequest, DiffError, Everything, LayerWriter, Metadata, WriteError, diff};
use kiln_image::store::{Store, StoreError};
use kiln_image::sys::{CallError, Named};
use kiln_runtime::view::{self, ViewError};
use rustix::fd::AsFd;
use std::io::Write;
use std::path::Path;

/// Why a tree cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree cannot be looked at.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A file cannot be written.
    #[error("cannot write the files of the image")]
    Write(#[from] WriteError),
    /// The tar cannot be written.
    #[error("cannot write the tar")]
    Diff(#[from] DiffError),
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Copies the tree of an image into a folder, which is made when it is missing; files that it holds stay, unless one of
/// the image has the same name. All files belong to whoever calls.
pub fn to_folder(store: &Store, image: &ImageId, folder: &Path) -> Result<(), OutputError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    std::fs::create_dir_all(folder).call("mkdir", folder)?;
    copy(store, image, folder, &|metadata| Metadata { uid, gid, ..metadata })
}

/// Writes the tree of an image as a tar.
pub fn to_tar<W: Write>(store: &Store, image: &ImageId, output: W) -> Result<W, OutputError> {
    let scratch = store.scratch_folder()?;
    copy(store, image, scratch.path(), &|metadata| metadata)?;
    Ok(diff(scratch.path(), output)?)
}

fn copy(
    store: &Store,
    image: &ImageId,
    folder: &Path,
    change: &(dyn Fn(Metadata) -> Metadata + Sync),
) -> Result<(), OutputError> {
    let record = store.resolve(&image.to_string())?;
    let stack = store.stack(&store.read_image(record)?.config.rootfs.diff_ids)?;
    if stack.is_empty() {
        return Ok(());
    }
    let root = view::detached(&store.view_mount(&stack, &[]))?;
    let mut writer = LayerWriter::new(folder, None)?;
    writer.copy(&CopyRequest {
        source: root.as_fd(),
        name: c".",
        base: b"",
        destination: b"/",
        folders: Metadata { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) },
        selection: &Everything,
        change: &|metadata, _| change(metadata),
    })?;
    writer.finish()?;
    Ok(())
}
