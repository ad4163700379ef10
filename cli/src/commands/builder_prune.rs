//! `kiln builder prune`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use std::ffi::OsString;
use std::io::IsTerminal;

/// Remove build cache.
#[derive(Debug, Parser)]
struct Prune {
    /// Remove all of it; accepted for Docker's users, as there are no shared parts
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Forgets what earlier builds made; images keep their layers.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let prune: Prune = arguments::parse("builder prune", arguments)?;
    let session = Session::open(globals)?;
    if !prune.force && !confirmed()? {
        return Ok(0);
    }
    let usage = session.store.prune_steps()?;
    session.store.remove_caches()?;
    ui::line(&format!("Total:\t{}", text::size(usage.bytes)));
    Ok(0)
}

fn confirmed() -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::failed("not asked to remove the build cache")
            .hint("add -f to remove it without a question"));
    }
    ui::tell("WARNING! This will remove all build cache. Are you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| CliError::failed(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
