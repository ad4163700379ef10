//! Cgroups of a container: whether it needs any, their paths, and their device rules.

use super::{Preparation, PrepareError};
use crate::cgroup::{self, CgroupError, Extent, Groups, Layout, Place};
use crate::namespaces;
use oci_spec::runtime::{Capability, LinuxDeviceCgroup, LinuxNamespaceType, Mount, Spec};
use std::path::{Component, Path, PathBuf};

/// Circumstances of a container's cgroups besides its specification.
#[derive(Clone, Copy, Debug)]
pub struct CgroupRequest<'a> {
    /// Id of the container: name of its cgroups when the specification has none.
    pub id: &'a str,
    /// Hierarchies of the host.
    pub layout: &'a Layout,
    /// Whether a container without limits continues when no cgroups can be created; `None` to decide by the privileges
    /// of this process.
    pub is_optional: Option<bool>,
}

/// Circumstance of a creation that is not a failure.
#[derive(Debug)]
pub enum Notice {
    /// A limit that Linux no longer supports.
    WithoutEffect(&'static str),
    /// The cgroup has this number of other processes.
    NotEmpty(usize),
    /// No cgroups could be created, and the container does without.
    NoCgroups(CgroupError),
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Notice::WithoutEffect(limit) => write!(f, "{limit} is ignored: Linux has no such limit any more"),
            Notice::NotEmpty(count) => {
                write!(f, "container's cgroup is not empty: {count} process(es) found")
            }
            Notice::NoCgroups(error) => write!(f, "no control groups: {error}"),
        }
    }
}

impl Preparation<'_> {
    /// Creates cgroups where they are needed: for limits, for devices, or because the caller specifies their path.
    ///
    /// # Errors
    /// Fails for a path that names no cgroup, for frozen cgroups, and when cgroups that the container needs cannot be
    /// created.
    pub fn cgroups(
        &self,
        request: &CgroupRequest<'_>,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<Groups, PrepareError> {
        let layout = request.layout;
        let resources = self.resources();
        for limit in resources.map(cgroup::without_effect).unwrap_or_default() {
            notify(Notice::WithoutEffect(limit));
        }
        let mut place = cgroup_place(self.spec, request.id);
        // The root cgroup has other processes, to which limits, signals and removal would apply.
        if !place.path.components().any(|part| matches!(part, Component::Normal(_))) {
            return Err(PrepareError::RootCgroup);
        }
        if !layout.has_unified() {
            if !is_shown(self.spec) && self.does_without_cgroups(&place) {
                return Ok(Groups::default());
            }
            place.extent = Extent::All;
        }
        match self.create(layout, &place) {
            Ok(groups) if groups.is_reused_frozen() => Err(PrepareError::Frozen),
            Ok(groups) => {
                let others = groups.others()?;
                if !others.is_empty() {
                    notify(Notice::NotEmpty(others.len()));
                }
                Ok(groups)
            }
            // Without permission to create cgroups, a container without limits can do without them.
            Err(error)
                if !resources.is_some_and(cgroup::has_limits)
                    && request
                        .is_optional
                        .unwrap_or(self.is_nested || !rustix::process::geteuid().is_root()) =>
            {
                notify(Notice::NoCgroups(error));
                Ok(Groups::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn create(&self, layout: &Layout, place: &Place) -> Result<Groups, CgroupError> {
        let create = |extent| Groups::create(layout, &Place { extent, ..place.clone() }, self.resources());
        match place.extent {
            // In a cgroup mount of version 1 it sees only its own cgroups: without any, nothing.
            Extent::Unified if is_shown(self.spec) => {
                create(Extent::All).or_else(|_| create(Extent::Unified))
            }
            extent => create(extent),
        }
    }

    /// True when a container without limits or a cgroup mount can do without cgroups where only version 1 hierarchies
    /// are mounted, because it would need one in each. Access to its devices is then controlled by its mounts, which a
    /// program without the capability to mount cannot change.
    fn does_without_cgroups(&self, place: &Place) -> bool {
        let resources = self.resources();
        let rules = resources.and_then(|resources| resources.devices().as_ref());
        let denies_all =
            |rule: &LinuxDeviceCgroup| !rule.allow() && rule.major().is_none() && rule.minor().is_none();
        let process = self.spec.process().as_ref();
        let sets = process.and_then(|process| process.capabilities().as_ref());
        let mounts = sets
            .and_then(|sets| sets.bounding().as_ref())
            .is_some_and(|set| set.contains(&Capability::SysAdmin));
        // Without a pid namespace its cgroup is the only way to find its processes.
        namespaces::has_own_pids(self.spec)
            && place.extent != Extent::All
            && !resources.is_some_and(cgroup::has_limits)
            && rules.into_iter().flatten().all(denies_all)
            && !mounts
    }
}

/// Path and extent of a container's cgroups.
pub fn cgroup_place(spec: &Spec, id: &str) -> Place {
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

/// Refuses malformed rules: ignoring one would weaken the restrictions.
///
/// # Errors
/// [`PrepareError::DeviceAccess`] for the first such rule.
pub fn check_device_rules(spec: &Spec) -> Result<(), PrepareError> {
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
            return Err(PrepareError::DeviceAccess(access.to_owned()));
        }
    }
    Ok(())
}
