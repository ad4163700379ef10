//! Names in a container: domain name, name servers, entries of /etc/hosts.

use kiln_network::etc::Resolver;
use kiln_network::resolv;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Address of an entry for /etc/hosts that stands for the host.
pub(crate) const HOST_GATEWAY: &str = "host-gateway";

/// Names in a container beyond the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolution {
    /// Domain name of the container; empty for none.
    pub domainname: String,
    /// Name servers, instead of the host's.
    pub servers: Vec<String>,
    /// Domains in which names are looked up, instead of the host's; `.` for none.
    pub search: Vec<String>,
    /// Options of the resolver, instead of the host's.
    pub options: Vec<String>,
    /// Entries for /etc/hosts, as `NAME:ADDRESS`.
    pub hosts: Vec<String>,
}

/// A name or an address that is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolutionError {
    /// An entry without an address.
    #[error("invalid argument {0:?} for \"--add-host\" flag: bad format for add-host: {0:?}")]
    Entry(String),
    /// An entry whose address is malformed.
    #[error("invalid argument {0:?} for \"--add-host\" flag: invalid IP address in add-host: {1:?}")]
    EntryAddress(String, String),
    /// A name server without an IP address.
    #[error("invalid argument {0:?} for \"--dns\" flag: IP address is not correctly formatted: {0}")]
    Server(String),
    /// A domain with invalid characters.
    #[error("invalid argument {0:?} for \"--dns-search\" flag: {0} is not a valid domain")]
    Domain(String),
    /// An option with white space.
    #[error("invalid argument {0:?} for \"--dns-option\" flag: an option is one word")]
    Option(String),
}

/// Reads `NAME:ADDRESS` or `NAME=ADDRESS`, in which the address may be in brackets, or `host-gateway`. Returns the first
/// form.
///
/// # Errors
/// [`ResolutionError::Entry`] and [`ResolutionError::EntryAddress`].
pub fn host_entry(text: &str) -> Result<String, ResolutionError> {
    let bad = || ResolutionError::Entry(text.to_owned());
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = parts.filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    if name.contains(char::is_whitespace) {
        return Err(bad());
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if bare != HOST_GATEWAY && bare.parse::<IpAddr>().is_err() {
        return Err(ResolutionError::EntryAddress(text.to_owned(), address.to_owned()));
    }
    Ok(format!("{name}:{bare}"))
}

/// Checks the address of a name server.
///
/// # Errors
/// [`ResolutionError::Server`].
pub fn server(text: &str) -> Result<String, ResolutionError> {
    let bare = text.split('%').next().unwrap_or_default();
    let valid = bare.parse::<IpAddr>().is_ok() && !text.contains(char::is_whitespace);
    if valid { Ok(text.to_owned()) } else { Err(ResolutionError::Server(text.to_owned())) }
}

/// Checks a domain in which names are looked up; `.` stands for none.
///
/// # Errors
/// [`ResolutionError::Domain`].
pub fn search_domain(text: &str) -> Result<String, ResolutionError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let has_name = text == "." || text.bytes().any(|byte| byte.is_ascii_alphanumeric());
    if has_name && text.len() <= 255 && text.bytes().all(valid) {
        return Ok(text.to_owned());
    }
    Err(ResolutionError::Domain(text.to_owned()))
}

/// Checks an option of the resolver.
///
/// # Errors
/// [`ResolutionError::Option`].
pub fn resolver_option(text: &str) -> Result<String, ResolutionError> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(ResolutionError::Option(text.to_owned()));
    }
    Ok(text.to_owned())
}

impl Resolution {
    /// Text of `/etc/resolv.conf`, made of the host's.
    pub(crate) fn resolv_conf(&self, resolver: Resolver) -> String {
        match resolver {
            // The other servers are asked by this one.
            Resolver::Names => resolv::for_names(&resolv::for_host_network(), &self.search, &self.options),
            _ => self.replaced(resolver.text()),
        }
    }

    fn replaced(&self, text: String) -> String {
        if self.servers.is_empty() && self.search.is_empty() && self.options.is_empty() {
            return text;
        }
        resolv::replaced(&text, &self.servers, &self.search, &self.options)
    }

    /// Entries for `/etc/hosts`: addresses and names. `gateway` is the address of the host.
    pub(crate) fn entries(&self, gateway: &str) -> Vec<(String, String)> {
        let split = |entry: &String| {
            let (name, address) = entry.split_once(':')?;
            let address = if address == HOST_GATEWAY { gateway } else { address };
            Some((address.to_owned(), name.to_owned()))
        };
        self.hosts.iter().filter_map(split).collect()
    }

    /// Name of the host with its domain.
    pub(crate) fn full_name(&self, hostname: &str) -> String {
        if self.domainname.is_empty() {
            hostname.to_owned()
        } else {
            format!("{hostname}.{}", self.domainname)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_for_hosts() {
        assert_eq!(host_entry("a:1.2.3.4").as_deref(), Ok("a:1.2.3.4"));
        assert_eq!(host_entry("a=[::1]").as_deref(), Ok("a:::1"));
        assert_eq!(host_entry("a:::1").as_deref(), Ok("a:::1"));
        assert_eq!(host_entry("a:host-gateway").as_deref(), Ok("a:host-gateway"));
        for wrong in ["a", ":1.2.3.4", "a:x", "a:", "a b:1.2.3.4"] {
            assert!(host_entry(wrong).is_err(), "{wrong}");
        }
        let resolution =
            Resolution { hosts: vec!["a:::1".into(), "b:host-gateway".into()], ..Resolution::default() };
        let pair = |address: &str, name: &str| (address.to_owned(), name.to_owned());
        assert_eq!(resolution.entries("10.0.0.1"), [pair("::1", "a"), pair("10.0.0.1", "b")]);
    }

    #[test]
    fn the_name_server_of_networks_is_the_only_one() {
        let resolution = Resolution {
            servers: vec!["9.9.9.9".into()],
            search: vec!["lan".into()],
            options: vec!["timeout:1".into()],
            ..Resolution::default()
        };
        let text = resolution.resolv_conf(Resolver::Names);
        let line = |keyword: &str| text.lines().filter(|line| line.starts_with(keyword)).collect::<Vec<_>>();
        assert_eq!(line("nameserver"), ["nameserver 127.0.0.11"]);
        assert_eq!(line("search"), ["search lan"]);
        assert_eq!(line("options"), ["options timeout:1 ndots:0"]);
        assert_eq!(resolution.resolv_conf(Resolver::ForContainer).matches("nameserver").count(), 1);
    }

    #[test]
    fn servers_and_domains() {
        assert!(server("1.1.1.1").is_ok() && server("fe80::1%eth0").is_ok() && server("x").is_err());
        assert!(search_domain("a.b-c").is_ok() && search_domain(".").is_ok());
        assert!(search_domain("").is_err() && search_domain("a b").is_err() && search_domain("..").is_err());
        assert!(resolver_option("ndots:2").is_ok() && resolver_option("a b").is_err());
    }
}
