//! Command `kiln network rm`.

use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::error::{CliError, code};
use crate::missing;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError};
use std::ffi::OsString;
use std::path::Path;

/// Remove networks.
#[derive(Debug, Parser)]
struct Rm {
    /// Do not fail for networks that do not exist
    #[arg(short, long)]
    force: bool,
    /// Remove these networks: names or ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Rm as clap::CommandFactory>::command()
}

/// Removes each network, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let rm: Rm = arguments::parse("network rm", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let networks = containers.networks()?;
    let mut code = 0;
    for name in &rm.networks {
        let removed =
            networks.find(name).and_then(|network| containers.remove_network(&network, Path::new(STATE)));
        match removed {
            Ok(()) => ui::line(name),
            Err(error) => {
                // With -f it is enough that there is none.
                if !(rm.force && matches!(error, EngineError::NoSuchNetwork(_))) {
                    code = code::FAILURE;
                    missing::network(&networks, error).report();
                }
            }
        }
    }
    Ok(code)
}
