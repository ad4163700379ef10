//! Volumes of a store: directories that outlive containers.
//!
//! ```text
//! volumes/.lock               held shared while a container with volumes is created, exclusively to remove volumes
//! volumes/NAME/volume.json    record
//! volumes/NAME/_data          the files
//! volumes/.new-NUMBER         being created, or removed
//! volumes/.memory             held while a container with volumes in memory starts
//! ```
//!
//! Only root can enter them from the host: volumes hold secrets and setuid programs.
//!
//! A volume is created beside and renamed, so one under its name is complete, with its first files. Which containers use
//! a volume is in their records alone.

mod archive;
mod files;
mod manage;
mod options;

pub use manage::{PrunedVolumes, UsedVolume, VolumeCreateError};
pub use options::VolumeOptionError;

pub(crate) use files::{Backing, VolumeFiles};
pub(crate) use options::read as read_options;

use crate::container;
use crate::directory::{is_at, lock_at};
use crate::error::EngineError;
use crate::events::Events;
use crate::record::now;
use kiln_image::digest::hex;
use kiln_image::sys::{self, CallError, Named};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Gid, Mode, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Prefix of directories that are being created or removed.
const NEW: &str = ".new-";
/// Name of the directory with the files of a volume.
const DATA: &str = "_data";
/// Label of anonymous volumes, as in Docker.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Record of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Name of the volume.
    pub name: String,
    /// Time of creation, RFC 3339.
    pub created: String,
    /// True when it was created without a name, and is removed with the container that it was created for.
    #[serde(default)]
    pub anonymous: bool,
    /// Labels of the volume.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver: what is mounted as the volume. Without any, it is a directory of the store.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Owner and mode of its directory.
    #[serde(default)]
    pub owner: VolumeOwner,
}

/// Owner and mode of a volume's directory, as far as its user has chosen them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOwner {
    /// Uid of the owner.
    pub uid: Option<u32>,
    /// Gid of the owner.
    pub gid: Option<u32>,
    /// Permission bits, with those for setuid, setgid and sticky.
    pub mode: Option<u32>,
}

/// Settings of a new volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Name; `None` for a generated one.
    pub name: Option<String>,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Owner and mode of its directory.
    pub owner: VolumeOwner,
}

/// All volumes of a store.
#[derive(Clone, Debug)]
pub struct Volumes {
    dir: PathBuf,
}

/// A name that no volume can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeNameError {
    /// Fewer than two characters.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    Short,
    /// More than the 255 bytes of a file name.
    #[error("volume name is longer than 255 characters")]
    Long,
    /// Other characters than those allowed.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed: to mount a host directory, write its absolute path"
    )]
    Characters(String),
}

/// Checks a volume's name: at least two characters.
pub(crate) fn check_name(name: &str) -> Result<(), VolumeNameError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = name.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric());
    match name.len() {
        _ if !first || !name.bytes().all(valid) => Err(VolumeNameError::Characters(name.to_owned())),
        0..2 => Err(VolumeNameError::Short),
        2..=255 => Ok(()),
        _ => Err(VolumeNameError::Long),
    }
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
            options: BTreeMap::new(),
            owner: VolumeOwner::default(),
        };
        // A record in the directory of another volume was copied there.
        let read = serde_json::from_slice(&bytes).unwrap_or_else(|_| unknown());
        Ok(Some(Volume { name: name.to_owned(), ..read }))
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
        let new = self.new_dir()?;
        let data = new.data();
        fill(&data)?;
        volume.owner.apply(&sys::open_dir(&data)?).call("chown", &data)?;
        write_record(&new.path.join("volume.json"), volume)?;
        let path = self.dir.join(&volume.name);
        match fs::rename(&new.path, &path) {
            Ok(()) => {
                self.event(&volume.name, "create", &[]);
                Ok(true)
            }
            // Another process was faster.
            Err(_) if path.is_dir() => Ok(false),
            Err(error) => Err(call("rename", &new.path, &error).into()),
        }
    }

    /// Makes a locked directory with an empty one for files.
    fn new_dir(&self) -> Result<NewDir, CallError> {
        let make = |path: &Path, mode| fs::DirBuilder::new().mode(mode).create(path).call("mkdir", path);
        loop {
            let path = self.dir.join(format!("{NEW}{}", hex(&container::random::<8>())));
            make(&path, 0o700)?;
            let lock = match sys::open_dir(&path) {
                Ok(lock) => lock,
                // Until it is locked, another process may take it for an abandoned one.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).call("flock", &path)?;
            if !is_at(&lock, &path) {
                continue;
            }
            let new = NewDir { path, _lock: lock };
            let data = new.data();
            make(&data, 0o755)?;
            // The mask for new files does not apply to it.
            fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).call("chmod", &data)?;
            return Ok(new);
        }
    }

    /// Removes directories of processes that died while they created or removed a volume.
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
        lock_at(&self.dir.join(".lock"), operation)
    }

    /// Locks the starts of containers with volumes in memory: the second one finds the mount of the first.
    pub(crate) fn lock_memory(&self) -> Result<OwnedFd, CallError> {
        lock_at(&self.dir.join(".memory"), FlockOperation::LockExclusive)
    }

    /// Removes a volume and its files. Its name is free first: what a killed process leaves is no volume.
    pub(crate) fn erase(&self, name: &str) -> Result<(), CallError> {
        let path = self.dir.join(name);
        let dir = match sys::open_dir(&path) {
            Ok(dir) => dir,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        rustix::fs::flock(&dir, FlockOperation::LockExclusive).call("flock", &path)?;
        let old = self.dir.join(format!("{NEW}{}", hex(&container::random::<8>())));
        match fs::rename(&path, &old) {
            Ok(()) => self.event(name, "destroy", &[]),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(call("rename", &path, &error)),
        }
        sys::remove_path(&old)
    }

    /// Adds an event about a volume.
    fn event(&self, name: &str, action: &str, more: &[(&str, String)]) {
        let mut attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let root = self.dir.parent().unwrap_or(&self.dir);
        Events::of(root).add("volume", name, action, attributes);
    }
}

/// A directory that is being filled, before it has a name; removed on drop.
struct NewDir {
    path: PathBuf,
    _lock: OwnedFd,
}

impl NewDir {
    fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }
}

impl Drop for NewDir {
    fn drop(&mut self) {
        // After a rename there is none. What cannot be removed now is left to the next creation.
        let _ = sys::remove_path(&self.path);
    }
}

impl Volume {
    /// A new volume: with a name, or else with a generated one.
    pub(crate) fn new(request: &VolumeRequest) -> Volume {
        let VolumeRequest { name, labels, options, owner } = request.clone();
        let anonymous = name.is_none();
        let name = name.unwrap_or_else(|| hex(&container::random::<32>()));
        Volume { name, created: now(), anonymous, labels, options, owner }
    }

    /// Labels as Docker shows them: anonymous volumes have one more.
    pub fn shown_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        if self.anonymous {
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        labels
    }
}

impl VolumeOwner {
    /// Sets the chosen owner and mode of a directory.
    pub(crate) fn apply(self, dir: &OwnedFd) -> Result<(), Errno> {
        if self.uid.is_some() || self.gid.is_some() {
            rustix::fs::fchown(dir, self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw))?;
        }
        match self.mode {
            Some(mode) => rustix::fs::fchmod(dir, Mode::from_raw_mode(mode)),
            None => Ok(()),
        }
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

/// Writes a record. One with options is synced: a volume that has lost them would be another one.
fn write_record(path: &Path, volume: &Volume) -> Result<(), CallError> {
    let bytes = serde_json::to_vec(volume).expect("a record is made of texts and numbers");
    let mut file = fs::File::create(path).call("open", path)?;
    file.write_all(&bytes).call("write", path)?;
    if !volume.options.is_empty() {
        file.sync_all().call("fsync", path)?;
    }
    Ok(())
}

fn call(call: &'static str, path: &Path, error: &std::io::Error) -> CallError {
    CallError { call, path: path.to_owned(), errno: Errno::from_io_error(error).unwrap_or(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: Option<&str>) -> VolumeRequest {
        VolumeRequest { name: name.map(str::to_owned), ..VolumeRequest::default() }
    }

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
            let volume = Volume::new(&VolumeRequest {
                labels: BTreeMap::from([("a".into(), "b".into())]),
                ..request(Some("data"))
            });
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
            let volume = Volume::new(&request(None));
            let failed = |_: &Path| Err(CallError { call: "copy", path: "x".into(), errno: Errno::NOSPC });
            assert!(volumes.create(&volume, failed).is_err());
            // A process that died here.
            fs::create_dir(volumes.dir.join(".new-1")).unwrap();
            assert!(volumes.list().unwrap().is_empty());
            let other = Volume::new(&request(Some("other")));
            volumes.create(&other, |_| Ok::<(), CallError>(())).unwrap();
            let names: Vec<_> =
                fs::read_dir(&volumes.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["other"]);
        });
    }
}
