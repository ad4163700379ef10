//! Containers as users know them: names, records, states, and what keeps them running.
//!
//! A container is a directory with a record in it, a writable layer, and files for its /etc. Whoever runs it
//! holds a lock on the directory: a record that says "running" whose lock is free tells of a process that was
//! killed, and is put right by the next one that looks.

#![forbid(unsafe_code)]

mod container;
mod directory;
mod error;
mod exec;
pub mod log;
mod name;
mod record;
mod security;
mod settings;
mod start;

pub use container::{Containers, Owned};
pub use error::EngineError;
pub use exec::{ExecOptions, Live};
pub use record::{Container, Damaged, Endpoint, Listed, RecordError, State};
pub use security::{SecurityOptionError, SecurityOptions};
pub use settings::{NetworkMode, RunOptions, Settings};
pub use start::{INIT_NAME, Running, Stdio, start_code};
