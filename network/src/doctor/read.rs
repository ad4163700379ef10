//! Reads the facts. Nothing is changed, and no state is created.

use super::{Chain, Facts, FilterError, Interface, OwnNetwork, Route};
use crate::link;
use crate::netlink::{Netlink, NetlinkError};
use crate::nft::{self, HookedChain};
use crate::resolv;
use crate::store::Store;
use crate::sysctl::{self, Version};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Table of Kiln's own rules.
const OWN_TABLE: &str = "kiln";

impl Facts {
    /// Reads the facts about this host. `state` is the directory in which Kiln keeps the state of networks.
    pub fn read(state: &Path) -> Facts {
        let networks = networks(state);
        let names = interfaces();
        let ways = Netlink::open_route().and_then(|mut netlink| link::ways(&mut netlink)).unwrap_or_default();
        let name = |index: u32| names.get(&index).cloned().unwrap_or_default();
        let to_route = |way: &link::Way| Some(Route { subnet: way.subnet?, interface: name(way.interface) });
        let default = ways.iter().filter(|way| way.subnet.is_none()).min_by_key(|way| way.metric);
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Facts {
            forwards: sysctl::is_forwarding(Version::Four),
            is_writable: sysctl::is_writable(),
            chains: chains(&networks),
            has_old_filters: text("/proc/net/ip_tables_names").lines().any(|table| table == "filter"),
            has_ipv6: sysctl::has_ipv6(),
            resolv: resolv::for_host_network(),
            resolved: text(resolv::RESOLVED),
            routes: ways.iter().filter_map(to_route).collect(),
            way_out: default.map(|way| {
                let name = name(way.interface);
                Interface { mtu: mtu(&name).unwrap_or(super::USUAL_MTU), name }
            }),
            filters_bridges: sysctl::bridges_are_filtered(),
            ports: range(&text("/proc/sys/net/ipv4/ip_local_port_range")),
            networks,
        }
    }
}

fn networks(state: &Path) -> Vec<OwnNetwork> {
    let known = Store::look(state).networks().into_iter();
    known
        .map(|known| OwnNetwork { mtu: mtu(&known.bridge), subnet: known.ipv4, bridge: known.bridge })
        .collect()
}

/// Names of interfaces by their indices.
fn interfaces() -> BTreeMap<u32, String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let index = fs::read_to_string(entry.path().join("ifindex")).ok()?;
        Some((index.trim().parse().ok()?, entry.file_name().to_string_lossy().into_owned()))
    };
    entries.filter_map(one).collect()
}

fn mtu(interface: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()
}

fn chains(networks: &[OwnNetwork]) -> Result<Vec<Chain>, FilterError> {
    let found = nft::forward_chains().map_err(|NetlinkError(errno)| match errno {
        libc::EPERM | libc::EACCES => FilterError::Forbidden,
        _ => FilterError::Missing,
    })?;
    let others = found.into_iter().filter(|chain| chain.table != OWN_TABLE);
    Ok(others.map(|chain| to_chain(chain, networks)).collect())
}

fn to_chain(chain: HookedChain, networks: &[OwnNetwork]) -> Chain {
    // The name of an interface ends with a zero byte in a rule.
    let names = |bridge: &str| {
        let wanted = [bridge.as_bytes(), b"\0"].concat();
        chain.rules.iter().any(|rule| rule.windows(wanted.len()).any(|window| window == wanted))
    };
    let family = match chain.family {
        2 => "ip",
        10 => "ip6",
        _ => "inet",
    };
    let named = networks.iter().map(|network| network.bridge.clone()).filter(|bridge| names(bridge));
    Chain {
        family,
        named: named.collect(),
        drops: chain.drops || chain.ends_in_drop,
        table: chain.table,
        name: chain.name,
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
