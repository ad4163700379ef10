//! Mount sources that are opened on the host and passed to the container.

use super::{Preparation, PrepareError};
use crate::host::{Feature, Host};
use crate::namespaces::{self, Namespace};
use crate::op::{IdMaps, IdRange};
use crate::{idmap, view};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

impl Preparation<'_> {
    /// Opens mounts whose source the users of a new namespace could not reach, and id-mapped ones; each with its index
    /// in the specification.
    ///
    /// # Errors
    /// Fails when a source cannot be opened, and when the owners of its files cannot be mapped.
    pub fn sources(&self) -> Result<Vec<(usize, OwnedFd)>, PrepareError> {
        let spec = self.spec;
        let users = self.has_user_namespace();
        let mut opened = Vec::new();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let owners = self.owners(mount)?;
            let (Some(recursive), Some(source)) = (bind(mount), mount.source()) else {
                if owners.is_some() {
                    return Err(PrepareError::NotBind(mount.destination().clone()));
                }
                continue;
            };
            // Without the privilege to mount here this is left to the container, which has it, and runs as the same
            // user.
            if owners.is_none() && !(users && rustix::process::geteuid().is_root()) {
                continue;
            }
            let path = self.bundle.join(source);
            let has = |name: &str| mount.options().iter().flatten().any(|option| option == name);
            if has("copy-symlink") && path.is_symlink() {
                continue;
            }
            let copy = if has("src-nofollow") { view::copy_nofollow } else { view::copy };
            let handle =
                copy(&path, recursive).map_err(PrepareError::file("open the mount source", &path))?;
            // The copy is in the peer group of the host's mount, so that mounts in the container would propagate unless
            // it is made private.
            let peers = ["shared", "rshared", "slave", "rslave"];
            let handle = if peers.into_iter().any(has) {
                handle
            } else {
                view::cut_off(handle).map_err(PrepareError::file("cut off the mount source", &path))?
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
    fn joined_users(&self) -> Result<Option<OwnedFd>, PrepareError> {
        let users = namespaces::of(self.spec, LinuxNamespaceType::User);
        let Some(Namespace::Joined(path)) = users else { return Ok(None) };
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        namespace.map(Some).map_err(PrepareError::file("open", path))
    }

    /// User namespace that maps the owners of a mount's files. `None` without id mapping.
    fn owners(&self, mount: &Mount) -> Result<Option<OwnedFd>, PrepareError> {
        let options = mount.options().as_deref().unwrap_or_default();
        let wanted = options.iter().any(|option| option == "idmap" || option == "ridmap");
        let linux = self.spec.linux().as_ref();
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
            return Err(PrepareError::NoMaps(mount.destination().clone()));
        };
        let maps = IdMaps { users: ranges(&users), groups: ranges(&groups) };
        Ok(Some(idmap::namespace(&maps)?))
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
fn unmappable(path: &Path, handle: &OwnedFd, errno: Errno) -> PrepareError {
    let reason = match errno {
        Errno::NOSYS => Host::get().needs(Feature::IdmappedMounts),
        Errno::INVAL => {
            format!("its file system ({}) does not support that on this kernel", filesystem_of(handle))
        }
        errno => return PrepareError::file("map the owners of", path)(errno),
    };
    PrepareError::Unmappable { path: path.to_owned(), reason }
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
