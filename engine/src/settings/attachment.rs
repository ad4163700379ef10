//! Networks that a container is connected to, and what it asks for in each.

use crate::network::Network;
use crate::record::Container;
use crate::settings::{NetworkMode, Settings};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Connection of a container to a network, whether or not the container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// Id of the network; in options of the user its name, its id or the beginning of one.
    pub network: String,
    /// Name of the network; empty in options of the user.
    pub name: String,
    /// Further names of the container in the network.
    pub aliases: Vec<String>,
    /// Other containers under names that only this one uses.
    pub links: Vec<Link>,
    /// IPv4 address that it has at each start; any free one when `None`.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address that it has at each start; one that follows from the IPv4 address when `None`.
    pub ipv6: Option<Ipv6Addr>,
    /// MAC address; one that follows from the IPv4 address when `None`.
    pub mac: Option<[u8; 6]>,
    /// Priority as the way out: the network with the highest one has the default route.
    pub priority: i64,
}

/// Another container under a further name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Id of the container; in options of the user its name or id.
    pub container: String,
    /// Name of the container at the creation of the link.
    pub name: String,
    /// Name under which the linking container reaches it.
    pub alias: String,
}

/// A connection that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// The same network more than once.
    #[error("network {0:?} is specified multiple times")]
    Twice(String),
    /// The host's network, or none, beside another one.
    #[error("conflicting options: cannot attach both user-defined and non-user-defined network-modes: {0}")]
    Modes(String),
    /// An option that the network does not have.
    #[error("invalid config for network {0}: invalid endpoint settings: {1}")]
    Endpoint(String, &'static str),
    /// An address outside of the network.
    #[error(
        "invalid config for network {0}: invalid endpoint settings: no configured subnet contains IP address {1}"
    )]
    NotIn(String, IpAddr),
    /// Text that is no link.
    #[error("bad format for links: {0}")]
    Link(String),
    /// Text that is no IP address.
    #[error("invalid {0} address: {1:?}")]
    Address(&'static str, String),
    /// Text that is no MAC address of a network device.
    #[error(
        "invalid MAC address: {0:?}: write six pairs of digits, such as 02:42:ac:11:00:02, of a single device"
    )]
    Mac(String),
    /// A container that shares a network namespace.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    Shared,
    /// A container without network devices.
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    Private,
    /// The networks `host` and `none` are chosen at the creation of a container.
    #[error(
        "container cannot be connected to or disconnected from the network {0}: it is chosen by `run --network {0}`"
    )]
    Mode(String),
    /// A second connection to a network.
    #[error("endpoint with name {container} already exists in network {network}")]
    Connected {
        /// Name of the container.
        container: String,
        /// Name of the network.
        network: String,
    },
    /// A network that the container is not connected to.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// Id of the container.
        container: String,
        /// Name of the network.
        network: String,
    },
}

impl Attachment {
    /// Connection to a network without requests.
    pub(crate) fn to(network: &Network) -> Attachment {
        Attachment { network: network.id.clone(), name: network.name.clone(), ..Attachment::default() }
    }

    /// Checks what is asked for against the network.
    ///
    /// # Errors
    /// [`AttachmentError::Endpoint`] and [`AttachmentError::NotIn`].
    pub(crate) fn check(&self, network: &Network) -> Result<(), AttachmentError> {
        let refuse = |reason| Err(AttachmentError::Endpoint(network.name.clone(), reason));
        if network.is_predefined() {
            if self.ipv4.is_some() || self.ipv6.is_some() {
                return refuse("user specified IP address is supported on user defined networks only");
            }
            if !self.aliases.is_empty() {
                return refuse(
                    "network-scoped alias is supported only for containers in user defined networks",
                );
            }
        }
        let is_in = |address: IpAddr| match address {
            IpAddr::V4(address) => network.ipv4.as_ref().is_some_and(|pool| pool.subnet.contains(address)),
            IpAddr::V6(address) => network.ipv6.as_ref().is_some_and(|pool| pool.subnet.contains(address)),
        };
        let asked = [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)].into_iter().flatten();
        match asked.into_iter().find(|address| !is_in(*address)) {
            Some(address) => Err(AttachmentError::NotIn(network.name.clone(), address)),
            None => Ok(()),
        }
    }

    /// The MAC address with colons.
    pub fn mac_text(&self) -> String {
        self.mac.map_or_else(String::new, |mac| mac_text(&mac))
    }
}

impl Link {
    /// Reads a link of the form `CONTAINER[:ALIAS]`.
    ///
    /// # Errors
    /// [`AttachmentError::Link`].
    pub fn parse(text: &str) -> Result<Link, AttachmentError> {
        let (container, alias) = text.split_once(':').unwrap_or((text, text));
        let alias = alias.trim_start_matches('/');
        let is_word = |text: &str| !text.is_empty() && !text.contains([':', ' ', '\t', '\n']);
        match is_word(container) && is_word(alias) {
            true => {
                Ok(Link { container: container.to_owned(), name: String::new(), alias: alias.to_owned() })
            }
            false => Err(AttachmentError::Link(text.to_owned())),
        }
    }
}

/// Reads a MAC address of a single device, with colons or dashes.
///
/// # Errors
/// [`AttachmentError::Mac`] for other texts, and for addresses of groups.
pub fn mac(text: &str) -> Result<[u8; 6], AttachmentError> {
    let wrong = || AttachmentError::Mac(text.to_owned());
    let pair = |pair: &str| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2);
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(pair).collect();
    let mac: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    // The lowest bit of the first byte marks groups.
    if mac[0] & 1 == 1 || mac == [0; 6] { Err(wrong()) } else { Ok(mac) }
}

pub(crate) fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Settings {
    /// Connections of a container, with that to the default network of older records.
    pub(crate) fn attachments(&self, default: &Network) -> Vec<Attachment> {
        match (&self.attachments, &self.network) {
            (Some(attachments), _) => attachments.clone(),
            (None, NetworkMode::Bridge) => vec![Attachment::to(default)],
            (None, _) => Vec::new(),
        }
    }
}

impl Container {
    /// Connections of the container; `default` is the default network, which older records do not name.
    pub fn attachments(&self, default: &Network) -> Vec<Attachment> {
        self.settings.attachments(default)
    }

    /// Names of its networks, in the order of its interfaces; for a container without any, the name of its mode.
    pub fn network_names(&self) -> Vec<String> {
        match &self.settings.attachments {
            Some(all) if self.settings.network.has_networks() => {
                all.iter().map(|attachment| attachment.name.clone()).collect()
            }
            _ => vec![self.settings.network.name()],
        }
    }

    /// Names of the container in a network of users, each once.
    pub fn names_in(&self, attachment: &Attachment) -> Vec<String> {
        let short: String = self.id.chars().take(12).collect();
        let own = [self.name.clone()].into_iter().chain(attachment.aliases.iter().cloned());
        let mut names: Vec<String> = Vec::new();
        for name in own.chain([short, self.settings.hostname.clone()]) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// Network that is the way out of a container, as the reference chooses it: of those that have one, that with the highest
/// priority, and of several the first by name. `None` when none leads out.
pub(crate) fn way_out<'a>(
    all: impl Iterator<Item = (&'a Attachment, &'a Network)>,
) -> Option<&'a Attachment> {
    let leading = all.filter(|(_, network)| network.driver.connects() && !network.internal);
    let best = leading.min_by(|(a, _), (b, _)| (-a.priority, &a.name).cmp(&(-b.priority, &b.name)));
    best.map(|(attachment, _)| attachment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Driver;
    use kiln_network::dns::{Member, Membership};
    use std::collections::BTreeMap;

    fn network(name: &str, internal: bool) -> Network {
        Network {
            id: format!("id of {name}"),
            name: name.to_owned(),
            driver: Driver::Bridge,
            created: String::new(),
            internal,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            ipv4: None,
            ipv6: None,
        }
    }

    #[test]
    fn the_way_out_is_chosen_by_priority_and_name() {
        let check = |networks: &[(&str, i64, bool)], expected: Option<&str>| {
            let all: Vec<(Attachment, Network)> = networks
                .iter()
                .map(|(name, priority, internal)| {
                    let network = network(name, *internal);
                    (Attachment { priority: *priority, ..Attachment::to(&network) }, network)
                })
                .collect();
            let out = way_out(all.iter().map(|(attachment, network)| (attachment, network)));
            assert_eq!(out.map(|attachment| attachment.name.as_str()), expected, "{networks:?}");
        };
        check(&[("web", 0, false), ("db", 0, false)], Some("db"));
        check(&[("web", 1, false), ("db", 0, false)], Some("web"));
        check(&[("web", -1, false), ("db", -2, false)], Some("web"));
        check(&[("web", 9, true), ("db", 0, false)], Some("db"));
        check(&[("web", 0, true)], None);
        check(&[], None);
    }

    #[test]
    fn members_have_their_names_and_addresses() {
        let json = r#"{"id":"0123456789abcdef","name":"server","created":"","image":
            "sha256:0000000000000000000000000000000000000000000000000000000000000000","image_name":"","auto_remove":false,
            "state":{"Created":{"error":null,"code":0}},
            "settings":{"hostname":"0123456789ab","user":"","environment":[],"entrypoint":null,"command":null,"dir":"",
            "labels":{},"stop_signal":null,"tty":false,"interactive":false,"network":{"user":"web"},"attachments":[
            {"network":"n1","name":"web","aliases":["www","server"],"links":[{"container":"c2","alias":"db"}]},
            {"network":"n0","name":"bridge"}]},
            "endpoints":[{"network":"n1","address":"10.1.0.2","prefix":24,"gateway":"10.1.0.1","mac":"",
            "ipv6":{"address":"fd00::2","prefix":64,"gateway":"fd00::1"}}]}"#;
        let mut container: Container = serde_json::from_str(json).unwrap();
        let expected = Membership {
            network: "web".to_owned(),
            addresses: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            names: ["server", "www", "0123456789ab"].map(str::to_owned).to_vec(),
        };
        let (id, networks) = (container.id.clone(), vec![expected.clone()]);
        let member = Member { id, networks, servers: Vec::new(), forwards: true };
        assert_eq!(container.member(), member);
        assert_eq!(container.network_names(), ["web", "bridge"]);
        container.settings.hostname = "host".to_owned();
        assert_eq!(container.member().networks[0].names, ["server", "www", "0123456789ab", "host"]);
        container.endpoints.clear();
        assert!(container.member().networks.is_empty() && !container.has_names());
        // A container of an older version is in the default network.
        (container.settings.attachments, container.settings.network) = (None, NetworkMode::Bridge);
        assert_eq!(container.attachments(&network("bridge", false))[0].name, "bridge");
        assert_eq!(
            (container.member().networks, container.network_names()),
            (vec![], vec!["bridge".to_owned()])
        );
    }

    #[test]
    fn links_and_mac_addresses() {
        let link = Link::parse("db:database").unwrap();
        assert_eq!((link.container.as_str(), link.alias.as_str()), ("db", "database"));
        assert_eq!(Link::parse("db").unwrap().alias, "db");
        for wrong in ["", ":", "a:", ":b", "a:b:c", "a b"] {
            assert!(Link::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(mac("02-42-AC-11-00-02"), Ok([2, 0x42, 0xac, 0x11, 0, 2]));
        for wrong in ["", "02:42:ac:11:00", "03:00:00:00:00:01", "00:00:00:00:00:00", "2:42:ac:11:0:2"] {
            assert!(mac(wrong).is_err(), "{wrong}");
        }
    }
}
