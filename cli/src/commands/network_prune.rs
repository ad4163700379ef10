//! Command `kiln network prune`.

use super::images::filter::{Filter, OF_CONTAINERS};
use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::error::CliError;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError};
use std::ffi::OsString;
use std::path::Path;

/// Remove all networks that no container uses, running or not.
#[derive(Debug, Parser)]
struct Prune {
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
    /// Remove only these: until=TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Prune as clap::CommandFactory>::command()
}

/// Removes the networks and prints their names.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let prune: Prune = arguments::parse("network prune", arguments)?;
    let filter = Filter::read(&prune.filter, OF_CONTAINERS)?;
    let session = Session::open(globals)?;
    const WARNING: &str = "WARNING! This will remove all custom networks not used by at least one container.";
    if !prune.force && !ui::confirm(WARNING)? {
        return Ok(0);
    }
    let removed = remove(&Containers::open(&session.store)?, &filter)?;
    print(&removed);
    if !removed.is_empty() {
        ui::line("");
    }
    Ok(0)
}

/// Prints the names under a heading; without any, nothing.
pub(super) fn print(names: &[String]) {
    if !names.is_empty() {
        ui::line("Deleted Networks:");
    }
    names.iter().for_each(|name| ui::line(name));
}

/// Removes the networks of users that no container is connected to, and that meet the filter. One that is used meanwhile
/// stays. Returns their names.
///
/// # Errors
///
/// Fails when networks or containers cannot be listed, or one cannot be removed.
pub(super) fn remove(containers: &Containers<'_>, filter: &Filter) -> Result<Vec<String>, CliError> {
    let mut removed = Vec::new();
    for network in containers.networks()?.list()? {
        let is_kept = network.is_predefined() || !filter.takes_one(&network.created, &network.labels);
        if is_kept || !containers.members_of(&network)?.is_empty() {
            continue;
        }
        match containers.remove_network(&network, Path::new(STATE)) {
            Ok(()) => removed.push(network.name),
            Err(EngineError::NetworkInUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}
