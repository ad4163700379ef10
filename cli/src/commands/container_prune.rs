//! Command `kiln container prune`.

use super::images::filter::{Filter, OF_CONTAINERS};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Containers, Listed};
use std::ffi::OsString;

/// Remove all containers that do not run.
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

/// Removes the containers and prints their ids.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let prune: Prune = arguments::parse("container prune", arguments)?;
    let filter = Filter::read(&prune.filter, OF_CONTAINERS)?;
    let session = Session::open(globals)?;
    if !prune.force && !ui::confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let containers = Containers::open(&session.store)?;
    let removed = remove(&containers, &filter)?;
    removed.print();
    let gap = if removed.ids.is_empty() { "" } else { "\n" };
    ui::line(&format!("{gap}Total reclaimed space: {}", text::size(removed.bytes)));
    Ok(0)
}

/// Removed containers.
pub(super) struct Removed {
    pub(super) ids: Vec<String>,
    /// Size of the files that they had written.
    pub(super) bytes: u64,
}

impl Removed {
    /// Prints the ids under a heading; without any, nothing.
    pub(super) fn print(&self) {
        if !self.ids.is_empty() {
            ui::line("Deleted Containers:");
        }
        self.ids.iter().for_each(|id| ui::line(id));
    }
}

/// Removes the containers that do not run and meet the filter. One that is started meanwhile stays.
///
/// # Errors
///
/// Fails when containers cannot be listed, or one cannot be removed.
pub(super) fn remove(containers: &Containers<'_>, filter: &Filter) -> Result<Removed, CliError> {
    let listed = containers.list()?;
    session::warn_of_damage(&listed);
    let mut removed = Removed { ids: Vec::new(), bytes: 0 };
    for one in listed {
        let Listed::Sound(container) = one else { continue };
        if container.state.is_running() || !filter.takes_container(&container) {
            continue;
        }
        let size = containers.size(&container).unwrap_or_default();
        if containers.remove_ended(&container)? {
            removed.bytes += size;
            removed.ids.push(container.id);
        }
    }
    Ok(removed)
}
