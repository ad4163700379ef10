//! Mount sources and device nodes that are opened on the host and passed to the container.

use super::{Request, own_users};
use crate::error::OciError;
use crate::namespaces::{self, Namespace};
use kiln_runtime::cgroup::Groups;
use kiln_runtime::host::{Feature, Host};
use kiln_runtime::op::{IdMaps, IdRange};
use kiln_runtime::{idmap, plan, view};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::path::{Path, PathBuf};

impl Request<'_> {
    /// Mounts that are opened here: those whose source the users of a new namespace could not reach, and id-mapped
    /// ones.
    pub(super) fn sources(&self) -> Result<Vec<(usize, OwnedFd)>, OciError> {
        let spec = &self.bundle.spec;
        let users = own_users(spec);
        let mut opened = Vec::new();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let owners = self.owners(mount)?;
            let (Some(recursive), Some(source)) = (bind(mount), mount.source()) else {
                if owners.is_some() {
                    return Err(OciError::Other(format!(
                        "the mount on `{}` cannot be id-mapped: only bind mounts can",
                        mount.destination().display()
                    )));
                }
                continue;
            };
            // Without the privilege to mount here this is left to the container, which has it, and runs as the same
            // user.
            if owners.is_none() && !(users && rustix::process::geteuid().is_root()) {
                continue;
            }
            let path = self.bundle.dir.join(source);
            let has = |name: &str| mount.options().iter().flatten().any(|option| option == name);
            if has("copy-symlink") && path.is_symlink() {
                continue;
            }
            let copy = if has("src-nofollow") { view::copy_nofollow } else { view::copy };
            let handle = copy(&path, recursive)
                .map_err(|errno| OciError::file("open the mount source", &path)(errno.into()))?;
            // The copy is in the peer group of the host's mount, so that mounts in the container would propagate unless
            // it is made private.
            let peers = ["shared", "rshared", "slave", "rslave"];
            let handle = if peers.into_iter().any(has) {
                handle
            } else {
                view::cut_off(handle)
                    .map_err(|errno| OciError::file("cut off the mount source", &path)(errno.into()))?
            };
            if let Some(owners) = owners {
                let recursive = mount.options().iter().flatten().any(|option| option == "ridmap");
                view::map_owners(handle.as_fd(), owners.as_fd(), recursive)
                    .map_err(|errno| unmappable(&path, &handle, errno))?;
            }
            opened.push((index, handle));
        }
        Ok(opened)
    }

    /// Existing user namespace that the container enters. `None` for a new one, or the host's.
    fn joined_users(&self) -> Result<Option<OwnedFd>, OciError> {
        let users = namespaces::of(&self.bundle.spec, LinuxNamespaceType::User);
        let Some(Namespace::Joined(path)) = users else { return Ok(None) };
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        namespace.map(Some).map_err(|errno| OciError::file("open", path)(errno.into()))
    }

    /// User namespace that maps the owners of a mount's files. `None` without id mapping.
    fn owners(&self, mount: &Mount) -> Result<Option<OwnedFd>, OciError> {
        let options = mount.options().as_deref().unwrap_or_default();
        let wanted = options.iter().any(|option| option == "idmap" || option == "ridmap");
        let linux = self.bundle.spec.linux().as_ref();
        let own = |list: &Option<Vec<LinuxIdMapping>>| list.clone().filter(|list| !list.is_empty());
        let (users, groups) = (own(mount.uid_mappings()), own(mount.gid_mappings()));
        if users.is_none() && groups.is_none() && !wanted {
            return Ok(None);
        }
        if users.is_none()
            && groups.is_none()
            && let Some(joined) = self.joined_users()?
        {
            return Ok(Some(joined));
        }
        let users = users.or_else(|| linux.and_then(|linux| own(linux.uid_mappings())));
        let groups = groups.or_else(|| linux.and_then(|linux| own(linux.gid_mappings())));
        let (Some(users), Some(groups)) = (users, groups) else {
            return Err(OciError::Other(format!(
                "the mount on `{}` needs both uidMappings and gidMappings to be id-mapped",
                mount.destination().display()
            )));
        };
        let maps = IdMaps { users: ranges(&users), groups: ranges(&groups) };
        idmap::namespace(&maps).map(Some).map_err(OciError::Other)
    }

    /// Device nodes for a container in a user namespace, which cannot create any, and for one without cgroups, which
    /// cannot open those that it creates.
    pub(super) fn nodes(&self, groups: &Groups) -> Result<Vec<(PathBuf, OwnedFd)>, OciError> {
        let spec = &self.bundle.spec;
        let unguarded = groups.is_none();
        if !own_users(spec) && !unguarded || self.nested || !rustix::process::geteuid().is_root() {
            return Ok(Vec::new());
        }
        let linux = spec.linux().as_ref();
        let outside = |list: Option<&Vec<LinuxIdMapping>>, id: u32| {
            if list.is_none_or(Vec::is_empty) {
                return Some(id);
            }
            let range = list
                .into_iter()
                .flatten()
                .find(|one| id.checked_sub(one.container_id()).is_some_and(|offset| offset < one.size()));
            range.and_then(|one| one.host_id().checked_add(id - one.container_id()))
        };
        let mut paths = Vec::new();
        let mut nodes = Vec::new();
        for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
            let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
            let owner = (
                outside(linux.and_then(|linux| linux.uid_mappings().as_ref()), uid),
                outside(linux.and_then(|linux| linux.gid_mappings().as_ref()), gid),
            );
            let (Some(uid), Some(gid)) =
                (owner.0.filter(|id| *id != u32::MAX), owner.1.filter(|id| *id != u32::MAX))
            else {
                return Err(OciError::Other(format!(
                    "the owner {uid}:{gid} of device `{}` is not mapped in the container",
                    device.path().display()
                )));
            };
            let number = |value: i64| u32::try_from(value).unwrap_or(0);
            paths.push(device.path().clone());
            nodes.push(view::Node {
                kind: device.typ().as_str().chars().next().unwrap_or('c'),
                device: (number(device.major()), number(device.minor())),
                mode: device.file_mode().unwrap_or(0o666) & 0o7777,
                owner: (uid, gid),
            });
        }
        let dev_is_own = spec.mounts().iter().flatten().any(|mount| mount.destination() == Path::new("/dev"));
        if unguarded && dev_is_own {
            let owner = (
                outside(linux.and_then(|linux| linux.uid_mappings().as_ref()), 0).unwrap_or(0),
                outside(linux.and_then(|linux| linux.gid_mappings().as_ref()), 0).unwrap_or(0),
            );
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
        let made = view::nodes(&nodes).map_err(|error| OciError::Other(error.to_string()))?;
        Ok(paths.into_iter().zip(made).collect())
    }
}

/// True when a bind mount includes the mounts below its source. `None` when it is not a bind mount.
fn bind(mount: &Mount) -> Option<bool> {
    let options = mount.options().as_deref().unwrap_or_default();
    if options.iter().any(|option| option == "rbind") {
        return Some(true);
    }
    let is_bind = mount.typ().as_deref() == Some("bind") || options.iter().any(|option| option == "bind");
    is_bind.then_some(false)
}

fn ranges(list: &[LinuxIdMapping]) -> Vec<IdRange> {
    list.iter()
        .map(|one| IdRange { inside: one.container_id(), outside: one.host_id(), count: one.size() })
        .collect()
}

/// Error for an id mapping that failed; which file systems support it depends on the kernel.
fn unmappable(path: &Path, handle: &OwnedFd, errno: rustix::io::Errno) -> OciError {
    if errno == rustix::io::Errno::NOSYS {
        return OciError::Other(format!(
            "the owners of files on `{}` cannot be mapped: {}",
            path.display(),
            Host::get().needs(Feature::IdmappedMounts)
        ));
    }
    if errno != rustix::io::Errno::INVAL {
        return OciError::file("map the owners of", path)(errno.into());
    }
    OciError::Other(format!(
        "the owners of files on `{}` cannot be mapped: its file system ({}) does not support that on this kernel",
        path.display(),
        filesystem_of(handle)
    ))
}

/// Type of a file system from the mount table; its magic number where the table lacks it.
fn filesystem_of(handle: &OwnedFd) -> String {
    let device = rustix::fs::fstat(handle).map_or(0, |stat| stat.st_dev);
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = table.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_it = mount.split(' ').nth(2) == Some(&device);
        is_it.then(|| filesystem.split(' ').next().unwrap_or_default().to_owned())
    });
    let number = || rustix::fs::fstatfs(handle).map_or(0, |statfs| statfs.f_type);
    name.unwrap_or_else(|| format!("type {:#x}", number()))
}
