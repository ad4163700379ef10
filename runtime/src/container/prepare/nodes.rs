//! Device nodes that are created on the host and passed to the container.

use super::{Preparation, PrepareError};
use crate::cgroup::Groups;
use crate::{plan, view};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxIdMapping};
use rustix::fd::OwnedFd;
use std::path::{Path, PathBuf};

impl Preparation<'_> {
    /// Device nodes for a container in a user namespace, which cannot create any, and for one without cgroups, which
    /// cannot open those that it creates; each with its path in the container.
    ///
    /// Only for programs with one thread, as [`view::nodes`] is.
    ///
    /// # Errors
    /// Fails when a node's owner is not mapped in the container, and when the nodes cannot be created.
    pub fn nodes(&self, groups: &Groups) -> Result<Vec<(PathBuf, OwnedFd)>, PrepareError> {
        let is_exclusive = groups.is_none();
        if !self.has_user_namespace() && !is_exclusive
            || self.is_nested
            || !rustix::process::geteuid().is_root()
        {
            return Ok(Vec::new());
        }
        let owners = Owners(self.spec.linux().as_ref());
        let devices = owners.0.and_then(|linux| linux.devices().as_ref()).into_iter().flatten();
        let mut paths = Vec::new();
        let mut nodes = Vec::new();
        for device in devices {
            paths.push(device.path().clone());
            nodes.push(owners.node(device)?);
        }
        let mut mounts = self.spec.mounts().iter().flatten();
        if is_exclusive && mounts.any(|mount| mount.destination() == Path::new("/dev")) {
            let owner = (owners.uid(0).unwrap_or(0), owners.gid(0).unwrap_or(0));
            for (name, major, minor) in plan::STANDARD_DEVICES {
                let path = Path::new("/dev").join(name);
                if !paths.contains(&path) {
                    paths.push(path);
                    nodes.push(view::Node { kind: 'c', device: (major, minor), mode: 0o666, owner });
                }
            }
        }
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(paths.into_iter().zip(view::nodes(&nodes)?).collect())
    }
}

/// Id maps of the container's user namespace.
struct Owners<'a>(Option<&'a Linux>);

impl Owners<'_> {
    /// Uid on the host; `None` when it is not mapped.
    fn uid(&self, id: u32) -> Option<u32> {
        outside(self.0.and_then(|linux| linux.uid_mappings().as_ref()), id)
    }

    /// Gid on the host; `None` when it is not mapped.
    fn gid(&self, id: u32) -> Option<u32> {
        outside(self.0.and_then(|linux| linux.gid_mappings().as_ref()), id)
    }

    fn node(&self, device: &LinuxDevice) -> Result<view::Node, PrepareError> {
        let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        let is_id = |id: &u32| *id != u32::MAX;
        let (Some(outer_uid), Some(outer_gid)) = (self.uid(uid).filter(is_id), self.gid(gid).filter(is_id))
        else {
            return Err(PrepareError::DeviceOwner { path: device.path().clone(), uid, gid });
        };
        let number = |value: i64| u32::try_from(value).unwrap_or(0);
        Ok(view::Node {
            kind: device.typ().as_str().chars().next().unwrap_or('c'),
            device: (number(device.major()), number(device.minor())),
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (outer_uid, outer_gid),
        })
    }
}

/// Id outside of a namespace with the map `list`; `None` when the map lacks it. An empty map is that of the host.
fn outside(list: Option<&Vec<LinuxIdMapping>>, id: u32) -> Option<u32> {
    if list.is_none_or(Vec::is_empty) {
        return Some(id);
    }
    let has_id =
        |one: &&LinuxIdMapping| id.checked_sub(one.container_id()).is_some_and(|offset| offset < one.size());
    let range = list.into_iter().flatten().find(has_id)?;
    range.host_id().checked_add(id - range.container_id())
}
