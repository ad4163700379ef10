//! Layers derived from other layers: merged, or with limited times.

use super::{LayerId, LayerRecord, Stack, Store, StoreError};
use crate::digest::{DiffId, Hashing};
use crate::layer::{diff_of_container, diff_until, merge};
use crate::sys::{self, Descent, Named};
use rustix::fs::FileType;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

impl Store {
    /// Merges several layers, lowest first, into one that is valid above the layers `below`.
    pub fn merge_layers(&self, layers: &[LayerId], below: &Stack) -> Result<LayerRecord, StoreError> {
        let merged = self.stack_of(layers)?;
        let dirs: Vec<PathBuf> = merged.dirs().into_iter().map(Path::to_owned).collect();
        let active = self.empty_active()?;
        merge(&dirs, &active.upper(), &below.tree()?)?;
        self.commit(active)
    }

    /// Packs a directory of changes in overlayfs' form as a layer; `None` when it has no changes. Equal changes result in
    /// the same layer.
    ///
    /// # Errors
    /// Fails when a file changes meanwhile, cannot be read, or the layer cannot be written.
    pub fn pack_layer(&self, changes: &Path) -> Result<Option<LayerRecord>, StoreError> {
        /// Length of a tar without entries.
        const EMPTY: u64 = 1024;
        let (scratch, file) = self.scratch.file()?;
        let tar = diff_of_container(changes, Hashing::new(BufWriter::new(file)))?;
        let (mut writer, digest, size) = tar.finish();
        writer.flush().call("write", scratch.path())?;
        if size <= EMPTY {
            return Ok(None);
        }
        let file = File::open(scratch.path()).call("open", scratch.path())?;
        Ok(Some(self.unpack_layer(BufReader::new(file), &DiffId(digest), &[], None)?))
    }

    /// Layer without times later than `latest` (seconds since 1970); `None` when it has none to replace.
    pub fn layer_until(&self, id: &LayerId, latest: i64) -> Result<Option<LayerRecord>, StoreError> {
        let dir = self.layer_dir(id);
        let mut root = Descent::new(sys::open_dir(&dir)?);
        if !has_younger(&mut root, latest).call("getdents", &dir)? {
            return Ok(None);
        }
        let (scratch, file) = self.scratch.file()?;
        let tar = diff_until(&dir, Hashing::new(BufWriter::new(file)), latest)?;
        let (mut writer, digest, _) = tar.finish();
        writer.flush().call("write", scratch.path())?;
        let file = File::open(scratch.path()).call("open", scratch.path())?;
        Ok(Some(self.unpack_layer(BufReader::new(file), &DiffId(digest), &[], None)?))
    }
}

/// True when something below the current directory was changed after `latest`, in seconds since 1970.
fn has_younger(way: &mut Descent, latest: i64) -> Result<bool, rustix::io::Errno> {
    for name in sys::sorted_names(way.here())? {
        let Some(stat) = sys::stat_at(way.here(), &name)? else { continue };
        if sys::is_whiteout(&stat) {
            continue;
        }
        if stat.st_mtime > latest {
            return Ok(true);
        }
        if sys::file_type(&stat) == FileType::Directory {
            way.enter(&name)?;
            if has_younger(way, latest)? {
                return Ok(true);
            }
            way.leave()?;
        }
    }
    Ok(false)
}
