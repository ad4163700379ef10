//! New and joined namespaces, and the process that creates or enters each.

use super::PlanError;
use crate::container::Request;
use crate::op::{Bytes, ClockOffset, FdSlot, IdMaps, IdRange, JoinAt, JoinOp, SetupOp};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

/// Namespaces of a specification.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces {
    /// `CLONE_NEW…` bits of new namespaces, without the cgroup namespace.
    pub(super) made: u64,
    /// Namespaces that an intermediate process enters.
    pub(super) joined: Vec<JoinOp>,
    /// Namespaces that the process itself can enter.
    pub(super) joined_inside: Vec<SetupOp>,
    /// True when the process creates a cgroup namespace, once it is in its cgroups.
    pub(super) own_cgroup: bool,
    /// True once the plan creates the cgroup namespace.
    pub(super) made_cgroup: bool,
    pub(super) users: Option<IdMaps>,
    /// True when the process itself creates its time namespace.
    pub(super) own_time: bool,
    pub(super) clocks: Vec<ClockOffset>,
    /// All kinds that differ from the host's, as `CLONE_NEW…` bits.
    separate: u64,
}

impl Namespaces {
    /// True when the container has a new or joined namespace of that kind.
    pub(super) fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.separate & kind as u64 != 0
    }

    /// True for kernel parameters that exist once in each of the container's namespaces.
    pub(super) fn owns_sysctl(&self, name: &str) -> bool {
        use LinuxNamespaceType::{Ipc, Network, User, Uts};
        // The specification has a field for the host name.
        let kind = if name == "kernel.domainname" {
            Uts
        } else if ["kernel.msg", "kernel.shm"].iter().any(|prefix| name.starts_with(prefix))
            || name == "kernel.sem"
            || name.starts_with("fs.mqueue.")
        {
            Ipc
        } else if name.starts_with("net.") {
            Network
        } else if name.starts_with("user.") {
            User
        } else {
            return false;
        };
        // Programs rely on limits of user namespaces (`user.*`) even when the container has no user namespace.
        !name.contains("..") && (self.has(kind) || kind == User)
    }
}

/// Reads the specification's list of namespaces.
pub(super) fn read(spec: &Spec, request: &Request<'_>) -> Result<Namespaces, PlanError> {
    let linux = spec.linux().as_ref();
    let list = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let mut read = Namespaces::default();
    let makes_users =
        list.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User && !is_joined(namespace));
    let joins_users =
        list.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User && is_joined(namespace));
    for namespace in list {
        let kind = namespace.typ();
        let bit = kind as u64;
        if read.separate & bit != 0 {
            return Err(PlanError::Twice(kind));
        }
        read.separate |= bit;
        if let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            if !path.is_absolute() {
                return Err(PlanError::NotAbsolute("namespace path", path.clone()));
            }
            let between = makes_users
                || joins_users
                || matches!(kind, LinuxNamespaceType::Pid | LinuxNamespaceType::Time);
            if between {
                read.joined.push(JoinOp { kinds: bit, at: JoinAt::Path(Bytes::from(path)) });
            } else {
                read.joined_inside.push(SetupOp::JoinPath { kind: bit, path: path.into() });
            }
            continue;
        }
        match kind {
            LinuxNamespaceType::Cgroup => read.own_cgroup = true,
            LinuxNamespaceType::Network if request.network.is_some() => {
                let FdSlot(slot) = request.network.unwrap_or(FdSlot(0));
                read.joined_inside.push(SetupOp::Join(FdSlot(slot)));
            }
            _ => read.made |= bit,
        }
    }
    if read.separate & LinuxNamespaceType::Mount as u64 == 0 {
        return Err(PlanError::Unsupported("sharing the host's mounts".to_owned()));
    }
    if makes_users {
        read.users = Some(maps(spec)?);
    }
    if read.made & LinuxNamespaceType::Time as u64 != 0 {
        read.clocks = clocks(spec);
    } else if !clocks(spec).is_empty() {
        return Err(PlanError::NeedsNamespace("timeOffsets", LinuxNamespaceType::Time));
    }
    for (what, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if name.as_ref().is_some_and(|name| !name.is_empty()) && !read.has(LinuxNamespaceType::Uts) {
            return Err(PlanError::NeedsNamespace(what, LinuxNamespaceType::Uts));
        }
    }
    // The process creates it itself, with privileges over a new user namespace; only an intermediate process must
    // create it for the process.
    if read.joined.is_empty() && read.made & LinuxNamespaceType::Time as u64 != 0 {
        read.made &= !(LinuxNamespaceType::Time as u64);
        read.own_time = true;
    }
    Ok(read)
}

fn is_joined(namespace: &oci_spec::runtime::LinuxNamespace) -> bool {
    namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty())
}

fn maps(spec: &Spec) -> Result<IdMaps, PlanError> {
    let linux = spec.linux().as_ref();
    let ranges = |list: Option<&Vec<LinuxIdMapping>>| list.into_iter().flatten().map(range).collect();
    let maps = IdMaps {
        users: ranges(linux.and_then(|linux| linux.uid_mappings().as_ref())),
        groups: ranges(linux.and_then(|linux| linux.gid_mappings().as_ref())),
    };
    if maps.users.is_empty() {
        return Err(PlanError::NoMappings("uidMappings"));
    }
    if maps.groups.is_empty() {
        return Err(PlanError::NoMappings("gidMappings"));
    }
    check_ranges("uidMappings", &maps.users)?;
    check_ranges("gidMappings", &maps.groups)?;
    Ok(maps)
}

/// Checks the kernel's conditions (user_namespaces(7)); its errno does not tell which one failed.
fn check_ranges(name: &'static str, ranges: &[IdRange]) -> Result<(), PlanError> {
    let shown = |range: &IdRange| format!("{} {} {}", range.inside, range.outside, range.count);
    let refuse = |range: &IdRange, why: &'static str| Err(PlanError::Mapping(name, shown(range), why));
    let overlap = |a: u32, b: u32, one: &IdRange, other: &IdRange| {
        u64::from(a) < u64::from(b) + u64::from(other.count)
            && u64::from(b) < u64::from(a) + u64::from(one.count)
    };
    for (index, range) in ranges.iter().enumerate() {
        if range.count == 0 {
            return refuse(range, "map no id at all: the size is 0");
        }
        let last = |first: u32| u64::from(first) + u64::from(range.count) - 1;
        if last(range.inside.max(range.outside)) >= u64::from(u32::MAX) {
            return refuse(range, "go beyond the largest id");
        }
        let clashes = ranges[..index].iter().any(|other| {
            overlap(range.inside, other.inside, range, other)
                || overlap(range.outside, other.outside, range, other)
        });
        if clashes {
            return refuse(range, "overlap with others");
        }
    }
    Ok(())
}

/// Converts a mapping of the specification to a range.
pub(crate) fn range(mapping: &LinuxIdMapping) -> IdRange {
    IdRange { inside: mapping.container_id(), outside: mapping.host_id(), count: mapping.size() }
}

fn clocks(spec: &Spec) -> Vec<ClockOffset> {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    let mut clocks: Vec<ClockOffset> = offsets
        .into_iter()
        .flatten()
        .map(|(clock, offset)| ClockOffset {
            clock: clock.clone(),
            seconds: offset.secs().unwrap_or(0),
            nanoseconds: offset.nanosecs().unwrap_or(0),
        })
        .collect();
    clocks.sort_by(|a, b| a.clock.cmp(&b.clock));
    clocks
}
