//! Cgroups of a container: its limits, and its device rules.

use crate::container::Owned;
use crate::error::EngineError;
use crate::settings::{Capacity, Settings};
use kiln_image::sys::CallError;
use kiln_runtime::cgroup::{Cgroup, Layout};
use kiln_runtime::container::{DeviceNodes, Entry};
use oci_spec::runtime::LinuxResources;
use rustix::fs::{FileType, major, minor, stat};
use rustix::io::Errno;
use std::path::PathBuf;

impl Owned {
    /// Creates the container's cgroup with its limits, at `name`. `None` when none can be created and nothing is limited:
    /// other means restrict devices then.
    ///
    /// # Errors
    /// Fails when a limit cannot be set.
    pub(crate) fn make_cgroup(&self, layout: &Layout, name: &str) -> Result<Option<Cgroup>, EngineError> {
        let settings = &self.container.settings;
        let resources = resources(settings)?;
        let path = PathBuf::from(&settings.limits.cgroup_parent).join(name);
        let rules = settings.device_rules()?;
        match Cgroup::for_container(layout, &path, resources.as_ref(), rules.as_deref()) {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(_) if resources.is_none() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Way in which the container's process enters its cgroups: with limits it must.
    pub(crate) fn entry(&self) -> Entry {
        if self.container.settings.limits.need_cgroup() { Entry::BySelf } else { Entry::BySelfIfPossible }
    }

    /// Way in which device nodes are created, with and without a cgroup that has device rules.
    pub(crate) fn device_nodes(&self, has_rules: bool) -> DeviceNodes {
        let settings = &self.container.settings;
        if has_rules || settings.privileges.privileged { DeviceNodes::Made } else { DeviceNodes::Exclusive }
    }
}

/// Limits that the container's cgroup enforces; `None` when nothing is limited.
fn resources(settings: &Settings) -> Result<Option<LinuxResources>, EngineError> {
    if !settings.limits.need_cgroup() {
        return Ok(None);
    }
    settings.limits.resources(&Capacity::detect(), block_device).map(Some)
}

/// Major and minor number of a block device.
pub(crate) fn block_device(path: &str) -> Result<(i64, i64), EngineError> {
    let failed = |errno| CallError { call: "stat", path: path.into(), errno };
    let found = stat(path).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::BlockDevice {
        return Err(failed(Errno::NOTBLK).into());
    }
    Ok((major(found.st_rdev).into(), minor(found.st_rdev).into()))
}
