//! Command `kiln network connect`.

use super::each;
use super::run::address;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::missing;
use crate::session::{self, Session};
use clap::Parser;
use kiln_engine::settings::attachment;
use kiln_engine::{Attachment, Containers, Link};
use std::ffi::OsString;

/// Connect a container to a network.
#[derive(Debug, Parser)]
struct Connect {
    /// Give the container a further name in the network; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    #[arg(long, value_name = "NAME=VALUE", hide = true)]
    driver_opt: Vec<String>,
    /// Prefer the network with the highest number as the container's way out
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i64,
    /// Give the container this IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Give the container this IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Let the container reach another one under a name; may be repeated
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
    #[arg(long, value_name = "ADDRESS", hide = true)]
    link_local_ip: Vec<String>,
    /// Network to connect to: name or id
    network: String,
    /// Container to connect: name or id
    container: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Connect as clap::CommandFactory>::command()
}

/// Connects a container, at once when it runs; prints nothing.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let connect: Connect = arguments::parse("network connect", arguments)?;
    let attachment = connect.attachment()?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, &connect.container)?;
    session::adopt(&containers, &container);
    let networks = containers.networks()?;
    let connected = containers.connect_network(&container, &attachment);
    connected.map_err(|error| missing::network(&networks, error))?;
    Ok(0)
}

impl Connect {
    fn attachment(&self) -> Result<Attachment, CliError> {
        super::run::refuse_options(&self.driver_opt, &self.link_local_ip)?;
        let wrong = |error: attachment::AttachmentError| CliError::failed(error.to_string());
        Ok(Attachment {
            network: self.network.clone(),
            aliases: self.alias.clone(),
            links: self.link.iter().map(|text| Link::parse(text)).collect::<Result<_, _>>().map_err(wrong)?,
            ipv4: self.ip.as_deref().map(|text| address("IPv4", text)).transpose()?,
            ipv6: self.ip6.as_deref().map(|text| address("IPv6", text)).transpose()?,
            priority: self.gw_priority,
            ..Attachment::default()
        })
    }
}
