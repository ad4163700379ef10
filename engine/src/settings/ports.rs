//! Ports that a container exposes, and ports of the host that are published for it.

use kiln_network::{Binding, PortMapping, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Names of the protocols with ports.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// A port that does not exist, or cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Text that is no port and no range of ports.
    #[error("invalid range format for --expose: {0}: invalid port")]
    Expose(String),
    /// A protocol without such ports.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// Text without a port of the container.
    #[error("no port specified: {0}<empty>")]
    NoPort(String),
    /// Text that is no port of a container.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// Text that is no port of the host.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// Text that is no IP address; the names of hosts are not looked up.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// Ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {0} and {1}")]
    Ranges(String, String),
    /// Key that no published port has, in the form with keys.
    #[error("invalid field key {0}")]
    Key(String),
    /// Field without a value, in the form with keys.
    #[error("invalid field {0}")]
    Field(String),
    /// Value of a key that does not exist.
    #[error("invalid {0} value: {1}")]
    Value(&'static str, String),
}

/// Consecutive ports that are published, as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Address of the host; all addresses when `None`.
    pub address: Option<IpAddr>,
    /// First and last port of the host; any free ports when `None`. A range for one port of the container stands for any
    /// free port in it.
    pub host: Option<(u16, u16)>,
    /// First and last port of the container.
    pub container: (u16, u16),
    /// Transport protocol of the ports.
    pub protocol: Protocol,
}

impl PortRequest {
    /// Reads `[[ADDRESS:][HOST PORT[-PORT]]:]PORT[-PORT][/PROTOCOL]`, or `target=PORT,published=PORT,protocol=PROTOCOL`.
    ///
    /// # Errors
    /// Fails for other texts, for names of hosts, and for ranges of different lengths.
    pub fn parse(text: &str) -> Result<PortRequest, PortError> {
        if text.contains('=') {
            return PortRequest::parse_keys(text);
        }
        let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
        let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (container, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
        let protocol = read_protocol(protocol)?;
        let bare = address.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(address);
        let address = match bare {
            "" => None,
            bare => Some(bare.parse().map_err(|_| PortError::Address(bare.to_owned()))?),
        };
        if container.is_empty() {
            return Err(PortError::NoPort(text.to_owned()));
        }
        let ports = read_range(container).filter(|(first, _)| *first > 0);
        let ports = ports.ok_or_else(|| PortError::Container(container.to_owned()))?;
        let host_ports = match host {
            "" | "0" => None,
            host => Some(read_range(host).ok_or_else(|| PortError::Host(host.to_owned()))?),
        };
        let length = |(first, last): (u16, u16)| last - first;
        if host_ports.is_some_and(|host| length(host) != length(ports)) && ports.0 != ports.1 {
            return Err(PortError::Ranges(container.to_owned(), host.to_owned()));
        }
        Ok(PortRequest { address, host: host_ports, container: ports, protocol })
    }

    /// Reads the form with keys, which the services of a swarm have as well.
    fn parse_keys(text: &str) -> Result<PortRequest, PortError> {
        let (mut target, mut published, mut protocol) = ("", "", "tcp");
        for field in text.split(',') {
            let (key, value) = field.split_once('=').ok_or_else(|| PortError::Field(field.to_owned()))?;
            match key.to_ascii_lowercase().as_str() {
                "target" => target = value,
                "published" => published = value,
                "protocol" => protocol = value,
                "mode" if value == "host" || value == "ingress" => {}
                "mode" => return Err(PortError::Value("publish mode", value.to_owned())),
                _ => return Err(PortError::Key(key.to_owned())),
            }
        }
        PortRequest::parse(&format!("{published}:{target}/{protocol}"))
    }

    /// Ports of the container with their protocols, such as `80/tcp`.
    pub fn container_ports(&self) -> impl Iterator<Item = String> {
        (self.container.0..=self.container.1).map(|port| format!("{port}/{}", self.protocol))
    }

    /// Number of ports of the host among which one is chosen; 1 when there is no choice.
    fn choices(&self) -> u16 {
        match self.host {
            Some((first, last)) if self.container.0 == self.container.1 => last - first + 1,
            _ => 1,
        }
    }
}

/// Ports that a container publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Ports that the user named.
    pub ports: Vec<PortRequest>,
    /// True when all other exposed ports are published on free ports of the host as well.
    pub all: bool,
}

impl Publication {
    /// True without ports to publish.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && !self.all
    }

    /// Mappings for the network. `chosen` has the place of each request's port among its choices.
    pub(crate) fn mappings(&self, exposed: &BTreeSet<String>, chosen: &[u16]) -> Vec<PortMapping> {
        let named: Vec<String> = self.ports.iter().flat_map(PortRequest::container_ports).collect();
        let others = exposed.iter().filter(|port| self.all && !named.contains(port));
        let others = others.filter_map(|port| exposed_port(port)).map(|(port, protocol)| PortMapping {
            host_address: None,
            host_port: 0,
            container_port: port,
            count: 1,
            protocol,
        });
        let named = self.ports.iter().enumerate().map(|(index, request)| PortMapping {
            host_address: request.address,
            host_port: request.host.map_or(0, |(first, _)| first + chosen.get(index).copied().unwrap_or(0)),
            container_port: request.container.0,
            count: request.container.1 - request.container.0 + 1,
            protocol: request.protocol,
        });
        named.chain(others).collect()
    }

    /// Moves the request with this port of the host to its next choice; false when there is none.
    pub(crate) fn choose_next(&self, chosen: &mut [u16], taken: u16) -> bool {
        for (request, place) in self.ports.iter().zip(chosen) {
            let port = request.host.map(|(first, _)| first + *place);
            if port == Some(taken) && *place + 1 < request.choices() {
                *place += 1;
                return true;
            }
        }
        false
    }
}

/// Ports of the host by the container's port: all ports that a container exposes, those not published with an empty list.
pub fn by_port(exposed: &BTreeSet<String>, bindings: &[Binding]) -> BTreeMap<String, Vec<(IpAddr, u16)>> {
    let mut all: BTreeMap<String, Vec<(IpAddr, u16)>> =
        exposed.iter().map(|port| (port.clone(), Vec::new())).collect();
    for binding in bindings {
        for place in 0..binding.count {
            let port = format!("{}/{}", binding.container_port + place, binding.protocol);
            all.entry(port).or_default().push((binding.host_address, binding.host_port + place));
        }
    }
    all
}

fn exposed_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some((port.parse().ok()?, protocol.parse().ok()?))
}

fn read_protocol(text: &str) -> Result<Protocol, PortError> {
    text.parse().map_err(|_| PortError::Protocol(text.to_owned()))
}

fn read_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Reads `PORT[-PORT][/PROTOCOL]`. Returns each port with its protocol, such as `80/tcp`.
///
/// # Errors
/// [`PortError::Expose`] and [`PortError::Protocol`].
pub fn exposed(text: &str) -> Result<Vec<String>, PortError> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(PortError::Protocol(protocol));
    }
    let range = read_range(range).filter(|(first, _)| *first > 0);
    let (first, last) = range.ok_or_else(|| PortError::Expose(text.to_owned()))?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(exposed("80").unwrap(), ["80/tcp"]);
        assert_eq!(exposed("80-81/UDP").unwrap(), ["80/udp", "81/udp"]);
        for wrong in ["", "x", "0", "70000", "81-80", "80/x", "80-"] {
            assert!(exposed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_forms_of_published_ports() {
        let read = |text: &str| {
            let PortRequest { address, host, container, protocol } = PortRequest::parse(text).unwrap();
            let address = address.map_or(String::new(), |address| address.to_string());
            format!("{address} {host:?} {container:?} {protocol}")
        };
        assert_eq!(read("80"), " None (80, 80) tcp");
        assert_eq!(read("8080:80/UDP"), " Some((8080, 8080)) (80, 80) udp");
        assert_eq!(read("127.0.0.1:8080:80"), "127.0.0.1 Some((8080, 8080)) (80, 80) tcp");
        assert_eq!(read("127.0.0.1::80"), "127.0.0.1 None (80, 80) tcp");
        assert_eq!(read("[::1]:8080:80/sctp"), "::1 Some((8080, 8080)) (80, 80) sctp");
        assert_eq!(read("::1:8080:80"), "::1 Some((8080, 8080)) (80, 80) tcp");
        assert_eq!(read("8000-8002:80-82"), " Some((8000, 8002)) (80, 82) tcp");
        assert_eq!(read("8000-8002:80"), " Some((8000, 8002)) (80, 80) tcp");
        assert_eq!(read("0:80"), " None (80, 80) tcp");
        assert_eq!(read("published=8080,target=80,protocol=udp"), " Some((8080, 8080)) (80, 80) udp");
        assert_eq!(read("target=80"), " None (80, 80) tcp");
    }

    #[test]
    fn wrong_published_ports() {
        for (text, expected) in [
            ("", "no port specified: <empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("http", "invalid containerPort: http"),
            ("0", "invalid containerPort: 0"),
            ("80:65536", "invalid containerPort: 65536"),
            ("x:80", "invalid hostPort: x"),
            ("82-80:80-82", "invalid hostPort: 82-80"),
            ("80/x", "invalid proto: x"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("80-81:80-82", "invalid ranges specified for container and host Ports: 80-82 and 80-81"),
            ("target=80,x=1", "invalid field key x"),
            ("target=80,mode=none", "invalid publish mode value: none"),
            ("target=80,80", "invalid field 80"),
        ] {
            assert_eq!(PortRequest::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_range_for_one_port_is_a_choice() {
        let ports = ["8000-8002:80", "9000-9001:90-91"].map(|text| PortRequest::parse(text).unwrap());
        let published = Publication { ports: ports.into(), all: true };
        let exposed: BTreeSet<String> = ["80/tcp", "53/udp"].map(str::to_owned).into();
        let mut chosen = [0, 0];
        let first =
            |chosen: &[u16]| published.mappings(&exposed, chosen).iter().map(|m| m.host_port).collect();
        let hosts: Vec<u16> = first(&chosen);
        assert_eq!(hosts, [8000, 9000, 0]);
        assert!(published.choose_next(&mut chosen, 8000) && published.choose_next(&mut chosen, 8001));
        let hosts: Vec<u16> = first(&chosen);
        assert_eq!(hosts, [8002, 9000, 0]);
        assert!(!published.choose_next(&mut chosen, 8002) && !published.choose_next(&mut chosen, 9000));
    }
}
