//! Command `kiln pause`.

use super::each::{self, Names};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use clap::Parser;
use kiln_engine::EngineError;
use std::ffi::OsString;

/// Freeze all processes of containers.
#[derive(Debug, Parser)]
struct Pause {
    #[command(flatten)]
    names: Names,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Pause as clap::CommandFactory>::command()
}

/// Freezes each container, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let pause: Pause = arguments::parse("pause", arguments)?;
    each::sound(globals, &pause.names, |containers, container| {
        containers.pause(container).map_err(|error| with_hint(error, &container.name))
    })
}

/// Adds what to do about a failure to freeze or thaw.
pub(super) fn with_hint(error: EngineError, name: &str) -> CliError {
    let hint = match &error {
        EngineError::AlreadyPaused(_) => format!("`kiln unpause {name}` lets it go on"),
        EngineError::NotPaused(_) => "`kiln ps --filter status=paused` lists those that are".to_owned(),
        EngineError::NotRunning(_) => {
            "only running containers can be paused: `kiln ps` lists them".to_owned()
        }
        EngineError::UnknownCgroups(_) => "end it and run it again".to_owned(),
        _ => return error.into(),
    };
    CliError::from(error).hint(hint)
}
