//! Flags for names of hosts, name servers and ports.

use super::refused;
use crate::error::CliError;
use clap::Args;
use kiln_engine::RunOptions;
use kiln_engine::settings::{PortRequest, Publication, Resolution, ports, resolution};

/// Names in the container.
#[derive(Debug, Default, Args)]
pub(super) struct NameFlags {
    /// Set the domain name in the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Ask this name server instead of the host's; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Look names up in this domain instead of the host's, or . for none; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Set an option of the resolver; may be repeated
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Add a line to /etc/hosts, NAME:ADDRESS, or NAME:host-gateway for this host; may be repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Publish a port of the container on this host, [[ADDRESS:][PORT]:]PORT[/PROTOCOL]; may be repeated
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// Publish all exposed ports, on free ports of this host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Note that the container listens on a port, PORT[-PORT][/PROTOCOL]; may be repeated
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
}

impl NameFlags {
    /// Adds the names to the options.
    pub(super) fn add_to(&self, options: &mut RunOptions) -> Result<(), CliError> {
        let all = |list: &[String], read: fn(&str) -> Result<String, resolution::ResolutionError>| {
            list.iter().map(|text| read(text)).collect::<Result<Vec<_>, _>>().map_err(refused)
        };
        options.resolution = Resolution {
            domainname: self.domainname.clone().unwrap_or_default(),
            servers: all(&self.dns, resolution::server)?,
            search: all(&self.dns_search, resolution::search_domain)?,
            options: all(&self.dns_option, resolution::resolver_option)?,
            hosts: all(&self.add_host, resolution::host_entry)?,
        };
        let exposed = self.expose.iter().map(|text| ports::exposed(text)).collect::<Result<Vec<_>, _>>();
        options.exposed = exposed.map_err(refused)?.concat();
        let ports = self.publish.iter().map(|text| PortRequest::parse(text)).collect::<Result<_, _>>();
        options.published = Publication { ports: ports.map_err(refused)?, all: self.publish_all };
        Ok(())
    }
}
