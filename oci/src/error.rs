//! What goes wrong, how it is told, and where.

use kiln_runtime::SpawnError;
use kiln_runtime::cgroup::CgroupError;
use kiln_runtime::op::{SetupError, Stage, describe_errno};
use kiln_runtime::plan::PlanError;
use kiln_runtime::resctrl::ResctrlError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Standard output takes no more.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// No container can start on this host.
    #[error(transparent)]
    Host(#[from] kiln_runtime::host::HostError),
    /// No such container.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// The id is taken.
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    /// A container in another state than the command needs.
    #[error("{0}")]
    State(String),
    /// A file failed.
    #[error("cannot {what} `{path}`: {reason}", path = path.display(), reason = reason(source))]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The bundle's configuration cannot be read.
    #[error("`{path}` is not a valid container configuration: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// The specification cannot be carried out.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// A control group failed.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// A share of caches or memory bandwidth failed.
    #[error("{0}")]
    Resctrl(#[from] ResctrlError),
    /// The container could not be started.
    #[error("unable to start container process: {0}")]
    Start(SpawnError),
    /// A process could not be started in a container.
    #[error("exec failed: unable to start container process: {0}")]
    Exec(SpawnError),
    /// Anything else, in its own words.
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

    /// What a shell is told: programs that do not exist and that cannot be run are known by number.
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
