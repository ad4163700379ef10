//! `kiln wait`.

use super::start::sound;
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::Containers;
use std::ffi::OsString;

/// Wait until containers have ended, and print their exit codes.
#[derive(Debug, Parser)]
struct Wait {
    /// Containers to wait for: names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Wait as clap::CommandFactory>::command()
}

/// Waits for each container in turn; continues after a failure, and returns exit code 1 then.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let wait: Wait = arguments::parse("wait", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut result = 0;
    for name in &wait.containers {
        match wait_for(&containers, name) {
            Ok(code) => ui::line(&code.to_string()),
            Err(error) => {
                error.report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}

/// Waits for the end of a container's program; returns its exit code.
fn wait_for(containers: &Containers<'_>, name: &str) -> Result<i32, CliError> {
    let container = sound(containers, name)?;
    if container.state.is_live() {
        let connection = containers.connect(&container)?;
        // Asked before the state is read again: no end in between is missed.
        let asked = connection.filter(|connection| connection.ask_for_end().is_ok());
        if let Some(code) = asked.and_then(|connection| connection.wait()) {
            return Ok(code);
        }
        if let Ok(live) = containers.live(&container) {
            live.wait();
        }
    }
    Ok(sound(containers, &container.id)?.state.code())
}
