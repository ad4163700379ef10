//! Kiln's table of packet rules, `inet kiln`.
//!
//! ```text
//! table inet kiln {
//!     map networks4 { type ipv4_addr : verdict; flags interval       # 10.87.0.0/16 : jump from-kiln0
//!     map at4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!     map anywhere4 { type inet_proto . inet_service : ipv4_addr . inet_service }
//!     map loopback4 { type inet_service : ipv4_addr . inet_service; flags interval }
//!     ...6                                                           # the same for version 6
//!     set bridges { type ifname }
//!     set internal { type ifname }
//!     set inside { type ifname . ifname }                            # "kiln0" . "kiln0"
//!     set closed { type nf_proto }                                   # ipv4, where we switched forwarding on
//!
//!     chain published {
//!         dnat ip to ip daddr . meta l4proto . th dport map @at4     # ...6 likewise, as everywhere below
//!         ip daddr 127.0.0.0/8 dnat ip to tcp dport map @loopback4
//!         ip daddr 127.0.0.0/8 return
//!         ip6 daddr fe80::/10 return
//!         dnat ip to meta l4proto . th dport map @anywhere4
//!     }
//!     chain prerouting { hook prerouting dstnat; fib daddr type local jump published }
//!     chain output { hook output dstnat; fib daddr type local jump published }
//!     chain forward {
//!         hook forward filter + 10
//!         ct state established,related accept
//!         iifname . oifname @inside accept
//!         iifname @internal drop; oifname @internal drop
//!         ct status dnat accept
//!         oifname @bridges drop
//!         iifname @bridges accept
//!         meta nfproto @closed iifname @outside oifname @outside drop
//!     }
//!     chain postrouting { hook postrouting srcnat; ip saddr vmap @networks4 }
//!     chain from-kiln0 {
//!         oifname "kiln0" ct status dnat masquerade                  # back to where it came from
//!         oifname @bridges return
//!         masquerade
//!     }
//! }
//! ```
//!
//! The number of rules does not depend on the number of containers and ports; networks have a chain each.
//!
//! The host's own firewall stays in force. Accepting a packet ends only the chain that accepts it, and other chains of
//! the same hook still see it; dropping it is final. So packets that the host's own rules drop are dropped, and this
//! table drops only unsolicited packets into a network: from another network, or from outside to a port that is not
//! published. Where the host did not forward packets before Kiln enabled forwarding, it still does not forward between
//! the interfaces that it had then: otherwise one container would turn it into a router. Interfaces that are created
//! later (Docker's bridges, a VPN) have to be protected by the software that creates them. Multicast and link-local
//! destinations are not changed.

use super::address::{Subnet, Subnet6};
use super::config::Protocol;
use super::netlink::{Answer, NetlinkError};
use super::nft::expression::{
    CT_STATE, CT_STATUS, Expression, FIRST, META_IIFNAME, META_L4PROTO, META_NFPROTO, META_OIFNAME, WORDS,
    accept, back, connection, decided_by, destination_is_local, drop_packet, equal, has_any, interface,
    is_in, jump, mapped, masked, masquerade, meta, network_header, translate_destination, transport_header,
};
use super::nft::{self, Element, Hook, LeadsTo, Set, Transaction, Type, Value};
use super::sysctl;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TABLE: &str = "kiln";
/// Empty chain whose name is the version of these rules in force.
const MARK: &str = "layout-3";

const IPV4: u8 = 2;
const IPV6: u8 = 10;

const ADDRESS4: u32 = 7;
const ADDRESS6: u32 = 8;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const INTERFACE: u32 = 41;
const FAMILY: u32 = 2;

/// Parameters of a network for the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) bridge: String,
    pub(super) ipv4: Subnet,
    pub(super) ipv6: Option<Subnet6>,
    pub(super) internal: bool,
}

/// Entry of a map of ports. Its map follows from its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Address of the host; the unspecified address stands for all of its IP version.
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// Last port of a range, all of which is redirected to the proxy; else equal to `port`.
    pub(super) last: u16,
    pub(super) protocol: Protocol,
    /// Target of its connections: a container, or the proxy.
    pub(super) target: SocketAddr,
}

/// Set of IP versions of which the host forwards nothing between its own interfaces.
const CLOSED: &str = "closed";
/// Set of the host's interfaces without forwarding between them.
const OUTSIDE: &str = "outside";

/// Sets and maps of both IP versions.
const SETS: [Set; 13] = [
    Set { name: "networks4", key: Type::new(&[ADDRESS4], 4), leads_to: LeadsTo::Verdict, ranges: true },
    Set { name: "networks6", key: Type::new(&[ADDRESS6], 16), leads_to: LeadsTo::Verdict, ranges: true },
    port_map("at4", Type::new(&[ADDRESS4, PROTOCOL, PORT], 12), TO4),
    port_map("at6", Type::new(&[ADDRESS6, PROTOCOL, PORT], 24), TO6),
    port_map("anywhere4", Type::new(&[PROTOCOL, PORT], 8), TO4),
    port_map("anywhere6", Type::new(&[PROTOCOL, PORT], 8), TO6),
    Set { ranges: true, ..port_map("loopback4", Type::new(&[PORT], 2), TO4) },
    Set { ranges: true, ..port_map("loopback6", Type::new(&[PORT], 2), TO6) },
    Set { name: "bridges", key: Type::text(&[INTERFACE], 16), leads_to: LeadsTo::Nothing, ranges: false },
    Set { name: "internal", key: Type::text(&[INTERFACE], 16), leads_to: LeadsTo::Nothing, ranges: false },
    Set {
        name: "inside",
        key: Type::new(&[INTERFACE, INTERFACE], 32),
        leads_to: LeadsTo::Nothing,
        ranges: false,
    },
    Set { name: CLOSED, key: Type::new(&[FAMILY], 1), leads_to: LeadsTo::Nothing, ranges: false },
    Set { name: OUTSIDE, key: Type::text(&[INTERFACE], 16), leads_to: LeadsTo::Nothing, ranges: false },
];

const TO4: Type = Type::new(&[ADDRESS4, PORT], 8);
const TO6: Type = Type::new(&[ADDRESS6, PORT], 20);

const fn port_map(name: &'static str, key: Type, data: Type) -> Set {
    Set { name, key, leads_to: LeadsTo::Data(data), ranges: false }
}

/// True when the rules are in force, and contain a network.
pub(super) fn know(bridge: &str) -> Answer<bool> {
    nft::has_chain(TABLE, &chain_of(bridge))
}

/// True when the table exists in this version.
pub(super) fn in_force() -> Answer<bool> {
    nft::has_chain(TABLE, MARK)
}

/// Creates the table anew with the networks and entries. For each IP version in `closed` the host forwards nothing
/// between the interfaces in its list.
pub(super) fn restore(
    networks: &[Network],
    entries: &[Entry],
    closed: &[(sysctl::Version, Vec<String>)],
) -> Answer {
    let mut transaction = Transaction::new(TABLE);
    transaction.fresh_table();
    table(&mut transaction);
    for network in networks {
        add(&mut transaction, network);
    }
    for (map, elements) in by_map(entries) {
        transaction.add(map, &elements);
    }
    let family = |version: &sysctl::Version| match version {
        sysctl::Version::Four => IPV4,
        sysctl::Version::Six => IPV6,
    };
    let element = |key| Element { key, value: Value::Nothing };
    let versions: Vec<Element> = closed.iter().map(|(version, _)| element(vec![family(version)])).collect();
    let names: BTreeSet<&String> = closed.iter().flat_map(|(_, names)| names).collect();
    let names: Vec<Element> = names.into_iter().map(|name| element(interface(name).to_vec())).collect();
    for (set, elements) in [(CLOSED, versions), (OUTSIDE, names)] {
        if !elements.is_empty() {
            transaction.add(set, &elements);
        }
    }
    transaction.commit()
}

/// Adds a network to the existing table.
pub(super) fn add_network(network: &Network) -> Answer {
    let mut transaction = Transaction::new(TABLE);
    add(&mut transaction, network);
    transaction.commit()
}

/// Removes a network; an unknown one is a success.
pub(super) fn remove_network(network: &Network) -> Answer {
    if !know(&network.bridge)? {
        return Ok(());
    }
    let chain = chain_of(&network.bridge);
    let mut transaction = Transaction::new(TABLE);
    for (set, elements) in elements_of(network) {
        transaction.remove(set, &elements);
    }
    transaction.empty_chain(&chain);
    transaction.delete_chain(&chain);
    transaction.commit()
}

/// Adds entries to the maps, all or none; returns false when one of them exists.
pub(super) fn add_entries(entries: &[Entry]) -> Answer<bool> {
    let mut transaction = Transaction::new(TABLE);
    for (map, elements) in by_map(entries) {
        transaction.add_new(map, &elements);
    }
    match transaction.commit() {
        Ok(()) => Ok(true),
        Err(NetlinkError(libc::EEXIST | libc::EBUSY)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes entries; absent ones are a success.
pub(super) fn remove_entries(entries: &[Entry]) -> Answer {
    let mut transaction = Transaction::new(TABLE);
    for (map, elements) in by_map(entries) {
        transaction.remove(map, &elements);
    }
    match transaction.commit() {
        Err(NetlinkError(libc::ENOENT)) if !in_force()? => Ok(()),
        Err(NetlinkError(libc::ENOENT)) => entries.iter().try_for_each(remove_entry),
        other => other,
    }
}

fn remove_entry(entry: &Entry) -> Answer {
    let mut transaction = Transaction::new(TABLE);
    transaction.remove(entry.map(), &entry.elements());
    match transaction.commit() {
        Err(NetlinkError(libc::ENOENT)) => Ok(()),
        other => other,
    }
}

fn chain_of(bridge: &str) -> String {
    format!("from-{bridge}")
}

fn table(transaction: &mut Transaction) {
    for set in SETS {
        transaction.set(set);
    }
    transaction.chain(MARK);
    published(transaction);
    let hook = |kind, number, priority| Hook { kind, number, priority };
    transaction.hooked_chain("prerouting", hook("nat", 0, -100));
    transaction.hooked_chain("output", hook("nat", 3, -100));
    transaction.hooked_chain("forward", hook("filter", 2, 10));
    transaction.hooked_chain("postrouting", hook("nat", 4, 100));
    for chain in ["prerouting", "output"] {
        let mut rule = destination_is_local();
        rule.push(jump("published"));
        transaction.rule(chain, &rule);
    }
    forward(transaction);
    for (version, map) in [(Version::Four, "networks4"), (Version::Six, "networks6")] {
        let mut rule = version.only();
        rule.push(version.source());
        rule.push(decided_by(map));
        transaction.rule("postrouting", &rule);
    }
}

fn published(transaction: &mut Transaction) {
    const CHAIN: &str = "published";
    transaction.chain(CHAIN);
    for (version, map) in [(Version::Four, "at4"), (Version::Six, "at6")] {
        let mut rule = version.only();
        rule.push(version.destination(WORDS));
        rule.extend(protocol_and_port(WORDS + version.words()));
        rule.push(mapped(map));
        rule.push(version.translate());
        transaction.rule(CHAIN, &rule);
    }
    for (version, map) in [(Version::Four, "loopback4"), (Version::Six, "loopback6")] {
        let mut rule = version.only();
        rule.extend(version.to_loopback());
        let mut translate = rule.clone();
        translate.extend([meta(META_L4PROTO, FIRST), equal(&[Protocol::Tcp.number()])]);
        translate.push(transport_header(2, 2, FIRST));
        translate.extend([mapped(map), version.translate()]);
        transaction.rule(CHAIN, &translate);
        rule.push(back());
        transaction.rule(CHAIN, &rule);
    }
    let mut link_local = Version::Six.only();
    link_local.push(Version::Six.destination(FIRST));
    link_local.push(masked(&prefix_mask6(10)));
    link_local.push(equal(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).octets()));
    link_local.push(back());
    transaction.rule(CHAIN, &link_local);
    for (version, map) in [(Version::Four, "anywhere4"), (Version::Six, "anywhere6")] {
        let mut rule = version.only();
        rule.extend(protocol_and_port(WORDS));
        rule.extend([mapped(map), version.translate()]);
        transaction.rule(CHAIN, &rule);
    }
}

fn forward(transaction: &mut Transaction) {
    const CHAIN: &str = "forward";
    const ESTABLISHED: u32 = 2;
    const RELATED: u32 = 4;
    const TRANSLATED_DESTINATION: u32 = 32;
    let mut known = vec![connection(CT_STATE)];
    known.extend(has_any(ESTABLISHED | RELATED));
    known.push(accept());
    transaction.rule(CHAIN, &known);
    // Such packets reach this chain only where packet rules apply to bridges (`br_netfilter`).
    let both = [meta(META_IIFNAME, WORDS), meta(META_OIFNAME, WORDS + 4), is_in("inside"), accept()];
    transaction.rule(CHAIN, &both);
    for key in [META_IIFNAME, META_OIFNAME] {
        transaction.rule(CHAIN, &[meta(key, FIRST), is_in("internal"), drop_packet()]);
    }
    let mut published = vec![connection(CT_STATUS)];
    published.extend(has_any(TRANSLATED_DESTINATION));
    published.push(accept());
    transaction.rule(CHAIN, &published);
    transaction.rule(CHAIN, &[meta(META_OIFNAME, FIRST), is_in("bridges"), drop_packet()]);
    transaction.rule(CHAIN, &[meta(META_IIFNAME, FIRST), is_in("bridges"), accept()]);
    let mut between = vec![meta(META_NFPROTO, FIRST), is_in(CLOSED)];
    for key in [META_IIFNAME, META_OIFNAME] {
        between.extend([meta(key, FIRST), is_in(OUTSIDE)]);
    }
    between.push(drop_packet());
    transaction.rule(CHAIN, &between);
}

fn add(transaction: &mut Transaction, network: &Network) {
    const TRANSLATED_DESTINATION: u32 = 32;
    let chain = chain_of(&network.bridge);
    transaction.chain(&chain);
    let mut home = vec![meta(META_OIFNAME, FIRST), equal(&interface(&network.bridge))];
    home.push(connection(CT_STATUS));
    home.extend(has_any(TRANSLATED_DESTINATION));
    home.push(masquerade());
    transaction.rule(&chain, &home);
    transaction.rule(&chain, &[meta(META_OIFNAME, FIRST), is_in("bridges"), back()]);
    transaction.rule(&chain, &[masquerade()]);
    for (set, elements) in elements_of(network) {
        transaction.add(set, &elements);
    }
}

/// Elements of a network, with their sets.
fn elements_of(network: &Network) -> Vec<(&'static str, Vec<Element>)> {
    let chain = chain_of(&network.bridge);
    let name = interface(&network.bridge);
    let plain = |key: Vec<u8>| vec![Element { key, value: Value::Nothing }];
    let range = |first: Vec<u8>, behind: Vec<u8>| {
        vec![
            Element { key: first, value: Value::Jump(chain.clone()) },
            Element { key: behind, value: Value::RangeEnd },
        ]
    };
    let ipv4 = network.ipv4;
    let behind = Ipv4Addr::from((u32::from(ipv4.network()) | !ipv4.mask()).wrapping_add(1));
    let mut elements = vec![
        ("networks4", range(ipv4.network().octets().to_vec(), behind.octets().to_vec())),
        ("bridges", plain(name.clone())),
        ("inside", plain([name.clone(), name.clone()].concat())),
    ];
    if let Some(ipv6) = network.ipv6 {
        let behind = Ipv6Addr::from((u128::from(ipv6.network()) | !ipv6.mask()).wrapping_add(1));
        elements.push(("networks6", range(ipv6.network().octets().to_vec(), behind.octets().to_vec())));
    }
    if network.internal {
        elements.push(("internal", plain(name)));
    }
    elements
}

impl Entry {
    fn map(&self) -> &'static str {
        let names = match self.address {
            _ if self.is_redirected() => ["loopback4", "loopback6"],
            address if address.is_unspecified() => ["anywhere4", "anywhere6"],
            _ => ["at4", "at6"],
        };
        names[usize::from(self.address.is_ipv6())]
    }

    fn elements(&self) -> Vec<Element> {
        let mut data = octets(self.target.ip());
        data.extend(port(self.target.port()));
        if self.is_redirected() {
            let mut range = vec![Element { key: self.port.to_be_bytes().to_vec(), value: Value::Data(data) }];
            let behind = self.last.checked_add(1);
            range.extend(
                behind.map(|behind| Element { key: behind.to_be_bytes().to_vec(), value: Value::RangeEnd }),
            );
            return range;
        }
        let mut key = if self.address.is_unspecified() { Vec::new() } else { octets(self.address) };
        key.extend([self.protocol.number(), 0, 0, 0]);
        key.extend(port(self.port));
        vec![Element { key, value: Value::Data(data) }]
    }

    /// True when it redirects all loopback addresses to the proxy.
    fn is_redirected(&self) -> bool {
        self.address.is_unspecified() && self.target.ip().is_loopback()
    }
}

/// Elements of port maps, grouped by map.
fn by_map(entries: &[Entry]) -> Vec<(&'static str, Vec<Element>)> {
    let mut maps: Vec<(&'static str, Vec<Element>)> = Vec::new();
    for entry in entries {
        let (map, new) = (entry.map(), entry.elements());
        match maps.iter_mut().find(|(name, _)| *name == map) {
            Some((_, elements)) => elements.extend(new),
            None => maps.push((map, new)),
        }
    }
    maps
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Port in a 4-byte register.
fn port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn protocol_and_port(register: u32) -> [Expression; 2] {
    [meta(META_L4PROTO, register), transport_header(2, 2, register + 1)]
}

fn prefix_mask6(bits: u8) -> [u8; 16] {
    Subnet6::of(Ipv6Addr::UNSPECIFIED, bits).mask().to_be_bytes()
}

/// IP version of the network header.
#[derive(Clone, Copy)]
enum Version {
    Four,
    Six,
}

impl Version {
    fn family(self) -> u8 {
        match self {
            Version::Four => IPV4,
            Version::Six => IPV6,
        }
    }

    /// Length of an address in 4-byte registers.
    fn words(self) -> u32 {
        match self {
            Version::Four => 1,
            Version::Six => 4,
        }
    }

    /// Continues only with packets of this IP version.
    fn only(self) -> Vec<Expression> {
        vec![meta(META_NFPROTO, FIRST), equal(&[self.family()])]
    }

    fn source(self) -> Expression {
        match self {
            Version::Four => network_header(12, 4, FIRST),
            Version::Six => network_header(8, 16, FIRST),
        }
    }

    fn destination(self, register: u32) -> Expression {
        match self {
            Version::Four => network_header(16, 4, register),
            Version::Six => network_header(24, 16, register),
        }
    }

    /// Continues only with packets to loopback.
    fn to_loopback(self) -> Vec<Expression> {
        let destination = self.destination(FIRST);
        match self {
            Version::Four => vec![destination, masked(&[255, 0, 0, 0]), equal(&[127, 0, 0, 0])],
            Version::Six => vec![destination, equal(&Ipv6Addr::LOCALHOST.octets())],
        }
    }

    /// Redirects the connection to the address and port that a map returned.
    fn translate(self) -> Expression {
        translate_destination(self.family(), WORDS, WORDS + self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_into_the_map_of_their_kind() {
        let check = |host: &str, target: &str, map: &str, key: &[u8], data: &[u8]| {
            let target = SocketAddr::new(target.parse().unwrap(), 80);
            let (address, protocol) = (host.parse().unwrap(), Protocol::Tcp);
            let entry = Entry { address, port: 8080, last: 8080, protocol, target };
            let element = Element { key: key.to_vec(), value: Value::Data(data.to_vec()) };
            assert_eq!((entry.map(), &entry.elements()[0]), (map, &element));
        };
        let port = [6, 0, 0, 0, 0x1f, 0x90, 0, 0];
        check("0.0.0.0", "10.87.0.2", "anywhere4", &port, &[10, 87, 0, 2, 0, 80, 0, 0]);
        check("0.0.0.0", "127.0.0.1", "loopback4", &[0x1f, 0x90], &[127, 0, 0, 1, 0, 80, 0, 0]);
        let at = [192, 0, 2, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0];
        check("192.0.2.1", "10.87.0.2", "at4", &at, &[10, 87, 0, 2, 0, 80, 0, 0]);
        let target = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 80, 0, 0];
        check("::", "fd00::2", "anywhere6", &port, &target);
    }

    #[test]
    fn ranges_end_behind_their_last() {
        let entry = |last| Entry {
            address: Ipv6Addr::UNSPECIFIED.into(),
            port: 9000,
            last,
            protocol: Protocol::Tcp,
            target: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1),
        };
        let end = Element { key: vec![0x23, 0x8c], value: Value::RangeEnd };
        assert_eq!(entry(9099).elements()[1..], [end]);
        assert_eq!(entry(u16::MAX).elements().len(), 1);
    }
}
