//! The life of a container, for every caller: engines, builds and the OCI command line.
//!
//! A caller describes the container ([`Request`]), passes file descriptors ([`Handed`]), and serves the points at which
//! the new process waits ([`Steps`]).

pub mod etc;
mod exec;
mod follow;
mod guard;
mod handed;
mod prepare;
mod request;
pub mod terminal;

pub use exec::{EntryCgroups, SubCgroup, SubCgroupError, has_own_root, other_namespaces};
pub use follow::{CallerError, NoSteps, Steps};
pub(crate) use follow::{Ended, follow};
pub use guard::Holdings;
pub use handed::Handed;
pub use prepare::{
    CgroupRequest, Notice, Preparation, PrepareError, RestrictAt, cgroup_place, check_device_rules,
};
pub use request::{
    Affinity, Cgroups, DeviceNodes, Entry, ExecMethod, ExecRequest, Filter, Gate, Home, Identity, Keyring,
    LineEnds, Modules, ParentWork, Pivot, ProgramFile, Request, SupplementaryGroups, Terminal,
};
