//! Further processes in a running container: its namespaces, and the cgroups that they enter.

use crate::cgroup::{CgroupError, Groups};
use crate::view;
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::path::{Component, Path, PathBuf};

/// All kinds of namespaces: the file below /proc/PID/ns, and the `CLONE_NEW…` bit (namespaces(7)).
const NAMESPACES: [(&str, LinuxNamespaceType); 8] = [
    ("user", LinuxNamespaceType::User),
    ("mnt", LinuxNamespaceType::Mount),
    ("pid", LinuxNamespaceType::Pid),
    ("net", LinuxNamespaceType::Network),
    ("ipc", LinuxNamespaceType::Ipc),
    ("uts", LinuxNamespaceType::Uts),
    ("cgroup", LinuxNamespaceType::Cgroup),
    ("time", LinuxNamespaceType::Time),
];

/// Namespaces of a process that differ from those of this process, as `CLONE_NEW…` bits.
pub fn other_namespaces(pid: i32) -> u64 {
    let differs = |name: &str| {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}"));
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{name}"));
        matches!((own, theirs), (Ok(own), Ok(theirs)) if own != theirs)
    };
    NAMESPACES.iter().filter(|(name, _)| differs(name)).fold(0, |bits, (_, kind)| bits | *kind as u64)
}

/// True once a container's init process has made the container's root its own. Until then a process that entered its
/// mount namespace would be in the host's root. False for a process that has ended.
pub fn has_own_root(pid: i32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let root =
        |pid: &str| std::fs::metadata(format!("/proc/{pid}/root/.")).map(|root| (root.dev(), root.ino()));
    matches!((root("self"), root(&pid.to_string())), (Ok(own), Ok(theirs)) if own != theirs)
}

/// Cgroups that a further process enters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryCgroups {
    /// Version 2 cgroup in which the process is created.
    born_in: Option<PathBuf>,
    /// Version 1 cgroups to which its parent moves it.
    moved_to: Vec<PathBuf>,
}

/// A cgroup below the container's cgroup that a further process is to enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubCgroup {
    /// Version 1 controller of the cgroup; `None` for all controllers and version 2.
    pub controller: Option<String>,
    /// Path below the container's cgroup.
    pub path: PathBuf,
}

/// Failure to enter a cgroup below the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubCgroupError {
    /// The container has no cgroup of that controller.
    #[error("unknown controller {0}")]
    Controller(String),
    /// The path leads out of the container's cgroup.
    #[error("bad sub cgroup path: {path} is not a sub cgroup path", path = .0.display())]
    Path(PathBuf),
}

impl EntryCgroups {
    /// Finds the cgroups of the container whose init process is `pid`, or the cgroups `below` them. Of several entries
    /// for one controller the first counts, and an entry for a controller precedes one for all.
    ///
    /// # Errors
    /// Fails for entries of `below` with a controller of which the container has no cgroup, and for paths with `..`.
    pub fn new(groups: &Groups, pid: i32, below: &[SubCgroup]) -> Result<EntryCgroups, SubCgroupError> {
        let known = groups.paths();
        let is_known = |name: &str| known.iter().any(|(controller, _)| *controller == name);
        let named = below.iter().filter_map(|sub| sub.controller.as_deref());
        if let Some(unknown) = named.into_iter().find(|name| !is_known(name)) {
            return Err(SubCgroupError::Controller(unknown.to_owned()));
        }
        let mut entry = EntryCgroups::default();
        for (controller, dir) in known {
            if controller.is_empty() {
                // On hosts with both versions the paths are those of version 1.
                let is_hybrid = groups.needs_attach() && !below.is_empty();
                let path = if is_hybrid { dir.to_owned() } else { choose(below, "", dir)? };
                entry.born_in = Some(path);
            } else {
                let path = choose(below, controller, dir)?;
                if !entry.moved_to.contains(&path) {
                    entry.moved_to.push(path);
                }
            }
        }
        if below.is_empty()
            && let Some(dir) = &entry.born_in
            && hands_down_controllers(dir)
            && let Some(inner) = cgroup_of(pid, dir)
        {
            entry.born_in = Some(inner);
        }
        Ok(entry)
    }

    /// True when the parent moves the process ([`super::ParentWork::CGROUPS`]).
    pub fn needs_parent(&self) -> bool {
        !self.moved_to.is_empty()
    }

    /// Opens the version 2 cgroup; `None` when the container has no such cgroup.
    ///
    /// Until the new process has closed the directory, processes of the container that may inspect other processes can
    /// reach it: no path leads out of a confined directory (CVE-2024-21626). Where this process lacks the privileges to
    /// confine it, processes of the container lack the privileges to reach it.
    ///
    /// # Errors
    /// Fails when the directory cannot be opened.
    pub fn open(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| {
            view::open_confined(path)
                .or_else(|_| rustix::fs::open(path, flags, Mode::empty()))
                .map_err(|errno| CgroupError::file("open", path)(errno.into()))
        };
        self.born_in.as_ref().map(open).transpose()
    }

    /// Moves a process to the version 1 cgroups.
    ///
    /// # Errors
    /// Fails at the first cgroup that refuses the process.
    pub fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        self.moved_to.iter().try_for_each(|dir| {
            let path = dir.join("cgroup.procs");
            std::fs::write(&path, pid.to_string()).map_err(CgroupError::file("write", &path))
        })
    }
}

fn choose(below: &[SubCgroup], controller: &str, dir: &Path) -> Result<PathBuf, SubCgroupError> {
    let own = below.iter().find(|sub| sub.controller.as_deref() == Some(controller));
    let Some(sub) = own.or_else(|| below.iter().find(|sub| sub.controller.is_none())) else {
        return Ok(dir.to_owned());
    };
    let inner = sub.path.strip_prefix("/").unwrap_or(&sub.path);
    match inner.components().any(|part| part == Component::ParentDir) {
        true => Err(SubCgroupError::Path(sub.path.clone())),
        false => Ok(dir.join(inner)),
    }
}

/// True for a version 2 cgroup that enabled controllers for its children: it accepts no processes itself.
fn hands_down_controllers(dir: &Path) -> bool {
    let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control"));
    enabled.is_ok_and(|controllers| !controllers.trim().is_empty())
}

/// Version 2 cgroup of a process; `None` when it is not below `dir`.
fn cgroup_of(pid: i32, dir: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let name = dir.file_name()?.to_str()?;
    let below = path.split_once(&format!("/{name}/"))?.1;
    Some(dir.join(below)).filter(|path| path.is_dir())
}
