//! `kiln logout`.

use super::login::unusable;
use crate::arguments::{self, Globals};
use crate::config::Config;
use crate::error::CliError;
use crate::ui;
use clap::Parser;
use kiln_registry::{HUB_KEY, host_of};
use std::ffi::OsString;

/// Forget the credentials of a user at a registry; Docker Hub without a registry.
#[derive(Debug, Parser)]
struct Logout {
    /// Registry, such as registry.example.com:5000
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Logout as clap::CommandFactory>::command()
}

/// Removes the credentials from all files that are read, and from their helpers. Without any it succeeds, too.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let logout: Logout = arguments::parse("logout", arguments)?;
    let host = host_of(logout.registry.as_deref().unwrap_or(HUB_KEY));
    let shown = if host == "docker.io" { HUB_KEY } else { &host };
    let settings = Config::read(globals)?.registry;
    ui::line(&format!("Removing login credentials for {shown}"));
    settings.keychain.erase(&host).map_err(|error| unusable(&error))?;
    if let Some(inline) = &settings.keychain.inline
        && inline.contains(shown)
    {
        ui::tell_line("warning: DOCKER_AUTH_CONFIG has credentials for it, and is still used");
    }
    Ok(0)
}
