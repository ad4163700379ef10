//! Command `kiln volume rm`.

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::missing;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError};
use std::ffi::OsString;

/// Remove volumes with their files.
#[derive(Debug, Parser)]
struct Rm {
    /// Do not fail for volumes that do not exist
    #[arg(short, long)]
    force: bool,
    /// Remove these volumes
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Rm as clap::CommandFactory>::command()
}

/// Removes each volume, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let rm: Rm = arguments::parse("volume rm", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut code = 0;
    for name in &rm.volumes {
        match containers.remove_volume(name) {
            Ok(()) => ui::line(name),
            Err(EngineError::NoSuchVolume(_)) if rm.force => ui::line(name),
            Err(error) => {
                explained(&containers, error).report();
                code = code::FAILURE;
            }
        }
    }
    Ok(code)
}

fn explained(containers: &Containers<'_>, error: EngineError) -> CliError {
    let EngineError::VolumeInUse { containers: ids, .. } = &error else {
        return missing::volume(containers, error);
    };
    let ids: Vec<&str> = ids.split(", ").collect();
    let hint = match ids.as_slice() {
        [id] => format!("remove the container first, also one that has ended: kiln rm {}", short(id)),
        ids => {
            let ids: Vec<&str> = ids.iter().map(|id| short(id)).collect();
            format!("remove the containers first, also those that have ended: kiln rm {}", ids.join(" "))
        }
    };
    CliError::from(error).hint(hint)
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
