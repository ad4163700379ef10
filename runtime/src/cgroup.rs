//! Cgroups, version 1, 2 and both at once, behind one small interface.
//!
//! A container gets cgroups only where they are needed: for limits, statistics, or device rules. On hosts with both
//! versions ("hybrid") each controller is used where it is mounted.

mod device;
mod groups;
mod layout;
mod limits;
mod memory;
pub mod stats;

pub use device::{DeviceAccess, DeviceRule, default_rules};
pub use groups::{Extent, Groups, Place};
pub use layout::{Layout, LegacyMount};
pub use memory::OutOfMemory;

use crate::op::describe_errno;
use oci_spec::runtime::LinuxResources;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tracing::debug;

/// Failure to create, limit or remove a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A call on a file or directory of the hierarchy failed.
    #[error("cannot {what} `{path}`: {reason}", path = path.display(), reason = describe_errno(*errno))]
    File {
        /// Operation, as a verb.
        what: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Errno of the call.
        errno: i32,
    },
    /// A limit needs a controller that the host does not have.
    #[error("the limit `{limit}` needs the cgroup controller `{controller}`, which this host does not have")]
    NoController {
        /// Name of the limit.
        limit: &'static str,
        /// Name of the missing controller.
        controller: &'static str,
    },
    /// A setting names a file that does not exist.
    #[error(
        "invalid configuration: the control group file `{0}` of `unified` does not exist on this host (its controller is not one of version 2 here, or has no such setting)"
    )]
    NoFile(String),
    /// A process in the cgroup does not end.
    #[error("the control group `{path}` still holds processes, so it cannot be removed", path = .0.display())]
    Busy(PathBuf),
    /// The kernel refuses device filters.
    #[error("cannot restrict devices: {reason}", reason = describe_errno(*.0))]
    Devices(i32),
}

impl CgroupError {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
        let path = path.to_owned();
        move |error| CgroupError::File { what, path, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

/// Cgroups that this process creates for its children. Removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    groups: Groups,
    /// Directory in the version 2 hierarchy; `None` without one.
    dir: Option<OwnedFd>,
}

impl Cgroup {
    /// Creates the cgroup `name` below the caller's own, with the limits of `resources`.
    ///
    /// It has a directory in each version 1 hierarchy, the part of it that a container can see. Where those cannot be
    /// created, it has directories only in the hierarchies that limits need. With `devices`, access to devices is
    /// restricted to the harmless ones (this needs only a version 2 directory, whichever hierarchies are mounted).
    ///
    /// # Errors
    /// [`CgroupError::NoController`] for a limit without its controller, [`CgroupError::File`] when the kernel refuses
    /// a cgroup or a value, [`CgroupError::Devices`] when it refuses the device filter.
    pub fn create(
        layout: &Layout,
        name: &str,
        resources: Option<&LinuxResources>,
        devices: bool,
    ) -> Result<Cgroup, CgroupError> {
        let (most, least) =
            if devices { (Extent::All, Extent::Unified) } else { (Extent::Legacy, Extent::Limits) };
        let create = |extent| Groups::create(layout, &Place { path: name.into(), extent }, resources);
        let fewer = |error| {
            debug!(name, error = %error, "cgroups only where limits need them");
            create(least)
        };
        let cgroup = Cgroup { groups: create(most).or_else(fewer)?, dir: None };
        cgroup.with_rules(devices.then(default_rules).as_deref())
    }

    /// Creates the cgroup `path` of a container, with the limits of `resources`: below the caller's own, or below the
    /// mount of each hierarchy when the path is absolute. Access to devices is restricted to those of `rules`; `None`
    /// restricts nothing.
    ///
    /// # Errors
    /// Fails in the cases of [`Cgroup::create`].
    pub fn for_container(
        layout: &Layout,
        path: &Path,
        resources: Option<&LinuxResources>,
        rules: Option<&[DeviceRule]>,
    ) -> Result<Cgroup, CgroupError> {
        let create = |extent| Groups::create(layout, &Place { path: path.to_owned(), extent }, resources);
        let groups = create(Extent::All).or_else(|_| create(Extent::Unified))?;
        Cgroup { groups, dir: None }.with_rules(rules)
    }

    /// Opens the version 2 directory, and restricts devices there: not by the version 1 list, because a caller that is
    /// restricted itself cannot grant more than it has.
    /// Takes over cgroups that another process has created: they are removed when this is dropped.
    pub fn adopt(groups: Groups) -> Cgroup {
        Cgroup { groups, dir: None }
    }

    fn with_rules(mut self, rules: Option<&[DeviceRule]>) -> Result<Cgroup, CgroupError> {
        self.dir = self.groups.dir()?;
        if let (Some(dir), Some(rules)) = (self.dir(), rules) {
            device::restrict(dir, rules).map_err(|errno| CgroupError::Devices(errno.raw_os_error()))?;
        }
        Ok(self)
    }

    /// Version 2 directory, in which a process can be created; `None` without one.
    pub fn dir(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().map(AsFd::as_fd)
    }

    /// Directories of the cgroup by hierarchy.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// True when a process must be moved into version 1 cgroups after its creation.
    pub fn needs_attach(&self) -> bool {
        self.groups.needs_attach()
    }

    /// Moves a process into the version 1 cgroups.
    pub fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        self.groups.attach(pid)
    }

    /// Directories of the cgroup, for reading.
    pub fn paths(&self) -> Vec<&Path> {
        self.groups.paths().into_iter().map(|(_, path)| path).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A cgroup with a dying process is busy for a moment; a later process removes it (`remove_orphans`).
        self.groups.remove_if_empty();
    }
}

/// True when `resources` contain settings that need a cgroup, devices aside.
pub fn has_limits(resources: &LinuxResources) -> bool {
    !limits::settings(resources).is_empty()
}

/// Settings of `resources` that Linux no longer supports.
pub fn without_effect(resources: &LinuxResources) -> Vec<&'static str> {
    let memory = resources.memory().as_ref().and_then(|memory| memory.kernel()).filter(|limit| *limit != 0);
    let block = resources.block_io().as_ref();
    let devices = block.and_then(|block| block.weight_device().as_ref()).into_iter().flatten();
    let leaf = block
        .and_then(|block| block.leaf_weight())
        .or(devices.filter_map(|device| device.leaf_weight()).next());
    let given =
        [(memory.is_some(), "the kernel memory limit"), (leaf.is_some(), "the block I/O leaf weight")];
    given.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
}

/// Missing directories above `path`, outermost first.
fn missing_above(path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().skip(1).take_while(|path| !path.exists());
    let mut missing: Vec<PathBuf> = above.map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// Removes the cgroups `prefix-pid-start` whose process has ended.
///
/// A cgroup is named after the process that created it, so that those of killed processes can be found.
pub fn remove_orphans(layout: &Layout, prefix: &str) {
    let dirs = layout.unified_dir().into_iter().chain(layout.legacy_dirs());
    for dir in dirs {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_prefix('-'))
            else {
                continue;
            };
            let (pid, start) = owner.split_once('-').unwrap_or((owner, ""));
            let start = start.split('-').next().unwrap_or_default();
            if pid.parse().ok().and_then(start_time).is_none_or(|now| now != start) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Name for the cgroups of this process: `prefix-pid-start`.
pub fn own_name(prefix: &str) -> String {
    let pid = std::process::id();
    let start = start_time(pid).unwrap_or_default();
    format!("{prefix}-{pid}-{start}")
}

/// Start time of a process, in ticks since boot (field 22 of `/proc/PID/stat`); `None` when it has ended.
fn start_time(pid: u32) -> Option<String> {
    let stat = layout::read_record(format!("/proc/{pid}/stat"), 1024);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

/// Copies processors and memory nodes from the parent cgroup, for each cgroup on the way: a new version 1 cgroup has
/// none of either, and accepts no process until it has both.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<(), CgroupError> {
    let mut above = root.to_owned();
    for name in path.strip_prefix(root).unwrap_or(path).components() {
        let inner = above.join(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let read = |path: PathBuf| fs::read_to_string(&path).map_err(CgroupError::file("read", &path));
            if read(inner.join(file))?.trim().is_empty() {
                write(&inner.join(file), read(above.join(file))?.trim())?;
            }
        }
        above = inner;
    }
    Ok(())
}

fn open_dir(path: &Path) -> Result<OwnedFd, CgroupError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map_err(|errno: Errno| CgroupError::file("open", path)(errno.into()))
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(CgroupError::file("write", path))
}
