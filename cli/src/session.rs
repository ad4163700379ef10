//! What a command opens: settings, store, and the helper that makes containers.

use crate::arguments::Globals;
use crate::config::Config;
use crate::error::CliError;
use kiln_image::store::Store;
use kiln_runtime::{Spawner, host};

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
