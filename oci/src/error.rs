//! Errors of commands, their texts, and their exit codes.

use kiln_runtime::SpawnError;
use kiln_runtime::cgroup::CgroupError;
use kiln_runtime::op::{SetupError, Stage, describe_errno};
use kiln_runtime::plan::PlanError;
use kiln_runtime::resctrl::ResctrlError;
use std::io;
use std::path::{Path, PathBuf};

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// Writing to standard output failed.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// Containers cannot start on this host.
    #[error(transparent)]
    Host(#[from] kiln_runtime::host::HostError),
    /// No container has this id.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// A container with this id exists.
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    /// The container's state does not permit the command.
    #[error("{0}")]
    State(String),
    /// An operation on a file failed.
    #[error("cannot {what} `{path}`: {reason}", path = path.display(), reason = reason(source))]
    File {
        /// Description of the operation.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The bundle's configuration cannot be read.
    #[error("`{path}` is not a valid container configuration: {reason}", path = path.display())]
    Config {
        /// Path of the configuration.
        path: PathBuf,
        /// Description of the mistake, with its position.
        reason: String,
    },
    /// The specification cannot be carried out.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// An operation on a cgroup failed.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// An operation on a resctrl class failed.
    #[error("{0}")]
    Resctrl(#[from] ResctrlError),
    /// The container could not be started.
    #[error("unable to start container process: {0}")]
    Start(SpawnError),
    /// A process could not be started in a container.
    #[error("exec failed: unable to start container process: {0}")]
    Exec(SpawnError),
    /// Another failure, with its complete message.
    #[error("{0}")]
    Other(String),
}

impl OciError {
    pub(crate) fn usage(text: impl Into<String>) -> OciError {
        OciError::Usage(text.into())
    }

    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OciError {
        let path = path.to_owned();
        move |source| OciError::File { what, path, source }
    }

    /// Exit code for a shell: programs that do not exist and that cannot be executed have separate codes.
    pub(crate) fn code(&self) -> u8 {
        match self {
            OciError::Start(SpawnError::Setup(SetupError { stage: Stage::Exec, errno, .. })) => {
                match *errno {
                    libc_errno::ENOENT | libc_errno::ENOTDIR => 127,
                    _ => 126,
                }
            }
            _ => 1,
        }
    }
}

mod libc_errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ENOTDIR: i32 = 20;
}

pub(crate) fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), describe_errno)
}
