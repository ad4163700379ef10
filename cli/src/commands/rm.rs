//! `kiln rm`.

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::missing;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError, Listed};
use std::ffi::OsString;

/// Remove containers.
#[derive(Debug, Parser)]
struct Rm {
    /// Kill running containers first, and do not fail for containers that do not exist
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes of the containers as well
    #[arg(short, long)]
    volumes: bool,
    /// Remove these containers: names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Rm as clap::CommandFactory>::command()
}

/// Removes each container, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let rm: Rm = arguments::parse("rm", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut code = 0;
    for name in &rm.containers {
        let removed = containers.find(name).and_then(|container| {
            containers.remove(&container, rm.force)?;
            match &container {
                Listed::Sound(container) if rm.volumes => containers.remove_anonymous_volumes(container),
                Listed::Sound(_) | Listed::Damaged(_) => Ok(()),
            }
        });
        match removed {
            Ok(()) => ui::line(name),
            Err(error) => {
                // With -f it is enough that there is none.
                if !(rm.force && matches!(error, EngineError::NoSuchContainer(_))) {
                    code = code::FAILURE;
                }
                missing::container(&containers, error).report();
            }
        }
    }
    Ok(code)
}
