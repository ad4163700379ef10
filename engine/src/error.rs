//! Why containers cannot be made, found, run or removed.

use kiln_image::store::StoreError;
use kiln_image::sys::CallError;
use kiln_network::NetworkError;
use kiln_runtime::SpawnError;
use kiln_runtime::apparmor::AppArmorError;
use kiln_runtime::cgroup::CgroupError;
use kiln_runtime::plan::PlanError;

/// What an engine says when it cannot.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No container of that name or id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// Several ids begin with these digits.
    #[error("multiple containers found with provided prefix: {0}")]
    Ambiguous(String),
    /// The name is taken.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// A text that is no name.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName(String),
    /// It runs, and is not to be killed.
    #[error(
        "cannot remove container \"/{0}\": container is running: stop the container before removing or force remove"
    )]
    IsRunning(String),
    /// Its program does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// Neither the image nor the user names a program.
    #[error("no command specified")]
    NoCommand,
    /// Another process has it, and does not run it.
    #[error(
        "container {0} is in use by another process, which starts, runs or removes it: end that process, or try again later"
    )]
    Busy(String),
    /// The container cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The container did not start.
    #[error(transparent)]
    Start(#[from] SpawnError),
    /// No network.
    #[error("cannot connect the container to a network: {0}")]
    Network(#[from] NetworkError),
    /// No profile.
    #[error(transparent)]
    AppArmor(#[from] AppArmorError),
    /// No control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl EngineError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            EngineError::Store(error) => error.is_full(),
            EngineError::Call(error) => error.is_full(),
            _ => false,
        }
    }
}
