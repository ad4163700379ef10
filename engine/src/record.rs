//! What is kept of a container: `container.json` in its directory.

use crate::name;
use crate::settings::Settings;
use kiln_image::digest::ImageId;
use kiln_image::sys::{CallError, Named};
use kiln_runtime::cgroup::Groups;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

/// Largest record that is read, in bytes: arguments and variables of a program stay far below.
const LARGEST: u64 = 16 << 20;

/// A container's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its image.
    pub image: ImageId,
    /// The image as the user named it.
    pub image_name: String,
    /// What it runs like.
    pub settings: Settings,
    /// It is removed when it ends.
    pub auto_remove: bool,
    /// How it stands.
    pub state: State,
    /// The AppArmor profile that it runs under, empty for none.
    #[serde(default)]
    pub profile: String,
    /// Its cgroups, while it runs; `None` when it has none, or was started by an older version.
    #[serde(default)]
    pub groups: Option<Groups>,
    /// Its place in the network, while it runs.
    pub endpoint: Option<Endpoint>,
}

/// A container whose record cannot be read.
#[derive(Debug)]
pub struct Damaged {
    /// The name of its directory.
    pub id: String,
    /// The name that points to it, empty for none.
    pub name: String,
    /// When its directory last changed, RFC 3339.
    pub created: String,
    /// What is wrong with it.
    pub reason: RecordError,
}

/// A container of a list.
#[derive(Debug)]
pub enum Listed {
    /// One with a record.
    Sound(Box<Container>),
    /// One that can only be removed.
    Damaged(Damaged),
}

impl Listed {
    pub(crate) fn sound(container: Container) -> Listed {
        Listed::Sound(Box::new(container))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Listed::Sound(container) => &container.id,
            Listed::Damaged(damaged) => &damaged.id,
        }
    }

    /// Its name, empty for none.
    pub fn name(&self) -> &str {
        match self {
            Listed::Sound(container) => &container.name,
            Listed::Damaged(damaged) => &damaged.name,
        }
    }

    /// When it was made, RFC 3339.
    pub fn created(&self) -> &str {
        match self {
            Listed::Sound(container) => &container.created,
            Listed::Damaged(damaged) => &damaged.created,
        }
    }

    /// True while its program runs, as far as that is known.
    pub fn is_running(&self) -> bool {
        matches!(self, Listed::Sound(container) if container.state.is_running())
    }
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A system call failed.
    #[error("its record or its lock cannot be used")]
    Call(#[from] CallError),
    /// A directory, a pipe, a link.
    #[error("its record is not a regular file")]
    Kind,
    /// More than any record has.
    #[error("its record is larger than {} MiB", LARGEST >> 20)]
    Size,
    /// No JSON, or of another shape.
    #[error("its record is malformed, or was written by a newer version of kiln")]
    Json(#[source] serde_json::Error),
    /// An id or a name that cannot be this container's.
    #[error("its record is that of another container")]
    Other,
}

/// Reads the record of the container `id` at `path`; `None` when there is none.
pub(crate) fn read(path: &Path, id: &str) -> Result<Option<Container>, RecordError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(RecordError::Kind),
        Err(errno) => return Err(CallError { call: "open", path: path.to_owned(), errno }.into()),
    };
    let stat = fs::fstat(&file).call("stat", path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(RecordError::Kind);
    }
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST + 1).read_to_end(&mut bytes).call("read", path)?;
    if bytes.len() as u64 > LARGEST {
        return Err(RecordError::Size);
    }
    let container: Container = serde_json::from_slice(&bytes).map_err(RecordError::Json)?;
    if container.id != id || name::check(&container.name).is_err() {
        return Err(RecordError::Other);
    }
    Ok(Some(container))
}

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Made, and never started.
    Created {
        /// Why it could not be started, if that was tried.
        error: Option<String>,
        /// What its user was told: 125, 126 or 127 after a failed start.
        code: i32,
    },
    /// Its program runs.
    Running {
        /// The program's process id.
        pid: i32,
        /// Since when, RFC 3339.
        started: String,
    },
    /// Its program ended.
    Exited {
        /// Exit code, or 128 plus the signal.
        code: i32,
        /// When it began, RFC 3339.
        started: String,
        /// When it ended, RFC 3339.
        finished: String,
    },
}

impl State {
    /// True while the program runs.
    pub fn is_running(&self) -> bool {
        matches!(self, State::Running { .. })
    }

    /// Docker's word for it.
    pub fn status(&self) -> &'static str {
        match self {
            State::Created { .. } => "created",
            State::Running { .. } => "running",
            State::Exited { .. } => "exited",
        }
    }

    /// The exit code, 0 while there is none.
    pub fn code(&self) -> i32 {
        match self {
            State::Created { code, .. } | State::Exited { code, .. } => *code,
            State::Running { .. } => 0,
        }
    }
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// How many bits of it the network has in common.
    pub prefix: u8,
    /// Where packets leave the network.
    pub gateway: Ipv4Addr,
    /// Its hardware address, with colons.
    pub mac: String,
}

/// Now, RFC 3339.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
