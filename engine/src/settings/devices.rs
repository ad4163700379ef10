//! Devices of a container: `--device` and `--device-cgroup-rule`.

use crate::error::EngineError;
use crate::settings::Settings;
use kiln_image::sys::{CallError, Named};
use kiln_runtime::cdi::{self, CdiError};
use kiln_runtime::cgroup::{DeviceRule, default_rules};
use kiln_runtime::spec::clean_path;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use rustix::fs::{FileType, Stat, major, minor};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Operations on a device: reading, writing, and creating nodes of it.
const ALL: &str = "rwm";
/// Names in /dev that every container has for itself.
const OWN: [&str; 11] =
    ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx", "core", "tty"];
/// Class of the devices that `--gpus` names.
const GPU: &str = "nvidia.com/gpu";

/// Devices beyond the default ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Devices {
    /// Nodes of the host.
    pub nodes: Vec<DeviceNode>,
    /// Rules about devices, such as `c 1:3 rwm`.
    pub rules: Vec<String>,
    /// Devices of the Container Device Interface, as `vendor.com/class=name`.
    pub cdi: Vec<String>,
}

/// Device node of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path of a device on the host, or of a directory of devices.
    pub host: String,
    /// Path in the container.
    pub inside: String,
    /// Permitted operations: some of `rwm`.
    pub access: String,
}

/// A flag for a device that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Operations other than `r`, `w` and `m`.
    #[error("invalid argument {0:?} for \"--device\" flag: bad mode specified: {1}")]
    Mode(String, String),
    /// Text without a path on the host.
    #[error("invalid argument {0:?} for \"--device\" flag: bad format for path: {0}")]
    Path(String),
    /// A rule that is malformed.
    #[error("invalid argument {0:?} for \"--device-cgroup-rule\" flag: invalid device cgroup format '{0}'")]
    Rule(String),
    /// A device of the Container Device Interface.
    #[error("CDI device injection failed: unresolvable CDI devices: {0}")]
    Cdi(#[from] CdiError),
    /// Value of `--gpus` that names no device.
    #[error("invalid argument {0:?} for \"--gpus\" flag: write all, or device=NUMBER")]
    Gpus(String),
    /// A path that does not exist.
    #[error("error gathering device information while adding custom device {0:?}: no such file or directory")]
    Missing(String),
    /// A path that is no device.
    #[error("error gathering device information while adding custom device {0:?}: not a device node")]
    NotADevice(String),
}

/// Node of a device with its path on the host.
pub(crate) struct FoundDevice {
    /// Node in the container.
    pub(crate) node: LinuxDevice,
    /// Path on the host.
    pub(crate) host: PathBuf,
    access: String,
}

/// Reads `HOST[:CONTAINER][:rwm]`.
///
/// # Errors
/// [`DeviceError::Mode`] and [`DeviceError::Path`].
pub fn device(text: &str) -> Result<DeviceNode, DeviceError> {
    let bad_path = || DeviceError::Path(text.to_owned());
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, access) = match parts.as_slice() {
        [host] => (*host, *host, ALL),
        [host, second] if is_access(second) => (*host, *host, *second),
        [host, inside] => (*host, *inside, ALL),
        [host, inside, access] if is_access(access) => (*host, *inside, *access),
        [_, _, access] => return Err(DeviceError::Mode(text.to_owned(), (*access).to_owned())),
        _ => return Err(bad_path()),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(bad_path());
    }
    Ok(DeviceNode { host: clean_path(host), inside: clean_path(inside), access: access.to_owned() })
}

/// Names of devices for `--gpus`: `all`, or `device=0,1`.
///
/// # Errors
/// [`DeviceError::Gpus`] for other texts: a number of devices alone names none.
pub fn gpus(text: &str) -> Result<Vec<String>, DeviceError> {
    let bare = text.trim_matches('"');
    if bare == "all" {
        return Ok(vec![format!("{GPU}=all")]);
    }
    let names = bare.strip_prefix("device=").filter(|names| names.split(',').all(|name| !name.is_empty()));
    let names = names.ok_or_else(|| DeviceError::Gpus(text.to_owned()))?;
    Ok(names.split(',').map(|name| format!("{GPU}={name}")).collect())
}

/// True for names of the form `vendor.com/class=name`.
pub fn is_cdi_name(text: &str) -> bool {
    !text.starts_with('/') && text.split_once('=').is_some_and(|(kind, _)| kind.contains('/'))
}

fn is_access(text: &str) -> bool {
    let once = |letter: char| text.matches(letter).count() <= 1;
    !text.is_empty() && text.chars().all(|letter| ALL.contains(letter) && once(letter))
}

/// Checks a rule such as `c 1:3 rwm` or `b *:* m`.
///
/// # Errors
/// [`DeviceError::Rule`] for other texts.
pub fn device_rule(text: &str) -> Result<String, DeviceError> {
    parse_rule(text).map(|_| text.to_owned()).ok_or_else(|| DeviceError::Rule(text.to_owned()))
}

/// Rule of the specification; `None` for a malformed text.
fn parse_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = parts.as_slice() else { return None };
    let kind = match *kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u32>().ok().map(Some),
        _ => None,
    };
    let is_valid = (1..=3).contains(&access.len()) && access.chars().all(|letter| ALL.contains(letter));
    is_valid.then(|| rule(kind, number(major)?, number(minor)?, access)).flatten()
}

fn rule(
    kind: LinuxDeviceType,
    major: Option<u32>,
    minor: Option<u32>,
    access: &str,
) -> Option<LinuxDeviceCgroup> {
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access);
    if let Some(major) = major {
        builder = builder.major(i64::from(major));
    }
    if let Some(minor) = minor {
        builder = builder.minor(i64::from(minor));
    }
    builder.build().ok()
}

impl Settings {
    /// Rules about the devices that the container may use; `None` for all devices.
    pub(crate) fn device_rules(&self) -> Result<Option<Vec<DeviceRule>>, EngineError> {
        if self.privileges.privileged {
            return Ok(None);
        }
        let mut rules = default_rules();
        for found in self.found_devices()? {
            let numbers = (u32::try_from(found.node.major()).ok(), u32::try_from(found.node.minor()).ok());
            let rule = rule(found.node.typ(), numbers.0, numbers.1, &found.access);
            rules.extend(rule.as_ref().and_then(DeviceRule::of));
        }
        for node in self.cdi_devices()?.nodes() {
            let numbers = (u32::try_from(node.major()).ok(), u32::try_from(node.minor()).ok());
            rules.extend(rule(node.typ(), numbers.0, numbers.1, ALL).as_ref().and_then(DeviceRule::of));
        }
        rules.extend(self.devices.rules.iter().filter_map(|text| DeviceRule::of(&parse_rule(text)?)));
        Ok(Some(rules))
    }

    /// Devices of the Container Device Interface.
    pub(crate) fn cdi_devices(&self) -> Result<kiln_runtime::cdi::Devices, EngineError> {
        let names: Vec<(String, bool)> = self.devices.cdi.iter().map(|name| (name.clone(), true)).collect();
        Ok(cdi::find(&names).map_err(DeviceError::from)?)
    }

    /// Devices of the host that the container gets nodes of.
    pub(crate) fn found_devices(&self) -> Result<Vec<FoundDevice>, EngineError> {
        if self.privileges.privileged {
            let mut all = Vec::new();
            add_dir(Path::new("/dev"), Path::new("/dev"), ALL, &mut all)?;
            // Devices with another path in the container come last.
            all.extend(
                self.devices
                    .nodes
                    .iter()
                    .filter(|node| node.host != node.inside)
                    .map(find)
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .flatten(),
            );
            return Ok(all);
        }
        let found = self.devices.nodes.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Nodes of a device, or of all devices in a directory.
fn find(wanted: &DeviceNode) -> Result<Vec<FoundDevice>, EngineError> {
    let missing = |_| DeviceError::Missing(wanted.host.clone());
    let host = fs::canonicalize(&wanted.host).map_err(missing)?;
    let inside = Path::new(&wanted.inside);
    let stat = rustix::fs::stat(&host).call("stat", &host)?;
    if let Some(found) = found(&host, inside, &stat, &wanted.access) {
        return Ok(vec![found]);
    }
    let mut all = Vec::new();
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        add_dir(&host, inside, &wanted.access, &mut all)?;
    }
    if all.is_empty() {
        return Err(DeviceError::NotADevice(wanted.host.clone()).into());
    }
    Ok(all)
}

/// Adds the devices in a directory and below; links are left out.
fn add_dir(host: &Path, inside: &Path, access: &str, all: &mut Vec<FoundDevice>) -> Result<(), CallError> {
    let mut entries: Vec<_> = fs::read_dir(host).call("getdents", host)?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if host == Path::new("/dev") && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let (host, inside) = (entry.path(), inside.join(&name));
        // A device that is unplugged meanwhile is none.
        let Ok(stat) = rustix::fs::lstat(&host) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            add_dir(&host, &inside, access, all)?;
        }
        all.extend(found(&host, &inside, &stat, access));
    }
    Ok(())
}

/// Node of a device; `None` for another file.
fn found(host: &Path, inside: &Path, stat: &Stat, access: &str) -> Option<FoundDevice> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => LinuxDeviceType::C,
        FileType::BlockDevice => LinuxDeviceType::B,
        _ => return None,
    };
    let node = LinuxDeviceBuilder::default()
        .path(inside)
        .typ(kind)
        .major(i64::from(major(stat.st_rdev)))
        .minor(i64::from(minor(stat.st_rdev)))
        .file_mode(stat.st_mode & 0o7777)
        .uid(stat.st_uid)
        .gid(stat.st_gid)
        .build()
        .ok()?;
    Some(FoundDevice { node, host: host.to_owned(), access: access.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        let read = |text: &str| {
            let node = device(text).unwrap();
            format!("{} {} {}", node.host, node.inside, node.access)
        };
        assert_eq!(read("/dev/fuse"), "/dev/fuse /dev/fuse rwm");
        assert_eq!(read("/dev/fuse:r"), "/dev/fuse /dev/fuse r");
        assert_eq!(read("/dev/fuse:/dev/x"), "/dev/fuse /dev/x rwm");
        assert_eq!(read("/dev/fuse:/dev/x:mr"), "/dev/fuse /dev/x mr");
        for wrong in ["", "fuse", "/dev/a:b", "/dev/a:/b:x", "/dev/a:/b:rr", "/a:/b:r:w"] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
        assert!(is_cdi_name("nvidia.com/gpu=all") && !is_cdi_name("/dev/a=b"));
        assert_eq!(gpus("device=0,1").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert!(gpus("all").is_ok() && gpus("2").is_err() && gpus("device=").is_err());
    }

    #[test]
    fn rules_are_read() {
        for good in ["c 1:3 rwm", "b *:* m", "a *:1 r"] {
            assert!(device_rule(good).is_ok(), "{good}");
        }
        for wrong in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 x", "c -1:3 r", "c 1:3 rwmr", "c  1:3 r"] {
            assert!(device_rule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nodes_are_those_of_the_host() {
        let node = |path: &str| DeviceNode { host: path.into(), inside: "/dev/x".into(), access: "r".into() };
        let found = find(&node("/dev/null")).unwrap();
        assert_eq!((found[0].node.major(), found[0].node.minor(), found.len()), (1, 3, 1));
        let error = |path: &str| find(&node(path)).err().unwrap().to_string();
        assert!(error("/dev/none").ends_with("no such file or directory"));
        assert!(error("/etc/passwd").ends_with("not a device node"));
    }
}
