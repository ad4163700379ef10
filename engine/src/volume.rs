//! Volumes of a store: directories that outlive containers.
//!
//! ```text
//! volumes/.lock               held shared while a container with volumes is created, exclusively to remove volumes
//! volumes/NAME/volume.json    record
//! volumes/NAME/_data          the files
//! volumes/.new-NUMBER         being created
//! ```
//!
//! Only root can enter them from the host: volumes hold secrets and setuid programs.
//!
//! A volume is created beside and renamed, so one under its name is complete, with its first files. Which containers use
//! a volume is in their records alone.

use crate::container::{self, Records};
use crate::error::EngineError;
use crate::events::Events;
use crate::record::{Container, Listed, now};
use kiln_image::digest::hex;
use kiln_image::sys::{self, CallError, Named};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Prefix of directories that are being created.
const NEW: &str = ".new-";
/// Name of the directory with the files of a volume.
const DATA: &str = "_data";

/// Record of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Name of the volume.
    pub name: String,
    /// Time of creation, RFC 3339.
    pub created: String,
    /// True when it was created for a container without a name, and is removed with it.
    #[serde(default)]
    pub anonymous: bool,
    /// Labels of the volume.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// All volumes of a store.
#[derive(Clone, Debug)]
pub struct Volumes {
    dir: PathBuf,
}

/// A name that no volume can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("volume name {0:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
pub struct VolumeNameError(String);

/// Checks a volume's name: at least two characters.
pub(crate) fn check_name(name: &str) -> Result<(), VolumeNameError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && (2..=255).contains(&name.len()) && name.bytes().all(valid) {
        return Ok(());
    }
    Err(VolumeNameError(name.to_owned()))
}

impl Volumes {
    /// Opens the volumes of the store in `root`.
    ///
    /// # Errors
    /// Fails when their directory cannot be created.
    pub fn open(root: &Path) -> Result<Volumes, EngineError> {
        let dir = root.join("volumes");
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).call("mkdir", &dir)?;
        }
        Ok(Volumes { dir })
    }

    /// Directory with the files of the volume `name`, whether or not it exists.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name).join(DATA)
    }

    /// Volume with a name. `None` when there is none.
    ///
    /// # Errors
    /// Fails when its record cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<Volume>, EngineError> {
        if check_name(name).is_err() || !self.data(name).is_dir() {
            return Ok(None);
        }
        let path = self.dir.join(name).join("volume.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // The files matter more than their record: without one it is a volume with defaults.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(call("read", &path, &error).into()),
        };
        let unknown = || Volume {
            name: name.to_owned(),
            created: String::new(),
            anonymous: false,
            labels: BTreeMap::new(),
        };
        Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| unknown())))
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// Fails when the directory or a record cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, EngineError> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.dir).call("getdents", &self.dir)? {
            let name = entry.call("getdents", &self.dir)?.file_name().to_string_lossy().into_owned();
            volumes.extend(self.find(&name)?);
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Creates a volume unless it exists: `fill` puts the first files into its directory. Returns false when it exists.
    pub(crate) fn create<E: From<CallError>>(
        &self,
        volume: &Volume,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<bool, E> {
        self.remove_abandoned()?;
        let new = self.dir.join(format!("{NEW}{}", hex(&container::random::<8>())));
        let make = |path: &Path, mode| fs::DirBuilder::new().mode(mode).create(path).call("mkdir", path);
        make(&new, 0o700)?;
        let result = (|| {
            let lock = sys::open_dir(&new)?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).call("flock", &new)?;
            let data = new.join(DATA);
            make(&data, 0o755)?;
            // The mask for new files does not apply to it.
            fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).call("chmod", &data)?;
            fill(&data)?;
            let record = new.join("volume.json");
            let bytes = serde_json::to_vec(volume).expect("a record is made of texts");
            fs::write(&record, bytes).call("write", &record)?;
            let path = self.dir.join(&volume.name);
            match fs::rename(&new, &path) {
                Ok(()) => {
                    self.event(&volume.name, "create");
                    Ok(true)
                }
                // Another process was faster.
                Err(_) if path.is_dir() => Ok(false),
                Err(error) => Err(call("rename", &new, &error).into()),
            }
        })();
        if !matches!(result, Ok(true)) {
            // What cannot be removed now is left to the next creation.
            let _ = sys::remove_path(&new);
        }
        result
    }

    /// Removes directories of processes that died while they created a volume.
    fn remove_abandoned(&self) -> Result<(), CallError> {
        for entry in fs::read_dir(&self.dir).call("getdents", &self.dir)?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(NEW) {
                continue;
            }
            let Ok(dir) = sys::open_dir(&entry.path()) else { continue };
            if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = sys::remove_path(&entry.path());
            }
        }
        Ok(())
    }

    /// Locks the set of volumes: shared while records of containers that use volumes are written, exclusively to remove
    /// volumes.
    pub(crate) fn lock(&self, operation: FlockOperation) -> Result<OwnedFd, CallError> {
        let path = self.dir.join(".lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).call("open", &path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(CallError { call: "flock", path, errno }),
            }
        }
    }

    pub(crate) fn erase(&self, name: &str) -> Result<(), CallError> {
        let path = self.dir.join(name);
        let was_there = path.is_dir();
        sys::remove_path(&path)?;
        if was_there {
            self.event(name, "destroy");
        }
        Ok(())
    }

    /// Adds an event about a volume.
    fn event(&self, name: &str, action: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        let root = self.dir.parent().unwrap_or(&self.dir);
        Events::of(root).add("volume", name, action, attributes);
    }
}

impl Volume {
    /// A new volume: with a name, or else with a generated one.
    pub(crate) fn new(name: Option<&str>, labels: BTreeMap<String, String>) -> Volume {
        let anonymous = name.is_none();
        let name = name.map_or_else(|| hex(&container::random::<32>()), str::to_owned);
        Volume { name, created: now(), anonymous, labels }
    }
}

impl Records {
    /// Directory with the files of a volume, whether or not it exists.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        data_dir(&self.root, name)
    }

    /// Removes a volume and its files. One that does not exist is a success.
    ///
    /// # Errors
    /// [`EngineError::VolumeInUse`] with the ids of the containers that use it.
    pub fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let volumes = Volumes::open(&self.root)?;
        let _lock = volumes.lock(FlockOperation::LockExclusive)?;
        let users = users(&self.list()?, name, "");
        if !users.is_empty() {
            return Err(EngineError::VolumeInUse { name: name.to_owned(), containers: users.join(", ") });
        }
        Ok(volumes.erase(name)?)
    }

    /// Removes the volumes that were created for a container without a name, except those that others use.
    ///
    /// # Errors
    /// Fails when containers cannot be listed, or files cannot be removed.
    pub fn remove_anonymous_volumes(&self, container: &Container) -> Result<(), EngineError> {
        let names: Vec<&str> =
            container.settings.mounts.iter().filter_map(|mount| mount.anonymous_volume()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let volumes = Volumes::open(&self.root)?;
        let _lock = volumes.lock(FlockOperation::LockExclusive)?;
        let all = self.list()?;
        for name in names {
            if users(&all, name, &container.id).is_empty() {
                volumes.erase(name)?;
            }
        }
        Ok(())
    }

    /// Releases what a container that is being removed has elsewhere in the store: pins of mounted images, and, if it is
    /// removed at its end, its anonymous volumes. Its record is in the directory `path`.
    pub(crate) fn release(&self, path: &Path, id: &str) -> Result<(), EngineError> {
        // Without a readable record it is not known which volumes it had.
        let Ok(Some(container)) = crate::record::read(&path.join("container.json"), id) else {
            return Ok(());
        };
        kiln_image::store::remove_pin(&self.root, &images_pin(id))?;
        if container.auto_remove { self.remove_anonymous_volumes(&container) } else { Ok(()) }
    }
}

/// Directory with the files of a volume of the store in `root`.
pub(crate) fn data_dir(root: &Path, name: &str) -> PathBuf {
    root.join("volumes").join(name).join(DATA)
}

/// Name of the pin for the images that a container mounts.
pub(crate) fn images_pin(id: &str) -> String {
    format!("{id}-images")
}

/// Ids of the containers that use a volume, other than `except`.
fn users(all: &[Listed], name: &str, except: &str) -> Vec<String> {
    let uses = |listed: &&Listed| match listed {
        Listed::Sound(container) => {
            container.id != except
                && container.settings.mounts.iter().any(|mount| mount.volume() == Some(name))
        }
        Listed::Damaged(_) => false,
    };
    all.iter().filter(uses).map(|listed| listed.id().to_owned()).collect()
}

fn call(call: &'static str, path: &Path, error: &std::io::Error) -> CallError {
    CallError { call, path: path.to_owned(), errno: Errno::from_io_error(error).unwrap_or(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_volumes(test: impl FnOnce(&Volumes)) {
        let dir = tempfile::tempdir().unwrap();
        test(&Volumes::open(dir.path()).unwrap());
    }

    #[test]
    fn names() {
        for good in ["ab", "a1", "db_data.1-x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-ab", "a b", "a/b", ".x", "..", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_volume_is_created_once_with_its_first_files() {
        with_volumes(|volumes| {
            let volume = Volume::new(Some("data"), BTreeMap::from([("a".into(), "b".into())]));
            let fill =
                |text: &'static str| move |data: &Path| fs::write(data.join("f"), text).call("write", data);
            assert!(volumes.create(&volume, fill("first")).unwrap());
            assert!(!volumes.create(&volume, fill("second")).unwrap());
            assert_eq!(fs::read_to_string(volumes.data("data").join("f")).unwrap(), "first");
            assert_eq!(volumes.find("data").unwrap(), Some(volume.clone()));
            assert_eq!(volumes.list().unwrap(), [volume]);
            volumes.erase("data").unwrap();
            volumes.erase("data").unwrap();
            assert_eq!(volumes.find("data").unwrap(), None);
        });
    }

    #[test]
    fn a_failed_creation_leaves_nothing() {
        with_volumes(|volumes| {
            let volume = Volume::new(None, BTreeMap::new());
            let failed = |_: &Path| Err(CallError { call: "copy", path: "x".into(), errno: Errno::NOSPC });
            assert!(volumes.create(&volume, failed).is_err());
            // A process that died here.
            fs::create_dir(volumes.dir.join(".new-1")).unwrap();
            assert!(volumes.list().unwrap().is_empty());
            let other = Volume::new(Some("other"), BTreeMap::new());
            volumes.create(&other, |_| Ok::<(), CallError>(())).unwrap();
            let names: Vec<_> =
                fs::read_dir(&volumes.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["other"]);
        });
    }
}
