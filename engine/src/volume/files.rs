//! Files of volumes: the directory of one without options, or what the options mount.

use super::options::{self, Local};
use super::{Volume, VolumeOwner, data_dir};
use crate::container::Records;
use crate::error::EngineError;
use crate::mount::MountPoint;
use crate::record::Listed;
use kiln_image::sys::Named;
use kiln_runtime::view;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Magic number of a tmpfs (`TMPFS_MAGIC` of Linux's `magic.h`).
const TMPFS: u64 = 0x0102_1994;

/// What is mounted in a container for a volume.
pub(crate) enum Backing {
    /// A directory, with mount options.
    Directory { path: PathBuf, options: Vec<String> },
    /// Detached mounts of one file system.
    Mounts(Vec<OwnedFd>),
}

/// Open files of a volume.
pub(crate) struct VolumeFiles {
    path: PathBuf,
    /// True when programs cannot write to them.
    pub(crate) is_read_only: bool,
    /// True for a directory of the store.
    pub(crate) is_in_store: bool,
    /// Keeps the path valid, where it is that of a descriptor.
    _handle: Option<OwnedFd>,
}

impl VolumeFiles {
    /// Path of the directory, valid in this process.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Records {
    /// Returns what is mounted for a volume in the container `id`, `count` times for one in memory. For one of these
    /// the caller holds their lock until the container has its mounts.
    ///
    /// # Errors
    /// [`EngineError::NoSuchVolume`], and [`EngineError::VolumeMount`] when it cannot be mounted.
    pub(crate) fn back_volume(
        &self,
        volume: &Volume,
        id: &str,
        count: usize,
    ) -> Result<Backing, EngineError> {
        let local = self.local(volume)?;
        let shown = data_dir(&self.root, &volume.name);
        Ok(match &local {
            Local::Directory => Backing::Directory { path: shown, options: vec!["rbind".to_owned()] },
            Local::Host { path, options } => {
                check_host(volume, path)?;
                Backing::Directory { path: path.clone(), options: options.clone() }
            }
            Local::FileSystem { kind, device, options } => {
                let is_memory = local.is_memory();
                let count = if is_memory { count } else { 1 };
                let found = is_memory.then(|| self.memory_of(volume, &local, id, count)).transpose()?;
                let mut handles = found.unwrap_or_default();
                if handles.is_empty() {
                    handles = mount_volume((volume, &shown), (kind, device), options, count)?;
                }
                Backing::Mounts(handles)
            }
        })
    }

    /// Opens the files of a volume. `None` for one in memory that no running container has.
    ///
    /// # Errors
    /// [`EngineError::NoSuchVolume`], and [`EngineError::VolumeMount`] when it cannot be mounted.
    pub(crate) fn open_volume(&self, volume: &Volume) -> Result<Option<VolumeFiles>, EngineError> {
        let local = self.local(volume)?;
        let shown = data_dir(&self.root, &volume.name);
        let (path, handle) = match &local {
            Local::Directory => (shown, None),
            Local::Host { path, .. } => {
                check_host(volume, path)?;
                (path.clone(), None)
            }
            Local::FileSystem { kind, device, options } => {
                let handles = match local.is_memory() {
                    true => self.memory_of(volume, &local, "", 1)?,
                    false => mount_volume((volume, &shown), (kind, device), options, 1)?,
                };
                let Some(handle) = handles.into_iter().next() else { return Ok(None) };
                // The dot makes it the directory, not a link to it.
                (PathBuf::from(format!("/proc/self/fd/{}/.", handle.as_raw_fd())), Some(handle))
            }
        };
        Ok(Some(VolumeFiles {
            path,
            is_read_only: local.is_read_only(),
            is_in_store: local == Local::Directory,
            _handle: handle,
        }))
    }

    /// True for volumes whose mounts must be found in other containers.
    pub(crate) fn is_in_memory(&self, volume: &Volume) -> Result<bool, EngineError> {
        Ok(self.local(volume)?.is_memory())
    }

    fn local(&self, volume: &Volume) -> Result<Local, EngineError> {
        let failed = |error: options::VolumeOptionError| mount_error(volume, "", error.to_string());
        options::read(&volume.options).map_err(failed)
    }

    /// Copies of the mount of a volume in memory in a running container other than `own`; none when no other has it.
    fn memory_of(
        &self,
        volume: &Volume,
        local: &Local,
        own: &str,
        count: usize,
    ) -> Result<Vec<OwnedFd>, EngineError> {
        let all = self.list()?;
        let others = all.iter().filter_map(|listed| match listed {
            Listed::Sound(container) if container.state.is_alive() && container.id != own => Some(container),
            Listed::Sound(_) | Listed::Damaged(_) => None,
        });
        for other in others {
            let uses = |point: &&MountPoint| point.volume() == Some(&volume.name);
            for point in other.settings.mounts.iter().filter(uses) {
                // One that ends just now has released the volume.
                let Ok(live) = self.live(other) else { continue };
                let target = Path::new(&point.target);
                let copies: Result<Vec<OwnedFd>, Errno> =
                    (0..count).map(|_| view::copy_of_process(live.pidfd().as_fd(), target)).collect();
                let Ok(copies) = copies else { continue };
                // Its programs may have unmounted it.
                let is_memory =
                    |copy: &OwnedFd| rustix::fs::fstatfs(copy).is_ok_and(|stat| stat.f_type as u64 == TMPFS);
                if !copies.iter().all(is_memory) {
                    continue;
                }
                // It may be read-only because that container asked for it.
                let change = if local.is_read_only() { view::cut_off } else { view::cut_off_writable };
                let copies: Result<Vec<OwnedFd>, Errno> = copies.into_iter().map(change).collect();
                return Ok(copies.call("mount", target)?);
            }
        }
        Ok(Vec::new())
    }
}

/// Mounts the file system of a volume.
fn mount_volume(
    (volume, target): (&Volume, &Path),
    (kind, device): (&str, &str),
    options: &[String],
    count: usize,
) -> Result<Vec<OwnedFd>, EngineError> {
    let mut options = options.to_vec();
    let VolumeOwner { uid, gid, mode } = volume.owner;
    let decimal = |id: Option<u32>| id.map(|id| format!("{id}"));
    let chosen =
        [("uid=", decimal(uid)), ("gid=", decimal(gid)), ("mode=", mode.map(|mode| format!("{mode:o}")))];
    // Only a tmpfs has them; its own options come first.
    for (key, value) in chosen {
        let is_set = options.iter().any(|option| option.starts_with(key));
        options.extend(value.filter(|_| !is_set).map(|value| format!("{key}{value}")));
    }
    let failed = |reason: String| mount_error(volume, device, reason);
    let mount = options::mount(kind, (device, target), &options).map_err(failed)?;
    view::several(&mount, count).map_err(|error| mount_error(volume, device, error.to_string()))
}

/// Fails when the host's directory of a volume does not exist, or is another file.
fn check_host(volume: &Volume, path: &Path) -> Result<(), EngineError> {
    let reason = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => Errno::NOTDIR,
        Err(error) => Errno::from_io_error(&error).unwrap_or(Errno::IO),
    };
    Err(mount_error(volume, &path.display().to_string(), std::io::Error::from(reason).to_string()))
}

fn mount_error(volume: &Volume, device: &str, reason: String) -> EngineError {
    EngineError::VolumeMount { name: volume.name.clone(), device: device.to_owned(), reason }
}
