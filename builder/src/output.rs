//! Results of a build besides an image: its tree as a directory or a tar.

use kiln_image::digest::DiffId;
use kiln_image::layer::{CopyRequest, DiffError, Everything, LayerWriter, Metadata, WriteError, diff};
use kiln_image::store::{Store, StoreError};
use kiln_image::sys::{CallError, Named};
use kiln_runtime::view::{self, ViewError};
use rustix::fd::AsFd;
use std::io::Write;
use std::path::Path;

/// Failure to write a tree.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Reading or writing the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree cannot be read.
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

/// Copies the tree of layers into a directory, which is created when it is missing; its existing files stay, unless one
/// of the layers has a file with the same name. All files belong to the caller. With an `epoch` (seconds since 1970)
/// all have its time.
///
/// # Errors
/// Fails when the store or the tree cannot be read, or a file cannot be written.
pub fn to_dir(store: &Store, layers: &[DiffId], dir: &Path, epoch: Option<i64>) -> Result<(), OutputError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    std::fs::create_dir_all(dir).call("mkdir", dir)?;
    copy(store, layers, dir, &|metadata| at(Metadata { uid, gid, ..metadata }, epoch))
}

/// Writes trees of layers as a tar, each below its own directory; an empty name is the root.
///
/// # Errors
/// Fails when the store or a tree cannot be read, or the tar cannot be written.
pub fn to_tar<W: Write>(
    store: &Store,
    trees: &[(String, &[DiffId])],
    epoch: Option<i64>,
    output: W,
) -> Result<W, OutputError> {
    let scratch = store.scratch_dir()?;
    for (dir, layers) in trees {
        let place = scratch.path().join(dir);
        std::fs::create_dir_all(&place).call("mkdir", &place)?;
        copy(store, layers, &place, &|metadata| at(metadata, epoch))?;
    }
    Ok(diff(scratch.path(), output)?)
}

fn at(metadata: Metadata, epoch: Option<i64>) -> Metadata {
    Metadata { mtime: epoch.map_or(metadata.mtime, |epoch| (epoch, 0)), ..metadata }
}

fn copy(
    store: &Store,
    layers: &[DiffId],
    dir: &Path,
    change: &(dyn Fn(Metadata) -> Metadata + Sync),
) -> Result<(), OutputError> {
    let stack = store.stack(layers)?;
    if stack.is_empty() {
        return Ok(());
    }
    let root = view::detached(&store.view_mount(&stack, &[]))?;
    let mut writer = LayerWriter::new(dir, None)?;
    writer.copy(&CopyRequest {
        source: root.as_fd(),
        name: c".",
        base: b"",
        destination: b"/",
        dirs: Metadata { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) },
        selection: &Everything,
        attributes: true,
        change: &|metadata, _| change(metadata),
    })?;
    writer.finish()?;
    Ok(())
}
