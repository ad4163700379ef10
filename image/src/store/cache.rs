//! Cache directories of `RUN --mount=type=cache`: they persist between builds and belong to no image.

use super::{Store, StoreError, StoreLock};
use crate::digest::Digest;
use crate::sys::{self, Named};
use std::path::{Path, PathBuf};

/// A cache directory, locked for use.
pub struct CacheDir {
    path: PathBuf,
    _lock: Option<StoreLock>,
}

impl CacheDir {
    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Concurrent access to a cache directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheAccess {
    /// Other steps may use it at once.
    Shared,
    /// Other steps wait until it is released.
    Locked,
    /// Other steps get a separate directory.
    Private,
}

impl Store {
    /// Opens the cache directory of that name. A new one is filled before it becomes visible; with `anew` the old
    /// content is dropped.
    ///
    /// `waiting` is called before waiting for another step.
    ///
    /// # Errors
    /// Fails when the directory cannot be created, and with the error of `fill`.
    pub fn cache_dir<E: From<StoreError>>(
        &self,
        name: &str,
        access: CacheAccess,
        anew: bool,
        waiting: impl FnOnce(),
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<CacheDir, E> {
        // Names in a Dockerfile are arbitrary and must not become paths.
        let hashed = Digest::of(name.as_bytes()).hex()[..32].to_owned();
        let (hashed, lock) = match access {
            CacheAccess::Shared => (hashed, None),
            CacheAccess::Locked => {
                let lock = self.lock(&format!("cache-{hashed}"), waiting)?;
                (hashed, Some(lock))
            }
            CacheAccess::Private => {
                let (hashed, lock) = self.free_cache(&hashed)?;
                (hashed, Some(lock))
            }
        };
        let path = self.root().join("caches").join(&hashed);
        if anew || !path.exists() {
            let _making = self.lock(&format!("make-cache-{hashed}"), || {})?;
            if anew && path.exists() {
                self.set_aside(&path)?;
            }
            if !path.exists() {
                self.make_cache(&path, fill)?;
            }
        }
        Ok(CacheDir { path, _lock: lock })
    }

    /// Empties a cache: its directory is set aside, and later steps get a new one.
    pub fn discard_cache(&self, cache: &CacheDir) -> Result<(), StoreError> {
        let name = cache.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _making = self.lock(&format!("make-cache-{name}"), || {})?;
        // Another step may have set it aside already.
        if cache.path.exists() { self.set_aside(&cache.path) } else { Ok(()) }
    }

    /// First directory of that name that is not locked.
    fn free_cache(&self, hashed: &str) -> Result<(String, StoreLock), StoreError> {
        let mut number = 0;
        loop {
            let name = if number == 0 { hashed.to_owned() } else { format!("{hashed}.{number}") };
            if let Some(lock) = self.try_lock(&format!("cache-{name}"))? {
                return Ok((name, lock));
            }
            number += 1;
        }
    }

    /// Sets a directory aside. It is removed by [`Store::remove_caches`] when no step can be using it.
    fn set_aside(&self, path: &Path) -> Result<(), StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut number = 0;
        loop {
            let aside = path.with_file_name(format!("{name}.old{}-{number}", std::process::id()));
            if !aside.exists() {
                std::fs::rename(path, &aside).call("rename", path)?;
                return Ok(());
            }
            number += 1;
        }
    }

    fn make_cache<E: From<StoreError>>(
        &self,
        path: &Path,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let called = |result: Result<(), sys::CallError>| result.map_err(StoreError::from);
        let dir = path.parent().unwrap_or(path);
        called(std::fs::create_dir_all(dir).call("mkdir", dir))?;
        let scratch = self.scratch.dir().map_err(StoreError::from)?;
        let inner = scratch.path().join("cache");
        called(std::fs::create_dir(&inner).call("mkdir", &inner))?;
        fill(&inner)?;
        called(std::fs::rename(&inner, path).call("rename", path))?;
        Ok(())
    }

    /// Removes all cache directories that are not in use; returns their number.
    pub fn remove_caches(&self) -> Result<u64, StoreError> {
        let dir = self.root().join("caches");
        let mut removed = 0;
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            // A running build may be using any of them.
            let Some(_free) = self.try_remove_layers()? else { return Ok(removed) };
            sys::remove_path(&entry.path())?;
            removed += 1;
        }
        Ok(removed)
    }
}
