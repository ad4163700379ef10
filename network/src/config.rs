//! What a network and its published ports should be like. Plain data.

use super::address::{Subnet, Subnet6};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Name of the default network's bridge.
pub const DEFAULT_BRIDGE: &str = "kiln0";

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Name of its bridge: at most 15 of `[A-Za-z0-9_-]`.
    pub bridge: String,
    /// Its version 4 addresses; a range that nobody uses when none is given.
    pub ipv4: Option<Subnet>,
    /// The bridge's own address, where it should not be the first of the range.
    pub gateway: Option<Ipv4Addr>,
    /// Its version 6 addresses.
    pub ipv6: Ipv6,
    /// Whether there is no way out of it, nor in.
    pub internal: bool,
    /// Whether its containers cannot reach each other.
    pub isolated_members: bool,
    /// Largest packet; the kernel's choice when none is given.
    pub mtu: Option<u32>,
}

/// Version 6 in a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipv6 {
    /// Local addresses of our choice where the host has version 6, else none.
    #[default]
    Automatic,
    /// No.
    Off,
    /// These addresses.
    Range(Subnet6),
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            bridge: DEFAULT_BRIDGE.to_owned(),
            ipv4: None,
            gateway: None,
            ipv6: Ipv6::Automatic,
            internal: false,
            isolated_members: false,
            mtu: None,
        }
    }
}

impl NetworkConfig {
    /// The bridge's name, when the kernel and the rule table can take it.
    pub(super) fn checked_bridge(&self) -> Option<&str> {
        let fits = (1..=15).contains(&self.bridge.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (fits && self.bridge.bytes().all(plain)).then_some(self.bridge.as_str())
    }
}

/// What a container wants of its place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its version 4 address; a free one when none is given.
    pub ipv4: Option<Ipv4Addr>,
    /// Its version 6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address; made from the version 4 address when none is given.
    pub mac: Option<[u8; 6]>,
}

/// Ports of the host that lead to ports of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Address of the host; all of both versions when none is given.
    pub host_address: Option<IpAddr>,
    /// First port of the host; any that are free when 0.
    pub host_port: u16,
    /// First port of the container.
    pub container_port: u16,
    /// How many ports in a row.
    pub count: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl PortMapping {
    /// One TCP port on all addresses.
    pub fn tcp(host_port: u16, container_port: u16) -> PortMapping {
        PortMapping { host_address: None, host_port, container_port, count: 1, protocol: Protocol::Tcp }
    }
}

/// Protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP headers.
    pub(super) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// Not `tcp`, `udp` or `sctp`.
#[derive(Debug, thiserror::Error)]
#[error("unknown protocol `{0}`: tcp, udp and sctp have ports")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Protocol, UnknownProtocol> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// Ports in a row of one address of the host that lead to a container, as it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Address of the host, which may stand for all of its version.
    pub host_address: IpAddr,
    /// First port of the host.
    pub host_port: u16,
    /// First port of the container.
    pub container_port: u16,
    /// How many.
    pub count: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Binding {
    /// Whether both want the same port of the host: the first that they do.
    pub(super) fn conflict(&self, other: &Binding) -> Option<u16> {
        let (one, two) = (self.host_address, other.host_address);
        let address =
            one == two || (one.is_ipv4() == two.is_ipv4() && (one.is_unspecified() || two.is_unspecified()));
        let first = self.host_port.max(other.host_port);
        let last = self.last_port().min(other.last_port());
        (address && self.protocol == other.protocol && first <= last).then_some(first)
    }

    pub(super) fn last_port(&self) -> u16 {
        self.host_port.saturating_add(self.count.saturating_sub(1))
    }

    /// Pairs of a port of the host and one of the container.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u16, u16)> {
        (self.host_port..=self.last_port()).zip(self.container_port..=u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bridges() {
        let checked = |bridge: &str| {
            let config = NetworkConfig { bridge: bridge.to_owned(), ..NetworkConfig::default() };
            config.checked_bridge().is_some()
        };
        assert!(checked("kiln0") && checked("kiln-0123456789"));
        assert!(!checked("") && !checked("a/b") && !checked("kiln-0123456789a") && !checked("eth0.1"));
    }

    #[test]
    fn conflicts_of_ports() {
        let binding = |address: &str, host_port, count, protocol| Binding {
            host_address: address.parse().unwrap(),
            host_port,
            container_port: 1,
            count,
            protocol,
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let all = binding("0.0.0.0", 80, 10, tcp);
        assert_eq!(all.conflict(&binding("127.0.0.1", 85, 10, tcp)), Some(85));
        assert_eq!(all.conflict(&binding("0.0.0.0", 70, 11, tcp)), Some(80));
        assert_eq!(all.conflict(&binding("0.0.0.0", 90, 1, tcp)), None);
        assert_eq!(all.conflict(&binding("::", 80, 1, tcp)), None);
        assert_eq!(all.conflict(&binding("0.0.0.0", 80, 1, udp)), None);
        assert_eq!(binding("10.0.0.1", 80, 1, tcp).conflict(&binding("10.0.0.2", 80, 1, tcp)), None);
        let last = binding("::", 65535, 1, tcp);
        assert_eq!(last.ports().collect::<Vec<_>>(), [(65535, 1)]);
    }
}
