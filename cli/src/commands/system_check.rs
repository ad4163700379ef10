//! `kiln system check`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use std::ffi::OsString;

/// Verify every blob, layer, image and name of the store.
#[derive(Debug, Parser)]
struct Check {
    /// Repair damaged parts, and remove those that cannot be repaired
    #[arg(long)]
    repair: bool,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Check as clap::CommandFactory>::command()
}

/// Prints a line for each problem; fails when problems remain.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let check: Check = arguments::parse("system check", arguments)?;
    let session = Session::open(globals)?;
    let found = session.store.check(check.repair)?;
    for problem in &found.problems {
        match &problem.done {
            None => ui::line(&problem.what),
            Some(done) => ui::line(&format!("{}: {done}", problem.what)),
        }
    }
    let left = found.problems.iter().filter(|problem| problem.done.is_none()).count();
    let (blobs, layers, images) = (found.blobs, found.layers, found.images);
    ui::line(&format!(
        "checked {blobs} blobs, {layers} layers, {images} images: {}",
        match found.problems.len() {
            0 => "all are sound".to_owned(),
            1 => "1 problem".to_owned(),
            more => format!("{more} problems"),
        }
    ));
    if left > 0 {
        return Err(CliError::failed(format!("{left} of the store's parts are damaged"))
            .hint("run `kiln system check --repair` to have them made again or removed"));
    }
    Ok(0)
}
