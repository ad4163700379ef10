//! Objects of the host that a container's specification requests: cgroups, mount sources, device nodes.

mod cgroups;
mod nodes;
mod sources;

pub use cgroups::{CgroupRequest, Notice, cgroup_place, check_device_rules};

use crate::cgroup::{self, CgroupError, DeviceRule, Groups};
use crate::container::{DeviceNodes, Entry};
use crate::idmap::IdMapError;
use crate::namespaces::{self, Namespace};
use crate::op::describe_errno;
use crate::view::ViewError;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Failure to prepare the host for a container.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The path of the cgroups is the root of the hierarchy, which has other processes.
    #[error("`cgroupsPath` names no group of the container's own: it is the top of all groups")]
    RootCgroup,
    /// The cgroups exist and are frozen.
    #[error("container's cgroup unexpectedly frozen: the container would never start")]
    Frozen,
    /// The cgroups cannot be created.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// The access of a device rule consists of unknown letters.
    #[error("a rule about devices has the access {0:?}: it consists of `r`, `w` and `m`")]
    DeviceAccess(String),
    /// An operation on a mount source or a namespace failed.
    #[error("cannot {what} `{path}`: {reason}", path = path.display(), reason = describe_errno(errno.raw_os_error()))]
    File {
        /// Operation, as a verb.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the call.
        errno: Errno,
    },
    /// An id-mapped mount that is not a bind mount; the path is its target.
    #[error("the mount on `{path}` cannot be id-mapped: only bind mounts can", path = .0.display())]
    NotBind(PathBuf),
    /// An id-mapped mount without a map for users or for groups; the path is its target.
    #[error("the mount on `{path}` needs both uidMappings and gidMappings to be id-mapped", path = .0.display())]
    NoMaps(PathBuf),
    /// The user namespace of an id-mapped mount cannot be created.
    #[error("{0}")]
    IdMap(#[from] IdMapError),
    /// The owners of a mount source cannot be mapped.
    #[error("the owners of files on `{path}` cannot be mapped: {reason}", path = path.display())]
    Unmappable {
        /// Path of the mount source.
        path: PathBuf,
        /// What the kernel or the file system lacks.
        reason: String,
    },
    /// The owner of a device node has no id in the container's user namespace.
    #[error("the owner {uid}:{gid} of device `{path}` is not mapped in the container", path = path.display())]
    DeviceOwner {
        /// Path of the node in the container.
        path: PathBuf,
        /// Uid in the container.
        uid: u32,
        /// Gid in the container.
        gid: u32,
    },
    /// Device nodes cannot be created.
    #[error("{0}")]
    Nodes(#[from] ViewError),
}

impl PrepareError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> PrepareError {
        let path = path.to_owned();
        move |errno| PrepareError::File { what, path, errno }
    }
}

/// Preparation of the host for one container.
#[derive(Clone, Copy, Debug)]
pub struct Preparation<'a> {
    /// Specification of the container.
    pub spec: &'a Spec,
    /// Directory to which its relative mount sources refer.
    pub bundle: &'a Path,
    /// True when this process is in a user namespace ([`crate::host::Host::is_nested`]), and cannot set device rules.
    pub is_nested: bool,
}

impl Preparation<'_> {
    /// Way in which the container's process enters its cgroups: by itself when it has the privileges and the paths of
    /// this process.
    pub fn entry(&self) -> Entry {
        let mounts = namespaces::of(self.spec, LinuxNamespaceType::Mount);
        let is_alike = !self.has_user_namespace() && mounts == Some(Namespace::New);
        if is_alike { Entry::BySelf } else { Entry::ByParent }
    }

    /// Way in which the container's device nodes are created.
    pub fn device_nodes(&self, groups: &Groups) -> DeviceNodes {
        if !self.is_nested && groups.is_none() {
            DeviceNodes::Exclusive
        } else if self.has_user_namespace() || self.is_nested {
            DeviceNodes::Bound
        } else {
            DeviceNodes::Made
        }
    }

    /// True when rules of the container's cgroups control access to devices.
    pub fn has_device_rules(&self, groups: &Groups) -> bool {
        !self.is_nested && !groups.paths().is_empty()
    }

    /// Sets the device rules of the specification, and those for the devices that every container may use; once before
    /// the start, and with the version 2 cgroup once the process exists. Does nothing for cgroups that do not need that
    /// call.
    ///
    /// Version 1 rules must be complete before the process enters the cgroup by itself: they would refuse the nodes that
    /// it creates.
    ///
    /// # Errors
    /// Fails when the kernel refuses the rules.
    pub fn restrict_devices(&self, groups: &Groups, time: RestrictAt<'_>) -> Result<(), CgroupError> {
        let is_legacy = groups.path_of("devices").is_some();
        let unified = match time {
            _ if !self.has_device_rules(groups) => return Ok(()),
            RestrictAt::Start if is_legacy => None,
            RestrictAt::Process(unified) if !is_legacy => unified,
            _ => return Ok(()),
        };
        let listed =
            self.resources().and_then(|resources| resources.devices().as_ref()).into_iter().flatten();
        let mut rules: Vec<DeviceRule> = listed.filter_map(DeviceRule::of).collect();
        rules.extend(cgroup::default_rules());
        groups.restrict(unified, &rules)
    }

    /// True when the container has a user namespace other than the host's.
    fn has_user_namespace(&self) -> bool {
        namespaces::of(self.spec, LinuxNamespaceType::User).is_some()
    }

    fn resources(&self) -> Option<&LinuxResources> {
        self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
    }
}

/// Time at which device rules are set.
#[derive(Clone, Copy, Debug)]
pub enum RestrictAt<'a> {
    /// Before the process exists.
    Start,
    /// When the process exists; with the directory of its version 2 cgroup, if it was created in one.
    Process(Option<BorrowedFd<'a>>),
}
