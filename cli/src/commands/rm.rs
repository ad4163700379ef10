//! `kiln rm`.

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::missing;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError};
use std::ffi::OsString;

/// Remove containers.
#[derive(Debug, Parser)]
struct Rm {
    /// Kill containers that run; those that do not exist are no error
    #[arg(short, long)]
    force: bool,
    /// Remove the volumes that were made for them (they have none yet)
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Rm as clap::CommandFactory>::command()
}

/// Removes each; goes on after failures, and fails in the end.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let rm: Rm = arguments::parse("rm", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut code = 0;
    for name in &rm.containers {
        let removed = containers.find(name).and_then(|container| containers.remove(&container, rm.force));
        match removed {
            Ok(()) => ui::line(name),
            Err(EngineError::NoSuchContainer(_)) if rm.force => {}
            Err(error) => {
                missing::container(&containers, error).report();
                code = code::FAILURE;
            }
        }
    }
    Ok(code)
}
