//! Networks of a container as `docker inspect` shows them.

use crate::commands::ports::{self, HostPort};
use kiln_engine::{Attachment, Container, Containers, Endpoint, NetworkMode, State};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    bridge: &'static str,
    ports: BTreeMap<String, Option<Vec<HostPort>>>,
    #[serde(flatten)]
    default: Addresses,
    networks: BTreeMap<String, Network>,
}

/// Addresses of an endpoint; empty without one.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Addresses {
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<IpamConfig>,
    links: Option<Vec<String>>,
    aliases: Option<Vec<String>>,
    gw_priority: i64,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(flatten)]
    addresses: Addresses,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<String>>,
}

#[derive(Serialize)]
struct IpamConfig {
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

impl NetworkSettings {
    pub(super) fn new(container: &Container, all: &Containers<'_>) -> NetworkSettings {
        let default = all.networks().ok().map(|networks| networks.default_network());
        let attachments = default.as_ref().map(|default| container.attachments(default)).unwrap_or_default();
        let find = |attachment: &Attachment| {
            container.endpoints.iter().find(|endpoint| {
                endpoint.network == attachment.network
                    || endpoint.network.is_empty()
                        && default.as_ref().is_some_and(|default| default.id == attachment.network)
            })
        };
        let is_default = |attachment: &&Attachment| attachment.name == kiln_engine::network::DEFAULT;
        let of_default = attachments.iter().find(is_default).and_then(find);
        let mut networks: BTreeMap<String, Network> = attachments
            .iter()
            .map(|one| (one.name.clone(), Network::new(container, one, find(one), is_default(&one))))
            .collect();
        if let mode @ (NetworkMode::None | NetworkMode::Host) = &container.settings.network {
            let id = all.networks().ok().and_then(|networks| Some(networks.find(&mode.name()).ok()?.id));
            let id = id.filter(|_| !matches!(container.state, State::Created { .. }));
            networks.insert(mode.name(), Network::of_mode(id.unwrap_or_default()));
        }
        NetworkSettings {
            bridge: "",
            ports: ports::in_use(container),
            default: of_default.map(Addresses::new).unwrap_or_default(),
            networks,
        }
    }
}

impl Network {
    fn new(
        container: &Container,
        attachment: &Attachment,
        endpoint: Option<&Endpoint>,
        is_default: bool,
    ) -> Network {
        let text = |address: Option<String>| address.unwrap_or_default();
        let was_started = !matches!(container.state, State::Created { .. });
        let is_static = attachment.ipv4.is_some() || attachment.ipv6.is_some();
        let links = attachment.links.iter().map(|link| format!("{}:{}", link.name, link.alias));
        let mut addresses = endpoint.map(Addresses::new).unwrap_or_default();
        if endpoint.is_none() {
            addresses.mac_address = attachment.mac_text();
        }
        Network {
            ipam_config: is_static.then(|| IpamConfig {
                ipv4_address: text(attachment.ipv4.map(|address| address.to_string())),
                ipv6_address: text(attachment.ipv6.map(|address| address.to_string())),
            }),
            links: (!attachment.links.is_empty()).then(|| links.collect()),
            aliases: (!attachment.aliases.is_empty()).then(|| attachment.aliases.clone()),
            gw_priority: attachment.priority,
            // As in the reference, it is settled at the first start.
            network_id: if was_started { attachment.network.clone() } else { String::new() },
            addresses,
            dns_names: (!is_default && was_started).then(|| container.names_in(attachment)),
        }
    }

    fn of_mode(network_id: String) -> Network {
        Network {
            ipam_config: None,
            links: None,
            aliases: None,
            gw_priority: 0,
            network_id,
            addresses: Addresses::default(),
            dns_names: None,
        }
    }
}

impl Addresses {
    fn new(endpoint: &Endpoint) -> Addresses {
        let ipv6 = endpoint.ipv6.as_ref();
        Addresses {
            endpoint_id: endpoint.id.clone(),
            mac_address: endpoint.mac.clone(),
            gateway: if endpoint.internal { String::new() } else { endpoint.gateway.to_string() },
            ip_address: endpoint.address.to_string(),
            ip_prefix_len: endpoint.prefix,
            ipv6_gateway: ipv6.map_or_else(String::new, |ipv6| ipv6.gateway.to_string()),
            global_ipv6_address: ipv6.map_or_else(String::new, |ipv6| ipv6.address.to_string()),
            global_ipv6_prefix_len: ipv6.map_or(0, |ipv6| ipv6.prefix),
        }
    }
}
