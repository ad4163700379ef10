//! Creates, lists and removes volumes for their users.

use super::{
    Volume, VolumeNameError, VolumeOptionError, VolumeOwner, VolumeRequest, Volumes, check_name, data_dir,
    images_pin, options,
};
use crate::container::Records;
use crate::error::EngineError;
use crate::record::{Container, Listed};
use kiln_image::store::size_below;
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reason why a volume cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeCreateError {
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] VolumeNameError),
    /// An option is invalid.
    #[error(transparent)]
    Option(#[from] VolumeOptionError),
    /// A volume of this name exists, and is another one.
    #[error("a volume of this name exists {0}")]
    Exists(String),
}

/// A volume with the containers that use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedVolume {
    /// Record of the volume.
    pub volume: Volume,
    /// Ids of the containers, running or not.
    pub containers: Vec<String>,
}

/// Outcome of a removal of volumes that are not used.
#[derive(Debug, Default)]
pub struct PrunedVolumes {
    /// Names of the removed volumes.
    pub names: Vec<String>,
    /// Size of their files in bytes.
    pub bytes: u64,
    /// Volumes that could not be removed.
    pub failed: Vec<(String, EngineError)>,
}

impl Records {
    /// Creates a volume; one that exists with the options of the request is a success.
    ///
    /// # Errors
    /// [`EngineError::CreateVolume`] for invalid names and options, and for a name that a volume with others has.
    pub fn create_volume(&self, request: &VolumeRequest) -> Result<Volume, EngineError> {
        check_request(request).map_err(|reason| refused(request, reason))?;
        let volumes = Volumes::open(&self.root)?;
        // No other process removes it between the attempt and the look at what is there.
        let _lock = volumes.lock(FlockOperation::LockShared)?;
        loop {
            let existing = match &request.name {
                Some(name) => volumes.find(name)?,
                None => None,
            };
            if let Some(existing) = existing {
                request.check_same(&existing)?;
                return Ok(existing);
            }
            let volume = Volume::new(request);
            if volumes.create(&volume, |_| Ok::<(), EngineError>(()))? {
                return Ok(volume);
            }
        }
    }

    /// Volume with a name.
    ///
    /// # Errors
    /// [`EngineError::NoSuchVolume`], and failures to read its record.
    pub fn find_volume(&self, name: &str) -> Result<Volume, EngineError> {
        let found = Volumes::open(&self.root)?.find(name)?;
        found.ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))
    }

    /// All volumes by name, with the containers that use them.
    ///
    /// # Errors
    /// Fails when the volumes or the containers cannot be listed.
    pub fn volumes(&self) -> Result<Vec<UsedVolume>, EngineError> {
        // Before the containers: a volume that is created meanwhile is not listed, rather than without its container.
        let volumes = Volumes::open(&self.root)?.list()?;
        let all = self.list()?;
        let used = |volume: Volume| UsedVolume { containers: self.users(&all, &volume.name, ""), volume };
        Ok(volumes.into_iter().map(used).collect())
    }

    /// Size in bytes of the files that a volume has in the store: none of one that is mounted.
    ///
    /// # Errors
    /// Fails when a directory cannot be read.
    pub fn volume_size(&self, name: &str) -> Result<u64, EngineError> {
        match size_below(&self.volume_data(name)) {
            Err(error) if error.is_not_found() => Ok(0),
            size => Ok(size?),
        }
    }

    /// Directory with the files of a volume, whether or not it exists.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        data_dir(&self.root, name)
    }

    /// Removes a volume and its files.
    ///
    /// # Errors
    /// [`EngineError::NoSuchVolume`], and [`EngineError::VolumeInUse`] with the ids of the containers that use it.
    pub fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let volumes = Volumes::open(&self.root)?;
        let _lock = volumes.lock(FlockOperation::LockExclusive)?;
        if volumes.find(name)?.is_none() {
            return Err(EngineError::NoSuchVolume(name.to_owned()));
        }
        let users = self.users(&self.list()?, name, "");
        if !users.is_empty() {
            return Err(EngineError::VolumeInUse { name: name.to_owned(), containers: users.join(", ") });
        }
        Ok(volumes.erase(name)?)
    }

    /// Removes the volumes that no container uses and that are wanted. One that cannot be removed keeps no other.
    ///
    /// # Errors
    /// Fails when the volumes or the containers cannot be listed.
    pub fn prune_volumes(&self, wanted: impl Fn(&Volume) -> bool) -> Result<PrunedVolumes, EngineError> {
        let volumes = Volumes::open(&self.root)?;
        let _lock = volumes.lock(FlockOperation::LockExclusive)?;
        volumes.remove_abandoned()?;
        let all = self.list()?;
        let mut pruned = PrunedVolumes::default();
        for volume in volumes.list()? {
            if !wanted(&volume) || !self.users(&all, &volume.name, "").is_empty() {
                continue;
            }
            let size = self.volume_size(&volume.name).unwrap_or_default();
            match volumes.erase(&volume.name) {
                Ok(()) => {
                    pruned.bytes += size;
                    pruned.names.push(volume.name);
                }
                Err(error) => pruned.failed.push((volume.name, error.into())),
            }
        }
        let reclaimed = BTreeMap::from([("reclaimed".to_owned(), pruned.bytes.to_string())]);
        crate::events::Events::of(&self.root).add("volume", "", "prune", reclaimed);
        Ok(pruned)
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
            if self.users(&all, name, &container.id).is_empty() {
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

    /// Adds an event about each volume of a container that is mounted or unmounted.
    pub(crate) fn volume_events(&self, container: &Container, action: &str) {
        let Ok(volumes) = Volumes::open(&self.root) else { return };
        for point in &container.settings.mounts {
            let Some(name) = point.volume() else { continue };
            let mut more = vec![("container", container.id.clone())];
            if action == "mount" {
                more.extend([
                    ("destination", point.target.clone()),
                    ("propagation", String::new()),
                    ("read/write", (!point.read_only).to_string()),
                ]);
            }
            volumes.event(name, action, &more);
        }
    }

    /// Ids of the containers that use a volume, other than `except`.
    fn users(&self, all: &[Listed], name: &str, except: &str) -> Vec<String> {
        let uses = |listed: &&Listed| match listed {
            Listed::Sound(container) => {
                container.id != except
                    && container.settings.mounts.iter().any(|mount| mount.volume() == Some(name))
            }
            // What remains of its record may name the volume.
            Listed::Damaged(damaged) => self.mentions(&damaged.id, name),
        };
        all.iter().filter(uses).map(|listed| listed.id().to_owned()).collect()
    }

    /// True when the record of a container contains a text in quotes.
    fn mentions(&self, id: &str, text: &str) -> bool {
        let record = self.path(id).join("container.json");
        let is_file = std::fs::symlink_metadata(&record).is_ok_and(|metadata| metadata.is_file());
        let bytes = if is_file { std::fs::read(record).unwrap_or_default() } else { Vec::new() };
        let quoted = format!("\"{text}\"");
        bytes.windows(quoted.len()).any(|window| window == quoted.as_bytes())
    }
}

impl VolumeRequest {
    /// Fails when a volume with the name of the request is another one than it asks for. Without options, any volume
    /// will do, as for `-v NAME:TARGET`.
    pub(crate) fn check_same(&self, existing: &Volume) -> Result<(), EngineError> {
        let has_owner = self.owner != VolumeOwner::default();
        let is_same = (self.options.is_empty() || self.options == existing.options)
            && (!has_owner || self.owner == existing.owner);
        match is_same {
            true => Ok(()),
            false => Err(refused(self, VolumeCreateError::Exists(shown(existing)))),
        }
    }
}

/// What a volume has by its options and owner.
fn shown(volume: &Volume) -> String {
    let VolumeOwner { uid, gid, mode } = volume.owner;
    let mut shown: Vec<String> =
        volume.options.iter().map(|(key, value)| format!("{key}={}", without_password(value))).collect();
    shown.extend(uid.map(|uid| format!("uid {uid}")));
    shown.extend(gid.map(|gid| format!("gid {gid}")));
    shown.extend(mode.map(|mode| format!("mode {mode:o}")));
    match shown.is_empty() {
        true => "without options".to_owned(),
        false => format!("with other options: {}", shown.join(" ")),
    }
}

fn without_password(value: &str) -> String {
    let hidden = |option: &str| match option.split_once('=') {
        Some((key @ ("password" | "pass"), _)) => format!("{key}=********"),
        _ => option.to_owned(),
    };
    value.split(',').map(hidden).collect::<Vec<_>>().join(",")
}

fn check_request(request: &VolumeRequest) -> Result<(), VolumeCreateError> {
    if let Some(name) = &request.name {
        check_name(name)?;
    }
    let local = options::read(&request.options)?;
    let can_have_owner = local == options::Local::Directory || local.is_memory();
    match request.options.get("device") {
        Some(device) if request.owner != VolumeOwner::default() && !can_have_owner => {
            Err(VolumeOptionError::Owner(device.clone()).into())
        }
        _ => Ok(()),
    }
}

fn refused(request: &VolumeRequest, reason: VolumeCreateError) -> EngineError {
    EngineError::CreateVolume { name: request.name.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, options: &[(&str, &str)]) -> VolumeRequest {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        VolumeRequest { name: Some(name.to_owned()), options, ..VolumeRequest::default() }
    }

    fn with_records(test: impl FnOnce(&Records)) {
        let dir = tempfile::tempdir().unwrap();
        test(&Records::open(dir.path()).unwrap());
    }

    #[test]
    fn a_volume_that_exists_is_the_same_one_or_an_error() {
        with_records(|records| {
            let memory = [("type", "tmpfs"), ("device", "tmpfs")];
            let first = records.create_volume(&request("data", &memory)).unwrap();
            assert_eq!(records.create_volume(&request("data", &memory)).unwrap(), first);
            assert_eq!(records.create_volume(&request("data", &[])).unwrap(), first);
            let other = [("type", "none"), ("device", "/srv"), ("o", "bind")];
            let error = records.create_volume(&request("data", &other)).unwrap_err().to_string();
            let expected =
                "create data: a volume of this name exists with other options: device=tmpfs type=tmpfs";
            assert_eq!(error, expected);
            let owner = VolumeOwner { uid: Some(5), ..VolumeOwner::default() };
            let owned = VolumeRequest { owner, ..request("data", &[]) };
            assert!(records.create_volume(&owned).is_err());
            let owned = VolumeRequest { owner, ..request("other", &other) };
            assert!(records.create_volume(&owned).unwrap_err().to_string().contains("an owner or mode"));
            assert_eq!(records.volumes().unwrap().len(), 1);
        });
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("vers=3.0,password=x y,user=me"), "vers=3.0,password=********,user=me");
    }

    #[test]
    fn volumes_of_damaged_containers_are_in_use() {
        with_records(|records| {
            records.create_volume(&request("data", &[])).unwrap();
            let id = "a".repeat(64);
            let dir = records.path(&id);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("container.json"), br#"{"name":"data"#).unwrap();
            assert!(records.volumes().unwrap()[0].containers.is_empty());
            std::fs::write(dir.join("container.json"), br#"{"name":"data","#).unwrap();
            assert_eq!(records.volumes().unwrap()[0].containers, [id]);
            assert!(records.remove_volume("data").is_err());
            assert!(records.prune_volumes(|_| true).unwrap().names.is_empty());
        });
    }
}
