//! Command `kiln builder prune`: removes the build cache.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use std::ffi::OsString;

/// Remove the build cache.
#[derive(Debug, Parser)]
struct Prune {
    /// Accept the flag as Docker does; the whole cache is removed in any case
    #[arg(short, long)]
    all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Describes the command's arguments for help and completion.
pub fn describe() -> clap::Command {
    <Prune as clap::CommandFactory>::command()
}

/// Removes cache records, layers that no image uses, and cache mounts.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let prune: Prune = arguments::parse("builder prune", arguments)?;
    let session = Session::open(globals)?;
    if !prune.force && !ui::confirm("WARNING! This will remove all build cache.")? {
        return Ok(0);
    }
    let usage = session.store.prune_steps()?;
    session.store.remove_caches()?;
    ui::line(&format!("Total:\t{}", text::size(usage.bytes)));
    Ok(0)
}
