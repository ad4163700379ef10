//! Opening of a store: its directories, their permissions, and what ended processes and crashes left.

use super::content::Blobs;
use super::scratch::ScratchArea;
use super::{Store, StoreError};
use crate::sys::{CallError, Named};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64};

pub(super) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Files of the store that only root may access: layers contain setuid programs, blobs may contain secrets.
const RESTRICTED: [&str; 12] = [
    "blobs",
    "layers",
    "work",
    "locks",
    "pins",
    "cache",
    "caches",
    "containers",
    "index.db",
    "index.db-wal",
    "index.db-shm",
    "reserve",
];

impl Store {
    /// Opens the store in the directory `root`, which is created when it is missing.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the directory cannot be created or opened, [`super::IndexError::TooNew`] for a store of a
    /// newer version.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let open = |error| StoreError::Open(root.to_owned(), error);
        let fresh = !root.join("oci-layout").exists();
        for dir in ["blobs/sha256", "layers", "work", "locks", "pins", "cache", "caches", "containers/names"]
        {
            let path = root.join(dir);
            if fresh || !path.exists() {
                make_dir(&path).map_err(open)?;
            }
        }
        for name in RESTRICTED {
            restrict_to_owner(&root.join(name)).map_err(open)?;
        }
        let (index, is_new) = Store::open_index(root)?;
        let scratch = ScratchArea::new(root.join("work"));
        let blobs = Blobs::new(root.join("blobs"), scratch.clone());
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let changed = AtomicBool::new(false);
        let pins = AtomicI64::new(0);
        let store = Store { root: root.to_owned(), index, blobs, scratch, boot, changed, pins, after: None };
        if fresh {
            store.replace_file("oci-layout", OCI_LAYOUT)?;
        }
        store.scratch.remove_orphans(&|orphan| store.discard_private(orphan))?;
        store.recover(is_new)?;
        store.keep_reserve();
        Ok(store)
    }
}

/// Removes the permissions of group and others from a file or directory, if it exists.
#[expect(clippy::disallowed_methods, reason = "a directory of the store itself, above all images")]
pub(super) fn restrict_to_owner(path: &Path) -> Result<(), CallError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode();
    if mode & 0o077 == 0 || metadata.is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7700)).call("chmod", path)
}

pub(super) fn make_dir(path: &Path) -> Result<(), CallError> {
    fs::create_dir_all(path).call("mkdir", path)
}
