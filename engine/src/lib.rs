//! Containers as users see them: names, records, states, and their monitors.
//!
//! A container is a directory with a record in it, a writable layer, and files for its /etc. Its monitor, the parent of its
//! program, holds a lock in the directory: a record with the state "running" whose lock is free belongs to a killed
//! monitor, and is corrected by the next process that lists containers, once the program has ended.

#![forbid(unsafe_code)]

mod attached;
mod cgroups;
mod changes;
mod commit;
mod connect;
mod container;
mod copy;
mod directory;
mod endpoints;
mod error;
mod etc;
pub mod events;
mod exec;
mod freeze;
mod health;
pub mod log;
mod monitor;
pub mod mount;
mod name;
mod names;
pub mod network;
mod prepare;
mod processes;
pub mod quantity;
mod record;
mod rename;
mod restart;
mod secret;
mod security;
pub mod settings;
mod spare;
mod spec;
mod start;
mod stats;
mod update;
mod usage;
mod view;
mod volume;
mod waiting;
mod wire;

pub use attached::{Attached, Event};
pub use commit::CommitOptions;
pub use container::{Containers, Owned, Records};
pub use copy::{CopyError, CopyOptions, Place, copy, copy_in, copy_out, mirror};
pub use error::EngineError;
pub use exec::{ExecOptions, Live};
pub use health::{CHECK, CheckResult, Health, HealthStatus};
pub use monitor::{Monitor, StartOptions};
pub use mount::ClosedMount;
pub use name::check as check_name;
pub use network::{Network, NetworkOptions, Networks};
pub use processes::{BootClock, ProcessInfo};
pub use record::{Container, Damaged, Endpoint, Endpoint6, Listed, Pipes, RecordError, State};
pub use restart::{PolicyError, RestartPolicy};
pub use secret::{Secret, SecretError, SecretForm, SecretRequest};
pub use security::{SecurityOptionError, SecurityOptions};
pub use settings::attachment::{Attachment, Link};
pub use settings::{NetworkMode, RunOptions, Settings};
pub use spec::INIT_NAME;
pub use start::{Stdio, start_code};
pub use stats::Sample;
pub use update::{Update, UpdateError};
pub use view::View;
pub use volume::{
    PrunedVolumes, UsedVolume, Volume, VolumeCreateError, VolumeNameError, VolumeOptionError, VolumeOwner,
    VolumeRequest, Volumes,
};
pub use waiting::{Condition, Waited};
pub use wire::{Attach, StartFailure};
