//! A network as `docker network inspect` shows it (Docker Engine API, NetworkInspect).

use crate::config::STATE;
use kiln_engine::{Container, Containers, EngineError, Network, network};
use kiln_network::Bridge;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Network object of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    name: String,
    id: String,
    created: String,
    scope: &'static str,
    driver: &'static str,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigFrom,
    config_only: bool,
    containers: BTreeMap<String, Member>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: &'static str,
    options: BTreeMap<String, String>,
    config: Vec<Range>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    ip_range: String,
    gateway: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary_addresses: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

impl Inspected {
    /// Reads the details of a network.
    ///
    /// # Errors
    ///
    /// Fails when the containers cannot be listed.
    pub fn new(network: &Network, all: &Containers<'_>) -> Result<Inspected, EngineError> {
        let members = all.members_of(network)?;
        let config = ranges(network);
        Ok(Inspected {
            name: network.name.clone(),
            id: network.id.clone(),
            created: network.created.clone(),
            scope: "local",
            driver: network.driver.name(),
            enable_ipv4: true,
            enable_ipv6: config.iter().any(|range| range.subnet.contains(':')),
            ipam: Ipam { driver: "default", options: BTreeMap::new(), config },
            internal: network.internal,
            attachable: network.attachable,
            ingress: false,
            config_from: ConfigFrom { network: "" },
            config_only: false,
            containers: members.iter().filter_map(|member| shown(member, network)).collect(),
            options: options(network),
            labels: network.labels.clone(),
        })
    }
}

/// Options of the network; those of the default one as its bridge has them.
fn options(network: &Network) -> BTreeMap<String, String> {
    let mut options = network.options.clone();
    if network.is_default() {
        options.insert(network::BRIDGE_NAME.to_owned(), network.bridge());
        options.insert(network::ICC.to_owned(), "true".to_owned());
    }
    options
}

fn ranges(network: &Network) -> Vec<Range> {
    if network.is_default() {
        // Its subnet is chosen with its first container.
        let known = Bridge::ranges(Path::new(STATE), &network.bridge()).ok().flatten();
        let Some(known) = known else { return Vec::new() };
        let of = |subnet: String, gateway: String| Range { subnet, gateway, ..Range::default() };
        let ipv6 = known.subnet6.map(|subnet| of(subnet.to_string(), subnet.gateway().to_string()));
        return std::iter::once(of(known.subnet.to_string(), known.gateway.to_string()))
            .chain(ipv6)
            .collect();
    }
    let ipv4 = network.ipv4.as_ref().map(|pool| Range {
        subnet: pool.subnet.to_string(),
        ip_range: pool.range.map_or_else(String::new, |range| range.to_string()),
        gateway: pool.gateway.to_string(),
        auxiliary_addresses: pool.auxiliary.iter().map(|(k, v)| (k.clone(), v.to_string())).collect(),
    });
    let ipv6 = network.ipv6.as_ref().map(|pool| Range {
        subnet: pool.subnet.to_string(),
        ip_range: String::new(),
        gateway: pool.subnet.gateway().to_string(),
        auxiliary_addresses: pool.auxiliary.iter().map(|(k, v)| (k.clone(), v.to_string())).collect(),
    });
    ipv4.into_iter().chain(ipv6).collect()
}

/// A container that runs, with its id.
fn shown(container: &Container, network: &Network) -> Option<(String, Member)> {
    let is_here = |id: &str| id == network.id || id.is_empty() && network.is_default();
    let endpoint = container.endpoints.iter().find(|endpoint| is_here(&endpoint.network))?;
    let ipv6 = endpoint.ipv6.as_ref().map(|ipv6| format!("{}/{}", ipv6.address, ipv6.prefix));
    let member = Member {
        name: container.name.clone(),
        endpoint_id: endpoint.id.clone(),
        mac_address: endpoint.mac.clone(),
        ipv4_address: format!("{}/{}", endpoint.address, endpoint.prefix),
        ipv6_address: ipv6.unwrap_or_default(),
    };
    Some((container.id.clone(), member))
}
