//! Command `kiln network disconnect`.

use super::each;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::missing;
use crate::session::{self, Session};
use clap::Parser;
use kiln_engine::Containers;
use std::ffi::OsString;

/// Disconnect a container from a network.
#[derive(Debug, Parser)]
struct Disconnect {
    /// Disconnect the container from its next start on, where it cannot be done now
    #[arg(short, long)]
    force: bool,
    /// Network to disconnect from: name or id
    network: String,
    /// Container to disconnect: name or id
    container: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Disconnect as clap::CommandFactory>::command()
}

/// Disconnects a container, at once when it runs; prints nothing.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let disconnect: Disconnect = arguments::parse("network disconnect", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, &disconnect.container)?;
    session::adopt(&containers, &container);
    let networks = containers.networks()?;
    let done = containers.disconnect_network(&container, &disconnect.network, disconnect.force);
    done.map_err(|error| missing::network(&networks, error))?;
    Ok(0)
}
