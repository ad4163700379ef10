//! What is kept of a container: `container.json` in its folder.

use crate::settings::Settings;
use kiln_image::digest::ImageId;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

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
    /// Its place in the network, while it runs.
    pub endpoint: Option<Endpoint>,
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
