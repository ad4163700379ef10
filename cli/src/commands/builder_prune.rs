//! `kiln builder prune`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use std::ffi::OsString;

/// Remove build cache.
#[derive(Debug, Parser)]
struct Prune {
    /// Remove all of it [default: the cache has no parts that are kept]
    #[arg(short, long)]
    all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Prune as clap::CommandFactory>::command()
}

/// Forgets what earlier builds made; images keep their layers.
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
