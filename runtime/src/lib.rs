//! Containers: an OCI runtime specification and mounts become a running process.
//!
//! Set-up is planned as data ([`plan`]) and carried out in the new process ([`init`]), and every failure is returned as
//! data. Containers are created by a helper process that is forked before the program has a second thread
//! ([`Spawner`]).

pub mod apparmor;
pub mod capability;
pub mod cdi;
pub mod cgroup;
pub mod container;
mod detached;
mod helper;
pub mod hook;
pub mod host;
pub mod idmap;
mod init;
pub mod launch;
pub mod message;
pub mod namespaces;
mod network;
pub mod op;
pub mod plan;
mod process;
pub mod reaper;
pub mod resctrl;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod start;
mod sys;
pub mod user;
pub mod view;

pub use network::{MakeNetwork, OneThread};
pub use process::{Process, SpawnError, SpawnRequest, Spawner, fork_process, serve_standard_input};
