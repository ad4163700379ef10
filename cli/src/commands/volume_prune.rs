//! Command `kiln volume prune`.

use super::volume_ls::filter::{Filter, OF_PRUNE};
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Containers, PrunedVolumes};
use std::ffi::OsString;

/// Remove volumes without a name that no container uses.
#[derive(Debug, Parser)]
struct Prune {
    /// Remove all volumes that no container uses, also those with a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
    /// Remove only these: label=NAME[=VALUE] or label!=NAME[=VALUE]; all=1 is --all; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Prune as clap::CommandFactory>::command()
}

/// Removes the volumes and prints their names.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let prune: Prune = arguments::parse("volume prune", arguments)?;
    let filter = Filter::read(&prune.filter, OF_PRUNE)?;
    if prune.all && filter.all().is_some() {
        return Err(CliError::failed("conflicting options: cannot specify both --all and --filter all=1")
            .hint("leave the filter out"));
    }
    let all = filter.all().unwrap_or(prune.all);
    let session = Session::open(globals)?;
    let kind = if all { "all" } else { "anonymous" };
    let warning =
        format!("WARNING! This will remove {kind} local volumes not used by at least one container.");
    if !prune.force && !ui::confirm(&warning)? {
        return Ok(0);
    }
    let containers = Containers::open(&session.store)?;
    session::warn_of_damaged(&containers)?;
    let pruned =
        containers.prune_volumes(|volume| (all || volume.anonymous) && filter.takes_labels(volume))?;
    print(&pruned, "");
    let gap = if pruned.names.is_empty() { "" } else { "\n" };
    ui::line(&format!("{gap}Total reclaimed space: {}", text::size(pruned.bytes)));
    Ok(report_failures(pruned))
}

/// Prints the names of removed volumes under a heading, with `gap` in front; without any, nothing.
pub(super) fn print(pruned: &PrunedVolumes, gap: &str) {
    if !pruned.names.is_empty() {
        ui::line(&format!("{gap}Deleted Volumes:"));
    }
    pruned.names.iter().for_each(|name| ui::line(name));
}

/// Reports the volumes that could not be removed; returns the exit code.
pub(super) fn report_failures(pruned: PrunedVolumes) -> u8 {
    let mut code = 0;
    for (name, error) in pruned.failed {
        CliError::failed(format!("remove {name}: {}", crate::error::chain(&error))).report();
        code = code::FAILURE;
    }
    code
}
