//! Command `kiln unpause`.

use super::each::{self, Names};
use super::pause::with_hint;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use clap::Parser;
use std::ffi::OsString;

/// Let the processes of paused containers go on.
#[derive(Debug, Parser)]
struct Unpause {
    #[command(flatten)]
    names: Names,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Unpause as clap::CommandFactory>::command()
}

/// Thaws each container, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let unpause: Unpause = arguments::parse("unpause", arguments)?;
    each::sound(globals, &unpause.names, |containers, container| {
        containers.unpause(container).map_err(|error| with_hint(error, &container.name))
    })
}
