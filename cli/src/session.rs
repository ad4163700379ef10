//! What a command opens: settings, store, and the helper that makes containers.

use crate::arguments::Globals;
use crate::config::{Config, STATE};
use crate::error::CliError;
use kiln_image::store::Store;
use kiln_runtime::{Spawner, host, selinux};
use std::path::{Path, PathBuf};

/// Settings and store.
pub struct Session {
    /// The settings.
    pub config: Config,
    /// The store.
    pub store: Store,
}

impl Session {
    /// Opens the store.
    pub fn open(globals: &Globals) -> Result<Session, CliError> {
        require_root()?;
        let config = Config::read(globals)?;
        let store = Store::open(&config.root)?;
        let shared = ["scratch", "cache", "containers"].map(|name| config.root.join(name));
        let shared = shared.iter().map(PathBuf::as_path).chain([Path::new(STATE)]);
        selinux::share(shared).map_err(|(path, errno)| {
            let reason = std::io::Error::from(errno);
            CliError::failed(format!("cannot label `{}` for containers: {reason}", path.display()))
                .hint("this host enforces SELinux: its policy must allow kiln to relabel its store")
        })?;
        Ok(Session { config, store })
    }
}

/// Starts the helper that makes containers. Must come before anything that makes threads.
pub fn start_helper() -> Result<Spawner, CliError> {
    require_root()?;
    host::check().map_err(|error| CliError::failed(error.to_string()))?;
    Spawner::start().map_err(|error| CliError::failed(error.to_string()))
}

fn require_root() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::failed("kiln must run as root: rootless operation is not supported yet")
        .hint("run the same command with sudo"))
}
