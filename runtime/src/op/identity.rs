//! Identity, privileges and scheduling of a process.

use serde::{Deserialize, Serialize};

/// Id maps of a user namespace (user_namespaces(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Ranges of mapped uids.
    pub users: Vec<IdRange>,
    /// Ranges of mapped gids.
    pub groups: Vec<IdRange>,
}

/// A range of consecutive ids, in the namespace and in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// Number of consecutive ids.
    pub count: u32,
}

impl IdRange {
    /// True when `id` is in the range, as seen in the namespace.
    pub(crate) fn holds(&self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|offset| offset < self.count)
    }
}

/// Offset of a clock of a time namespace from the host's (time_namespaces(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Name of the clock: `monotonic` or `boottime`.
    pub clock: String,
    /// Offset in whole seconds.
    pub seconds: i64,
    /// Nanoseconds to add to the seconds.
    pub nanoseconds: u32,
}

/// Scheduling attributes: the fields of `struct sched_attr` (sched_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "sched_setattr(2) documents them")]
pub struct SchedulerOp {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Uid and gids of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// Uid of the process.
    pub uid: u32,
    /// Primary gid of the process.
    pub gid: u32,
    /// Supplementary gids of the process.
    pub groups: Vec<u32>,
}

/// Capability sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityOp {
    /// Capabilities that the kernel checks.
    pub effective: u64,
    /// Capabilities that may become effective.
    pub permitted: u64,
    /// Capabilities kept across exec if the file has them as inheritable.
    pub inheritable: u64,
    /// Capabilities kept across exec of a file without capabilities.
    pub ambient: u64,
}
