//! Command `kiln port`.

use super::{each, ports};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::Containers;
use std::ffi::OsString;

/// List the published ports of a container.
#[derive(Debug, Parser)]
struct Port {
    /// Container to look at: name or id
    container: String,
    /// Show only the addresses of this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Port as clap::CommandFactory>::command()
}

/// Prints a line for each published port.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let port: Port = arguments::parse("port", arguments)?;
    port.port.as_deref().map(check).transpose()?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, &port.container)?;
    let lines = ports::lines(&container);
    let Some(wanted) = &port.port else {
        lines.iter().for_each(|(inside, address)| ui::line(&format!("{inside} -> {address}")));
        return Ok(0);
    };
    let full = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let mut found = lines.iter().filter(|(inside, _)| *inside == full).peekable();
    if found.peek().is_none() {
        return Err(CliError::failed(format!("No public port '{wanted}' published for {}", port.container)));
    }
    found.for_each(|(_, address)| ui::line(&address.to_string()));
    Ok(0)
}

/// Checks the form of a port.
fn check(text: &str) -> Result<(), CliError> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_valid =
        port.parse::<u16>().is_ok_and(|port| port > 0) && ["tcp", "udp", "sctp"].contains(&protocol);
    match is_valid {
        true => Ok(()),
        false => Err(CliError::failed(format!("invalid port: {text}"))
            .hint("write PORT or PORT/PROTOCOL, such as 80 or 53/udp")),
    }
}
