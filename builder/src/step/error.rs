//! Failures of steps.

use crate::content::ContentError;
use crate::images::ImageError;
use crate::sandbox::SandboxError;
use kiln_image::layer::{ApplyError, WriteError};
use kiln_image::store::StoreError;
use kiln_image::sys::CallError;
use kiln_parser::ignore::PatternError;
use kiln_runtime::SpawnError;
use kiln_runtime::cdi::CdiError;
use kiln_runtime::plan::PlanError;
use kiln_runtime::user::UserError;
use kiln_runtime::view::ViewError;
use std::path::PathBuf;

/// Failure of a step.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The program ended with an exit code other than 0.
    #[error("process {command} did not complete successfully: exit code: {code}")]
    Exit {
        /// Arguments of the program, quoted.
        command: String,
        /// Exit code; 128 plus the signal's number for signals.
        code: i32,
        /// Possible remedies, one sentence each.
        hints: Vec<String>,
    },
    /// The program did not start.
    #[error("process {command} did not complete successfully: {source}")]
    Start {
        /// Arguments of the program, quoted.
        command: String,
        /// Error of the start.
        source: SpawnError,
        /// Possible remedies, one sentence each.
        hints: Box<[String]>,
    },
    /// The container cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The shared environment of the containers cannot be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A source of a copy does not exist.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A pattern of `--exclude` is malformed.
    #[error("invalid --exclude pattern: {0}")]
    Exclude(PatternError),
    /// The layer cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A required secret or ssh socket was not passed.
    #[error("{kind} {id}: not found")]
    NotGiven {
        /// Kind of the mount: `secret` or `ssh`.
        kind: &'static str,
        /// Id of the secret or socket.
        id: String,
    },
    /// An archive cannot be unpacked.
    #[error("cannot unpack {path}", path = .0.display())]
    Archive(PathBuf, #[source] ApplyError),
    /// A file or a repository cannot be fetched.
    #[error("failed to load {what}: {source}")]
    Fetch {
        /// URL of the file or remote of the repository.
        what: String,
        /// Error of the fetcher.
        source: ImageError,
    },
    /// A download has another digest than expected.
    #[error("digest mismatch {actual}: {expected}")]
    Checksum {
        /// Digest of the download.
        actual: String,
        /// Digest that the Dockerfile expects.
        expected: String,
    },
    /// An owner does not exist in the tree, with `--strict` or without any tree.
    #[error("unknown {kind} {name} in --chown")]
    UnknownOwner {
        /// Kind of the name: `user` or `group`.
        kind: &'static str,
        /// Name that was not found.
        name: String,
        /// Similar name in the tree; `None` when there is none.
        near: Option<String>,
    },
    /// The number of an owner is not a valid id.
    #[error(transparent)]
    Owner(#[from] UserError),
    /// A device has no CDI description.
    #[error(transparent)]
    Device(#[from] CdiError),
    /// The program is for another architecture, and the host has no emulator for it.
    #[error(
        "process {command} did not complete successfully: exec format error: this host cannot run programs for {platform}"
    )]
    Foreign {
        /// Arguments of the program, quoted.
        command: String,
        /// Platform of the program.
        platform: String,
        /// Name of the binfmt handler that would run it.
        handler: String,
    },
    /// A layer of an image would contain a secret.
    #[error("the secret {id} is in the image: {place}")]
    Leak {
        /// Id of the secret.
        id: String,
        /// Path of the file, and the step that wrote it.
        place: String,
    },
    /// The path of WORKDIR exists and is not a directory.
    #[error("mkdir {0}: not a directory")]
    NotADir(String),
    /// A tree cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Reading or writing the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Another step failed, or the user interrupted the build.
    #[error("canceled")]
    Canceled,
}

impl StepError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            StepError::Write(error) => error.is_full(),
            StepError::Store(error) => error.is_full(),
            StepError::Call(error) => error.is_full(),
            StepError::Content(ContentError::Call(error)) => error.is_full(),
            _ => false,
        }
    }

    /// Description of the context or tree without the source; `None` for other errors.
    pub fn searched(&self) -> Option<&str> {
        match self {
            StepError::Content(
                ContentError::NotFound { origin, .. } | ContentError::NoDirectory { origin, .. },
            ) => Some(origin),
            _ => None,
        }
    }

    /// Short text for the caret below the instruction.
    pub fn label(&self) -> String {
        match self {
            StepError::Exit { code, .. } => format!("exit code: {code}"),
            StepError::Start { .. } => "did not start".to_owned(),
            StepError::Content(ContentError::NotFound { .. } | ContentError::NoDirectory { .. }) => {
                "not found".to_owned()
            }
            StepError::Fetch { .. } => "cannot be fetched".to_owned(),
            _ => "failed".to_owned(),
        }
    }

    /// Possible remedies, one sentence each.
    pub fn hints(&self) -> Vec<String> {
        match self {
            StepError::Content(
                ContentError::NotFound { hints, .. } | ContentError::NoDirectory { hints, .. },
            ) => hints.clone(),
            StepError::UnknownOwner { near, .. } => {
                let near = near.iter().map(|near| format!("did you mean {near}?"));
                let more = "create the name in an earlier RUN, or use a number".to_owned();
                near.chain(std::iter::once(more)).collect()
            }
            StepError::Foreign { handler, .. } => vec![format!(
                "register the binfmt handler {handler} (package qemu-user-static), or build for this host"
            )],
            StepError::Device(..) => {
                vec!["devices are described in files of /etc/cdi and /var/run/cdi".to_owned()]
            }
            StepError::Fetch { .. } => vec![
                "check the address, the network, and the credentials that it may want as a secret".to_owned(),
            ],
            StepError::Checksum { .. } => {
                vec!["the file changed, or --checksum is wrong".to_owned()]
            }
            StepError::NotGiven { kind: "secret", id } => {
                vec![format!("pass it with --secret id={id},src=FILE or --secret id={id},env=NAME")]
            }
            StepError::NotGiven { id, .. } => vec![format!("pass the agent's socket with --ssh {id}")],
            StepError::Exit { hints, .. } => hints.clone(),
            StepError::Start { hints, .. } => hints.to_vec(),
            _ => Vec::new(),
        }
    }
}
