//! Flags for the networks of a new container.

use super::refused;
use crate::error::{CliError, code};
use clap::Args;
use kiln_engine::settings::attachment::{AttachmentError, mac};
use kiln_engine::{Attachment, Link, NetworkMode, RunOptions};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Networks of a new container.
#[derive(Debug, Default, Args)]
pub(super) struct NetworkFlags {
    /// Connect the container to a network: bridge, none, host, container:NAME or one of yours, also as name=NETWORK,ip=…
    /// with the keys alias, ip, ip6, mac-address and gw-priority; may be repeated
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    network: Vec<String>,
    /// Give the container this IPv4 address in the first network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Give the container this IPv6 address in the first network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    #[arg(long, value_name = "ADDRESS", hide = true)]
    link_local_ip: Vec<String>,
    /// Give the container this MAC address in the first network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Let the container reach another one under a name; may be repeated
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
    /// Give the container a further name in the first network; may be repeated
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
}

/// Reads an address of an IP version.
///
/// # Errors
///
/// Fails for other texts.
pub(in crate::commands) fn address<A: FromStr>(version: &'static str, text: &str) -> Result<A, CliError> {
    text.parse().map_err(|_| refused(AttachmentError::Address(version, text.to_owned())))
}

/// Refuses options of endpoints that do not exist.
///
/// # Errors
///
/// Fails when there are some.
pub(in crate::commands) fn refuse_options(options: &[String], link_local: &[String]) -> Result<(), CliError> {
    let message = match (options.first(), link_local.first()) {
        (Some(option), _) => format!("driver option {option:?} is not supported: endpoints have none"),
        (None, Some(address)) => {
            format!(
                "--link-local-ip {address} is not supported: link-local addresses follow from the MAC address"
            )
        }
        (None, None) => return Ok(()),
    };
    Err(CliError::failed(message).with_code(code::USAGE))
}

impl NetworkFlags {
    /// Adds the networks to the options.
    pub(super) fn add_to(&self, options: &mut RunOptions) -> Result<(), CliError> {
        refuse_options(&[], &self.link_local_ip)?;
        let mut all: Vec<Attachment> =
            self.network.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        if let Some(first) = all.first_mut() {
            self.complete(first)?;
        }
        let is_mode = |name: &str| matches!(name, "none" | "host") || name.starts_with("container:");
        if let Some(mode) = all.iter().find(|one| is_mode(&one.network)) {
            if all.len() > 1 {
                return Err(refused(AttachmentError::Modes(mode.network.clone())));
            }
            check_mode(mode)?;
        }
        let first = all.first().map_or("bridge", |first| first.network.as_str());
        options.network = match first {
            "bridge" => NetworkMode::Bridge,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            "container:" => return Err(refused("invalid container format container:<name|id>")),
            other => match other.strip_prefix("container:") {
                Some(name) => NetworkMode::Container(name.to_owned()),
                None => NetworkMode::User(other.to_owned()),
            },
        };
        if options.network.has_networks() {
            options.attachments = all;
        }
        Ok(())
    }

    /// Adds the flags for the first network, unless its long form has them.
    fn complete(&self, first: &mut Attachment) -> Result<(), CliError> {
        let conflict = |flag: &str, what: &str| {
            refused(format!("conflicting options: cannot specify both {flag} and per-network {what}"))
        };
        if !self.network_alias.is_empty() && !first.aliases.is_empty() {
            return Err(conflict("--network-alias", "alias"));
        }
        first.aliases.extend(self.network_alias.iter().cloned());
        if let Some(text) = &self.ip
            && first.ipv4.replace(address::<Ipv4Addr>("IPv4", text)?).is_some()
        {
            return Err(conflict("--ip", "IPv4 address"));
        }
        if let Some(text) = &self.ip6
            && first.ipv6.replace(address::<Ipv6Addr>("IPv6", text)?).is_some()
        {
            return Err(conflict("--ip6", "IPv6 address"));
        }
        if let Some(text) = &self.mac_address
            && first.mac.replace(mac(text).map_err(refused)?).is_some()
        {
            return Err(conflict("--mac-address", "MAC address"));
        }
        for text in &self.link {
            first.links.push(Link::parse(text).map_err(refused)?);
        }
        Ok(())
    }
}

/// Refuses what a container that shares a network namespace, or has none, cannot request.
fn check_mode(mode: &Attachment) -> Result<(), CliError> {
    let network = mode.network.as_str();
    let kind = if network.starts_with("container:") { "container" } else { network };
    if !mode.links.is_empty() {
        return Err(refused(format!(
            "conflicting options: {kind} type networking can't be used with links. This would result in undefined behavior"
        )));
    }
    if mode.mac.is_some() && network != "none" {
        return Err(refused("conflicting options: mac-address and the network mode"));
    }
    if mode.ipv4.is_some() || mode.ipv6.is_some() {
        let reason = "user specified IP address is supported on user defined networks only";
        return Err(refused(AttachmentError::Endpoint(network.to_owned(), reason)));
    }
    if !mode.aliases.is_empty() {
        let reason = "network-scoped alias is supported only for containers in user defined networks";
        return Err(refused(AttachmentError::Endpoint(network.to_owned(), reason)));
    }
    Ok(())
}

/// Reads the name of a network, or the form with keys.
fn parse(text: &str) -> Result<Attachment, CliError> {
    let mut attachment = Attachment::default();
    if !text.contains('=') {
        attachment.network = if text == "default" { "bridge".to_owned() } else { text.to_owned() };
        return match text.is_empty() {
            true => Err(refused("network name is empty")),
            false => Ok(attachment),
        };
    }
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| refused(format!("invalid field {field:?}")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" if value == "default" => attachment.network = "bridge".to_owned(),
            "name" => attachment.network = value.to_owned(),
            "alias" => attachment.aliases.push(value.to_owned()),
            "ip" => attachment.ipv4 = Some(address("IPv4", value)?),
            "ip6" => attachment.ipv6 = Some(address("IPv6", value)?),
            "mac-address" => attachment.mac = Some(mac(value).map_err(refused)?),
            "gw-priority" => {
                let wrong = |_| refused(format!("invalid gw-priority {value:?}: it is a whole number"));
                attachment.priority = value.parse().map_err(wrong)?;
            }
            "driver-opt" => refuse_options(&[value.to_owned()], &[])?,
            "link-local-ip" => refuse_options(&[], &[value.to_owned()])?,
            key => {
                return Err(refused(format!("invalid field key {key:?} in --network {text:?}"))
                    .hint("keys: name, alias, ip, ip6, mac-address, gw-priority"));
            }
        }
    }
    match attachment.network.is_empty() {
        true => {
            Err(refused(format!("network name is missing in --network {text:?}")).hint("write name=NETWORK"))
        }
        false => Ok(attachment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(flags: NetworkFlags) -> Result<RunOptions, String> {
        let mut options = RunOptions::default();
        flags.add_to(&mut options).map(|()| options).map_err(|error| format!("{error:?}"))
    }

    fn networks(texts: &[&str]) -> NetworkFlags {
        NetworkFlags {
            network: texts.iter().map(|text| (*text).to_owned()).collect(),
            ..NetworkFlags::default()
        }
    }

    #[test]
    fn networks_are_read_in_both_forms() {
        let long =
            "name=db,alias=a,alias=b,ip=10.1.0.9,ip6=fd00::9,mac-address=02:00:00:00:00:09,gw-priority=-1";
        let options = options(networks(&["web", long])).unwrap();
        assert_eq!(options.network, NetworkMode::User("web".to_owned()));
        assert_eq!(options.attachments[0], Attachment { network: "web".into(), ..Attachment::default() });
        let second = &options.attachments[1];
        assert_eq!((second.network.as_str(), second.priority), ("db", -1));
        assert_eq!(second.aliases, ["a", "b"]);
        assert_eq!(second.mac_text(), "02:00:00:00:00:09");
    }

    #[test]
    fn wrong_networks_are_refused() {
        for (texts, expected) in [
            (&["host", "web"][..], "cannot attach both user-defined and non-user-defined"),
            (&["container:"], "invalid container format"),
            (&["name=web,ip=x"], "invalid IPv4 address"),
            (&["name=web,colour=red"], "invalid field key"),
            (&["alias=x"], "network name is missing"),
            (&["name=web,driver-opt=a=b"], "is not supported"),
            (&["name=web,gw-priority=high"], "whole number"),
            (&[""], "network name is empty"),
        ] {
            let error = options(networks(texts)).unwrap_err();
            assert!(error.contains(expected), "{texts:?}: {error}");
        }
        let both = NetworkFlags { ip: Some("10.1.0.9".into()), ..networks(&["name=web,ip=10.1.0.8"]) };
        assert!(options(both).unwrap_err().contains("both --ip and per-network IPv4 address"));
        let host = NetworkFlags { ip: Some("10.1.0.9".into()), ..networks(&["host"]) };
        assert!(options(host).unwrap_err().contains("on user defined networks only"));
        let linked = NetworkFlags { link: vec!["db".into()], ..networks(&["host"]) };
        assert!(options(linked).unwrap_err().contains("can't be used with links"));
    }
}
