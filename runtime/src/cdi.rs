//! Devices as the Container Device Interface describes them (CDI specification 0.8).

use crate::{spec as runtime_spec, view};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount, Spec};
use rustix::fd::OwnedFd;
use rustix::fs::{fstat, major, minor, stat};
use rustix::io::Errno;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Directories of device descriptions; later directories take precedence.
const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Changes that devices make to a container.
#[derive(Debug, Default)]
pub struct Devices {
    environment: Vec<String>,
    nodes: Vec<LinuxDevice>,
    /// Paths on the host of these nodes.
    sources: Vec<PathBuf>,
    /// Files and directories of the host that the container sees.
    pub mounts: Vec<Mount>,
}

/// A device that a container cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {name} is not available: {reason}")]
pub struct CdiError {
    /// Name of the device, or path of its node.
    pub name: String,
    /// Reason why it cannot be used.
    pub reason: String,
}

impl CdiError {
    fn new(name: impl Into<String>, reason: impl Into<String>) -> CdiError {
        CdiError { name: name.into(), reason: reason.into() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Description {
    kind: String,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Shown>,
    /// Programs to run before the container's; they are not supported.
    hooks: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: Option<String>,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shown {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

/// Finds the devices of `names` (`vendor.com/class=device`, `…=*`, or the class alone). A missing device is skipped
/// unless it is required.
///
/// # Errors
/// [`CdiError`] with the first device that is missing or cannot be used.
pub fn find(names: &[(String, bool)]) -> Result<Devices, CdiError> {
    if names.is_empty() { Ok(Devices::default()) } else { find_in(&descriptions(), names) }
}

fn find_in(descriptions: &[Description], names: &[(String, bool)]) -> Result<Devices, CdiError> {
    let mut devices = Devices::default();
    for (name, required) in names {
        let (kind, wanted) = name.split_once('=').unwrap_or((name, ""));
        let mut found = false;
        for description in descriptions.iter().filter(|description| description.kind == kind) {
            let chosen = description.devices.iter().filter(|device| match wanted {
                "*" => true,
                // A class alone selects its first device.
                "" => std::ptr::eq(*device, &description.devices[0]),
                wanted => device.name == wanted,
            });
            for device in chosen {
                if !std::mem::replace(&mut found, true) {
                    devices.add(name, &description.container_edits)?;
                }
                devices.add(name, &device.container_edits)?;
            }
        }
        if !found && *required {
            return Err(CdiError::new(name, "nothing describes it"));
        }
    }
    Ok(devices)
}

fn descriptions() -> Vec<Description> {
    let files = DIRS.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| read(path, &std::fs::read_to_string(path).ok()?)).collect()
}

/// Parses a description; `None` for a file that is not a valid one.
fn read(path: &Path, text: &str) -> Option<Description> {
    match path.extension()?.to_str()? {
        "json" => serde_json::from_str(text).ok(),
        "yaml" | "yml" => serde_saphyr::from_str(text).ok(),
        _ => None,
    }
}

impl Devices {
    fn add(&mut self, name: &str, edits: &Edits) -> Result<(), CdiError> {
        if !edits.hooks.is_empty() {
            return Err(CdiError::new(name, "its description has hooks, which are not supported"));
        }
        self.environment.extend(edits.env.iter().cloned());
        for node in &edits.device_nodes {
            self.nodes.push(node.read()?);
            self.sources.push(PathBuf::from(node.source()));
        }
        for shown in &edits.mounts {
            let options: Vec<&str> = shown.options.iter().map(String::as_str).collect();
            self.mounts.push(runtime_spec::bind(
                PathBuf::from(&shown.host_path),
                &shown.container_path,
                &options,
            ));
        }
        Ok(())
    }

    /// Host nodes by their paths in the container, for a container that cannot create nodes itself.
    ///
    /// # Errors
    /// [`CdiError`] for a node that is gone, or has become another device.
    pub fn host_nodes(&self) -> Result<Vec<(PathBuf, OwnedFd)>, CdiError> {
        let handed = self.nodes.iter().zip(&self.sources).map(|(device, source)| {
            let name = device.path().display().to_string();
            let failed = |errno: Errno| CdiError::new(&name, std::io::Error::from(errno).to_string());
            let node = view::host_node(source).map_err(failed)?;
            let found = fstat(&node).map_err(failed)?.st_rdev;
            if (i64::from(major(found)), i64::from(minor(found))) != (device.major(), device.minor()) {
                return Err(CdiError::new(
                    &name,
                    format!("`{}` was replaced by another device", source.display()),
                ));
            }
            Ok((device.path().clone(), node))
        });
        handed.collect()
    }

    /// Nodes in the container.
    pub fn nodes(&self) -> &[LinuxDevice] {
        &self.nodes
    }

    /// Adds variables and nodes to a specification.
    pub fn add_to(&self, spec: &mut Spec) {
        if let Some(process) = spec.process_mut() {
            process.env_mut().get_or_insert_default().extend(self.environment.iter().cloned());
        }
        if let Some(linux) = spec.linux_mut() {
            linux.devices_mut().get_or_insert_default().extend(self.nodes.iter().cloned());
        }
    }
}

impl Node {
    /// Path of the node on the host.
    fn source(&self) -> &str {
        self.host_path.as_deref().unwrap_or(&self.path)
    }

    fn read(&self) -> Result<LinuxDevice, CdiError> {
        let host = self.source();
        let mut device = device_at(Path::new(host), &self.path)
            .ok_or_else(|| CdiError::new(&self.path, format!("`{host}` is no device")))?;
        if let Some(mode) = self.file_mode {
            device.set_file_mode(Some(mode));
        }
        device.set_uid(self.uid).set_gid(self.gid);
        Ok(device)
    }
}

/// A device of the host for a path in the container; `None` when the host path is not a device.
pub fn device_at(host: &Path, path: &str) -> Option<LinuxDevice> {
    let stat = stat(host).ok()?;
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::CharacterDevice => LinuxDeviceType::C,
        rustix::fs::FileType::BlockDevice => LinuxDeviceType::B,
        _ => return None,
    };
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from(path))
        .set_typ(kind)
        .set_major(i64::from(major(stat.st_rdev)))
        .set_minor(i64::from(minor(stat.st_rdev)))
        .set_file_mode(Some(stat.st_mode & 0o7777));
    Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"cdiVersion":"0.6.0","kind":"vendor.com/net","devices":[{"name":"a","containerEdits":
        {"deviceNodes":[{"path":"/dev/a","hostPath":"/dev/null","fileMode":384}],"env":["A=1"]}},
        {"name":"b","containerEdits":{"mounts":[{"hostPath":"/usr","containerPath":"/b","options":["ro"]}]}}],
        "containerEdits":{"env":["ALL=1"]}}"#;
    const YAML: &str = "cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/zero\n";

    fn all() -> Vec<Description> {
        [("x.json", JSON), ("y.yaml", YAML), ("z.txt", JSON), ("w.json", "{")]
            .iter()
            .filter_map(|(name, text)| read(Path::new(name), text))
            .collect()
    }

    fn find(name: &str, required: bool) -> Result<Devices, CdiError> {
        find_in(&all(), &[(name.to_owned(), required)])
    }

    #[test]
    fn devices_are_found_by_name_class_and_star() {
        let one = find("vendor.com/net=a", true).unwrap();
        assert_eq!(one.environment, ["ALL=1", "A=1"]);
        assert_eq!((one.nodes[0].path().to_str(), one.nodes[0].file_mode()), (Some("/dev/a"), Some(0o600)));
        assert_eq!(one.sources, [Path::new("/dev/null")]);
        let every = find("vendor.com/net=*", true).unwrap();
        assert_eq!((every.nodes.len(), every.mounts.len()), (1, 1));
        assert_eq!(find("vendor.com/net", true).unwrap().nodes.len(), 1);
        assert_eq!(find("vendor.com/gpu=0", true).unwrap().nodes[0].path(), Path::new("/dev/zero"));
        assert!(find("vendor.com/gpu=7", false).unwrap().nodes.is_empty());
        assert!(find("vendor.com/gpu=7", true).is_err());
    }

    #[test]
    fn hooks_are_refused() {
        let json = r#"{"kind":"v.com/c","devices":[{"name":"a","containerEdits":{"hooks":[{"hookName":"createContainer"}]}}]}"#;
        let all: Vec<Description> = read(Path::new("x.json"), json).into_iter().collect();
        let error = find_in(&all, &[("v.com/c=a".to_owned(), true)]).unwrap_err();
        assert!(error.reason.contains("hooks"), "{error}");
    }
}
