//! Errors of commands, their texts, and their exit codes.

use crate::state::Status;
use kiln_network::NetworkError;
use kiln_runtime::SpawnError;
use kiln_runtime::cgroup::CgroupError;
use kiln_runtime::container::PrepareError;
use kiln_runtime::hook::HookError;
use kiln_runtime::op::{SetupError, Stage, describe_errno};
use kiln_runtime::plan::PlanError;
use kiln_runtime::resctrl::ResctrlError;
use kiln_runtime::seccomp::SeccompError;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// State of a container that does not permit a command. The texts are those of runc where tools read them.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Its record is incomplete.
    #[error(
        "container {0:?} is being created, or its creation was interrupted; `delete --force {0}` removes it"
    )]
    Creating(String),
    /// A process was to be started in a paused container.
    #[error("cannot exec in a paused container: {0:?} (`resume` it, or pass --ignore-paused)")]
    ExecPaused(String),
    /// A process was to be started in a container whose own root is not set up.
    #[error(
        "cannot exec in a container that is still being created: {0:?} (wait until `create` or `run` has started it)"
    )]
    ExecCreating(String),
    /// A process was to be started in a container that has ended.
    #[error("cannot exec in a stopped container: {0:?}")]
    ExecStopped(String),
    /// Events were asked for of a container that has ended.
    #[error("container with id {0} is not running")]
    NoEvents(String),
    /// A container that neither runs nor was created was to be paused.
    #[error("container not running or created: {0}; only such a one can be paused")]
    NotPausable(Status),
    /// A container that is not paused was to go on.
    #[error("container not paused: it is {0}")]
    NotPaused(Status),
    /// A container that has ended was to be started.
    #[error("cannot start a container that has stopped: {0:?}")]
    StartStopped(String),
    /// A container that runs was to be started.
    #[error("cannot start an already running container: {0:?}")]
    StartRunning(String),
    /// The configuration names no program.
    #[error("cannot start container {0:?}: its configuration has no `process`, which says what to run")]
    NoProcess(String),
    /// The first process ended before the start.
    #[error("cannot start container {0:?}: its first process has ended")]
    StartEnded(String),
    /// A signal was for a container that has ended.
    #[error("container not running: {0}")]
    NotRunning(String),
    /// A container that has not ended was to be deleted.
    #[error("cannot delete container {0:?} that is not stopped: {1} (use `kill`, or `delete --force`)")]
    NotStopped(String, Status),
    /// The first process did not end in time.
    #[error("container {0:?} does not end although it was killed")]
    Unkillable(String),
}

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
    #[error(transparent)]
    State(#[from] StateError),
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
    /// Objects of the host for a container cannot be prepared.
    #[error("{0}")]
    Prepare(#[from] PrepareError),
    /// Failure of a hook.
    #[error("{0}")]
    Hook(#[from] HookError),
    /// The system call filter cannot be compiled.
    #[error("{0}")]
    Seccomp(#[from] SeccompError),
    /// The system call filter has unknown calls, and an annotation forbids that.
    #[error(
        "the seccomp profile names calls that are not known: {calls} (the annotation {annotation} forbids that)"
    )]
    UnknownCalls {
        /// Names of the calls.
        calls: String,
        /// Name of the annotation.
        annotation: &'static str,
    },
    /// The configuration has a version that this runtime does not know.
    #[error("the configuration's ociVersion {0:?} is none that is known: 1.x.y is")]
    Version(String),
    /// The bundle has no configuration.
    #[error(
        "JSON specification file {path} not found: a bundle holds one, `kiln oci spec` writes an example",
        path = .0.display()
    )]
    NoConfig(PathBuf),
    /// `spec` does not replace a configuration.
    #[error("File {path} exists. Remove it first", path = .0.display())]
    SpecExists(PathBuf),
    /// The record of a container is damaged.
    #[error("cannot read `{path}`: {source}", path = path.display())]
    Record {
        /// Path of the record.
        path: PathBuf,
        /// Position and kind of the damage.
        source: serde_json::Error,
    },
    /// A network device cannot be moved into the container.
    #[error("network device {name:?}: {source}")]
    Device {
        /// Name of the device on the host.
        name: String,
        /// Cause of the failure.
        source: NetworkError,
    },
    /// A further process cannot be moved into the container's cgroups.
    #[error("error adding pid {pid} to cgroups: {source}")]
    Attach {
        /// Pid of the process.
        pid: i32,
        /// Cause of the failure.
        source: CgroupError,
    },
    /// The agent for notifications of the filter cannot be reached.
    #[error("failed to connect with seccomp agent: {0}")]
    AgentConnection(#[source] Box<OciError>),
    /// The agent does not accept the container's state.
    #[error("cannot send to the seccomp agent: {0}")]
    AgentMessage(#[source] Errno),
    /// Signals to this process cannot be blocked.
    #[error("cannot listen for signals: {reason}", reason = .0.desc())]
    Signals(#[source] nix::errno::Errno),
    /// A wait for the container failed.
    #[error("cannot wait for {what}: {errno}")]
    Wait {
        /// Subject of the wait.
        what: &'static str,
        /// Error of the call.
        errno: Errno,
    },
    /// A signal cannot be sent to a container.
    #[error("cannot signal container {id:?}: {errno}")]
    Signal {
        /// Id of the container.
        id: String,
        /// Error of the call.
        errno: Errno,
    },
    /// A memory limit is lower than the present usage.
    #[error("cannot limit memory to {limit} bytes: {usage} are in use, and `checkBeforeUpdate` is set")]
    MemoryInUse {
        /// New limit in bytes.
        limit: u64,
        /// Present usage in bytes.
        usage: u64,
    },
    /// The program `ps` failed.
    #[error(transparent)]
    Ps(#[from] PsError),
    /// A command that this runtime does not have.
    #[error("{0} is not supported: this runtime cannot save processes")]
    Unsupported(&'static str),
}

/// Failure of the program `ps`.
#[derive(Debug, thiserror::Error)]
pub enum PsError {
    /// The program is not installed.
    #[error("the program `ps` is not installed; `--format json` does without it")]
    Missing,
    /// The program cannot be started.
    #[error("cannot run `ps`: {0}")]
    Start(#[source] io::Error),
    /// Failure of the program.
    #[error("`ps` failed ({status}): {message}")]
    Failed {
        /// End of the program.
        status: ExitStatus,
        /// Error message of the program.
        message: String,
    },
    /// Its output has no column of pids.
    #[error("ps does not tell the PID of processes with these options")]
    NoPids,
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
