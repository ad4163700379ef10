//! The control groups of a container: whether it needs any, where they are, and what they say about devices.

use super::Request;
use crate::error::OciError;
use crate::namespaces;
use kiln_runtime::cgroup::{self, DeviceRule, Extent, Groups, Layout, Place};
use oci_spec::runtime::{Capability, LinuxNamespaceType, LinuxResources, Mount, Spec};
use std::path::{Component, Path, PathBuf};

impl Request<'_> {
    /// Groups are made where they are wanted: for limits, for devices, or because the caller names their place.
    pub(super) fn groups(&self, id: &str, layout: &Layout) -> Result<Groups, OciError> {
        if self.globals.no_groups {
            return Ok(Groups::default());
        }
        let resources = self.resources();
        for limit in resources.map(cgroup::without_effect).unwrap_or_default() {
            self.globals.log.warn(&format!("{limit} is ignored: Linux has no such limit any more"));
        }
        let mut place = place(&self.bundle.spec, id);
        // Others are in there, whom limits, signals and removal would meet.
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
            // What it is shown of version 1 are its own groups: without any, nothing.
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
            // Without rights over groups a container without limits can do without them.
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

    /// Where only version 1 hierarchies are mounted, a group has to be made in each: a container without limits that is not
    /// shown any does without. Its devices are then guarded by what is mounted, which a program that may
    /// not mount cannot change.
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
        // Without process numbers of its own its processes are known by its group alone.
        namespaces::has_own_numbers(&self.bundle.spec)
            && place.extent != Extent::All
            && !resources.is_some_and(cgroup::has_limits)
            && rules.into_iter().flatten().all(denies_all)
            && !mounts
    }

    /// Whether devices are guarded by rules of the container's groups.
    pub(super) fn guards(&self, groups: &Groups) -> bool {
        !self.nested && !groups.paths().is_empty()
    }
}

/// The place of a container's groups, and whether it needs all of them.
pub(crate) fn place(spec: &Spec, id: &str) -> Place {
    let linux = spec.linux().as_ref();
    let named =
        linux.and_then(|linux| linux.cgroups_path().clone()).filter(|path| !path.as_os_str().is_empty());
    let own = namespaces::of(spec, LinuxNamespaceType::Cgroup).is_some();
    // Whoever names the place looks there; and without a namespace the container is shown its groups by path.
    let extent = if named.is_some() || is_shown(spec) && !own { Extent::All } else { Extent::Unified };
    let path = named.map_or_else(|| PathBuf::from(id), |path| clean(&path));
    Place { path, extent }
}

/// Whether a container has a mount of cgroups.
fn is_shown(spec: &Spec) -> bool {
    let is_cgroup = |mount: &Mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
    spec.mounts().iter().flatten().any(is_cgroup)
}

/// Without `..` and the like: groups are made nowhere else.
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

/// The specification's rules about devices, and behind them what every container may use.
pub(super) fn device_rules(resources: Option<&LinuxResources>) -> Vec<DeviceRule> {
    let given = resources.and_then(|resources| resources.devices().as_ref()).into_iter().flatten();
    let mut rules: Vec<DeviceRule> = given.filter_map(DeviceRule::of).collect();
    rules.extend(cgroup::default_rules());
    rules
}

/// A rule that cannot be read would be one rule less.
pub(super) fn check_device_rules(spec: &Spec) -> Result<(), OciError> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    for rule in rules.into_iter().flatten() {
        let access = rule.access().as_deref().unwrap_or_default();
        let is_known = |letter: char| "rwm".contains(letter);
        // More may be forbidden than there is, as runc has it; but what is allowed is said.
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
