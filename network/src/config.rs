//! Configuration of a network and its published ports. Plain data.

use super::address::{Subnet, Subnet6};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Name of the default network's bridge.
pub const DEFAULT_BRIDGE: &str = "kiln0";

/// Configuration of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Name of the bridge: at most 15 of `[A-Za-z0-9_-]`.
    pub bridge: String,
    /// IPv4 subnet; a range that is not in use when `None`.
    pub ipv4: Option<Subnet>,
    /// Address of the bridge; the first of the subnet when `None`.
    pub gateway: Option<Ipv4Addr>,
    /// Part of the subnet in which containers get addresses that they do not request; all of it when `None`.
    pub range: Option<Subnet>,
    /// Addresses that no container gets.
    pub reserved: Vec<IpAddr>,
    /// Subnets that a range which is chosen must not overlap with.
    pub avoid: Vec<Subnet>,
    /// IPv6 addresses of the network.
    pub ipv6: Ipv6,
    /// True when nothing is forwarded into it or out of it.
    pub internal: bool,
    /// True when its containers cannot reach each other.
    pub isolated_members: bool,
    /// MTU in bytes; the kernel's default when `None`.
    pub mtu: Option<u32>,
}

/// IPv6 addresses of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipv6 {
    /// Generated unique local range where the host has IPv6, else none.
    #[default]
    Automatic,
    /// No IPv6 in this network.
    Off,
    /// This range of addresses.
    Range(Subnet6),
}

/// Network device of this host whose own network containers are in (macvlan).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Name of the device.
    pub device: String,
    /// How the containers' devices reach each other.
    pub mode: ParentMode,
}

/// How devices on the same parent reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParentMode {
    /// Directly, as on a bridge.
    #[default]
    Bridge,
    /// Not at all, even by a switch outside.
    Private,
    /// By a switch outside that sends packets back.
    Vepa,
    /// Only one device has the parent.
    Passthru,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            bridge: DEFAULT_BRIDGE.to_owned(),
            ipv4: None,
            gateway: None,
            range: None,
            reserved: Vec::new(),
            avoid: Vec::new(),
            ipv6: Ipv6::Automatic,
            internal: false,
            isolated_members: false,
            mtu: None,
        }
    }
}

impl NetworkConfig {
    /// Name of the bridge. `None` when the kernel or the packet rules cannot take it.
    pub(super) fn checked_bridge(&self) -> Option<&str> {
        is_interface_name(&self.bridge).then_some(self.bridge.as_str())
    }
}

/// True when the kernel and the packet rules can take the name of an interface.
pub(super) fn is_interface_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=15).contains(&name.len()) && name.bytes().all(plain)
}

/// True when the kernel can have an interface of this name, such as `eth0.10`.
pub(super) fn is_parent_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    (1..=15).contains(&name.len()) && name.bytes().all(plain)
}

/// Addresses that a container requests in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// IPv4 address; a free one when `None`.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address; derived from the IPv4 address when `None`.
    pub ipv6: Option<Ipv6Addr>,
    /// MAC address; derived from the IPv4 address when `None`.
    pub mac: Option<[u8; 6]>,
    /// True when the network is not the container's way out, as that is another one.
    pub without_route: bool,
}

/// Ports of the host to map to ports of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Address of the host; all addresses of both IP versions when `None`.
    pub host_address: Option<IpAddr>,
    /// First port of the host; any free ports when 0.
    pub host_port: u16,
    /// First port of the container.
    pub container_port: u16,
    /// Number of consecutive ports.
    pub count: u16,
    /// Transport protocol of the ports.
    pub protocol: Protocol,
}

impl PortMapping {
    /// Mapping of one TCP port on all addresses.
    pub fn tcp(host_port: u16, container_port: u16) -> PortMapping {
        PortMapping { host_address: None, host_port, container_port, count: 1, protocol: Protocol::Tcp }
    }
}

/// Transport protocols with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// SCTP, protocol number 132.
    Sctp,
}

impl Protocol {
    /// Protocol number in IP headers.
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

/// Text that is not `tcp`, `udp` or `sctp`.
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

/// Consecutive ports of one address of the host that are mapped to a container, with the ports that were picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Address of the host; the unspecified address stands for all of its IP version.
    pub host_address: IpAddr,
    /// First port of the host.
    pub host_port: u16,
    /// First port of the container.
    pub container_port: u16,
    /// Number of consecutive ports.
    pub count: u16,
    /// Transport protocol of the ports.
    pub protocol: Protocol,
}

impl From<&Binding> for PortMapping {
    fn from(binding: &Binding) -> PortMapping {
        PortMapping {
            host_address: Some(binding.host_address),
            host_port: binding.host_port,
            container_port: binding.container_port,
            count: binding.count,
            protocol: binding.protocol,
        }
    }
}

impl Binding {
    /// First port of the host that is in both. `None` without a conflict.
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

    /// Pairs of a host port and a container port.
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
