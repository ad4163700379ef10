//! Cgroups of a container: whether it needs any, their paths, and their device rules.

use super::Request;
use crate::error::OciError;
use crate::namespaces;
use kiln_runtime::cgroup::{self, DeviceRule, Extent, Groups, Layout, Place};
use oci_spec::runtime::{Capability, LinuxNamespaceType, LinuxResources, Mount, Spec};
use std::path::{Component, Path, PathBuf};

impl Request<'_> {
    /// Creates cgroups where they are needed: for limits, for devices, or because the caller specifies their path.
    pub(super) fn groups(&self, id: &str, layout: &Layout) -> Result<Groups, OciError> {
        if self.globals.no_groups {
            return Ok(Groups::default());
        }
        let resources = self.resources();
        for limit in resources.map(cgroup::without_effect).unwrap_or_default() {
            self.globals.log.warn(&format!("{limit} is ignored: Linux has no such limit any more"));
        }
        let mut place = place(&self.bundle.spec, id);
        // The root cgroup has other processes, to which limits, signals and removal would apply.
        if !place.path.components().any(|part| matches!(part, Component::Normal(_))) {
            return Err(OciError::Other(
                "`cgroupsPath` names no group of the container's own: it is the top of all groups".to_owned(),
            ));
        }
        if !layout.has_unified() {
            if !is_shown(&self.bundle.spec) && self.does_without_groups(&place) {
                return Ok(Groups::default());
            }
            place.extent = Extent::All;
        }
        let nested = self.nested;
        let create = |extent| Groups::create(layout, &Place { extent, ..place.clone() }, resources);
        let created = match place.extent {
            // In a cgroup mount of version 1 it sees only its own cgroups: without any, nothing.
            Extent::Unified if is_shown(&self.bundle.spec) => {
                create(Extent::All).or_else(|_| create(Extent::Unified))
            }
            extent => create(extent),
        };
        match created {
            Ok(groups) if groups.is_reused_frozen() => Err(OciError::State(
                "container's cgroup unexpectedly frozen: the container would never start".to_owned(),
            )),
            Ok(groups) => {
                let others = groups.others()?;
                if !others.is_empty() {
                    self.globals.log.warn(&format!(
                        "container's cgroup is not empty: {} process(es) found",
                        others.len()
                    ));
                }
                Ok(groups)
            }
            // Without permission to create cgroups, a container without limits can do without them.
            Err(error)
                if !resources.is_some_and(cgroup::has_limits)
                    && self.globals.rootless.unwrap_or(nested || !rustix::process::geteuid().is_root()) =>
            {
                self.globals.log.debug(&format!("no control groups: {error}"));
                Ok(Groups::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// True when a container without limits or a cgroup mount can do without cgroups where only version 1 hierarchies
    /// are mounted, because it would need one in each. Access to its devices is then controlled by its mounts, which a
    /// program without the capability to mount cannot change.
    fn does_without_groups(&self, place: &Place) -> bool {
        let resources = self.resources();
        let rules = resources.and_then(|resources| resources.devices().as_ref());
        let denies_all = |rule: &oci_spec::runtime::LinuxDeviceCgroup| {
            !rule.allow() && rule.major().is_none() && rule.minor().is_none()
        };
        let process = self.bundle.spec.process().as_ref();
        let sets = process.and_then(|process| process.capabilities().as_ref());
        let mounts = sets
            .and_then(|sets| sets.bounding().as_ref())
            .is_some_and(|set| set.contains(&Capability::SysAdmin));
        // Without a pid namespace its cgroup is the only way to find its processes.
        namespaces::has_own_numbers(&self.bundle.spec)
            && place.extent != Extent::All
            && !resources.is_some_and(cgroup::has_limits)
            && rules.into_iter().flatten().all(denies_all)
            && !mounts
    }

    /// True when rules of the container's cgroups control access to devices.
    pub(super) fn guards(&self, groups: &Groups) -> bool {
        !self.nested && !groups.paths().is_empty()
    }
}

/// Path and extent of a container's cgroups.
pub(crate) fn place(spec: &Spec, id: &str) -> Place {
    let linux = spec.linux().as_ref();
    let named =
        linux.and_then(|linux| linux.cgroups_path().clone()).filter(|path| !path.as_os_str().is_empty());
    let own = namespaces::of(spec, LinuxNamespaceType::Cgroup).is_some();
    // The caller looks for cgroups at a path that it specifies; and without a cgroup namespace the container sees its
    // cgroups by path.
    let extent = if named.is_some() || is_shown(spec) && !own { Extent::All } else { Extent::Unified };
    let path = named.map_or_else(|| PathBuf::from(id), |path| clean(&path));
    Place { path, extent }
}

/// True when a container has a cgroup mount.
fn is_shown(spec: &Spec) -> bool {
    let is_cgroup = |mount: &Mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
    spec.mounts().iter().flatten().any(is_cgroup)
}

/// Path without `..` and `.`, so that no cgroups are created elsewhere.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir => clean.push("/"),
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Device rules of the specification, followed by those for the devices that every container may use.
pub(super) fn device_rules(resources: Option<&LinuxResources>) -> Vec<DeviceRule> {
    let given = resources.and_then(|resources| resources.devices().as_ref()).into_iter().flatten();
    let mut rules: Vec<DeviceRule> = given.filter_map(DeviceRule::of).collect();
    rules.extend(cgroup::default_rules());
    rules
}

/// Refuses malformed rules: ignoring one would weaken the restrictions.
pub(super) fn check_device_rules(spec: &Spec) -> Result<(), OciError> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    for rule in rules.into_iter().flatten() {
        let access = rule.access().as_deref().unwrap_or_default();
        let is_known = |letter: char| "rwm".contains(letter);
        // As in runc, a denial may name unknown access letters; an allowance may not, and needs at least one letter.
        let makes_sense = if rule.allow() {
            !access.is_empty() && access.chars().all(is_known)
        } else {
            access.is_empty() || access.contains(is_known)
        };
        if !makes_sense {
            return Err(OciError::Other(format!(
                "a rule about devices has the access {access:?}: it consists of `r`, `w` and `m`"
            )));
        }
    }
    Ok(())
}
