use super::*;

/// A host where nothing is wrong, with one network.
fn sound() -> Facts {
    Facts {
        forwards: true,
        is_writable: true,
        networks: vec![own("kiln0", [172, 17, 0, 0], 16)],
        chains: Ok(Vec::new()),
        has_old_filters: false,
        has_ipv6: true,
        resolv: "nameserver 192.0.2.1\n".to_owned(),
        resolved: String::new(),
        routes: vec![route([192, 0, 2, 0], 24, "eth0"), route([172, 17, 0, 0], 16, "kiln0")],
        way_out: Some(Interface { name: "eth0".to_owned(), mtu: 1500 }),
        filters_bridges: false,
        ports: Some((32768, 60999)),
    }
}

fn own(bridge: &str, address: [u8; 4], prefix: u8) -> OwnNetwork {
    OwnNetwork { bridge: bridge.to_owned(), subnet: Subnet::new(address, prefix), mtu: Some(1500) }
}

fn route(address: [u8; 4], prefix: u8, interface: &str) -> Route {
    Route { subnet: Subnet::new(address, prefix), interface: interface.to_owned() }
}

fn chain(family: &'static str, table: &str, name: &str, named: &[&str]) -> Chain {
    let named = named.iter().map(|name| (*name).to_owned()).collect();
    Chain { family, table: table.to_owned(), name: name.to_owned(), drops: true, named }
}

/// Checks that are not ok, as `level name: text; fix`.
fn findings(facts: &Facts) -> Vec<String> {
    let found = checks(facts);
    assert!(found.iter().all(|check| check.fix.is_some() == (check.level != Level::Ok)));
    let found = found.into_iter().filter(|check| check.level != Level::Ok);
    let shown =
        |check: Check| format!("{:?} {}: {}; {}", check.level, check.name, check.text, check.fix.unwrap());
    found.map(shown).collect()
}

#[track_caller]
fn check(change: impl FnOnce(&mut Facts), expected: &[&str]) {
    let mut facts = sound();
    change(&mut facts);
    let found = findings(&facts);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
}

#[test]
fn a_sound_host_has_no_findings() {
    check(|_| {}, &[]);
    assert_eq!(checks(&sound()).len(), 9);
}

#[test]
fn each_fact_has_its_finding() {
    check(
        |facts| facts.forwards = false,
        &["Fail forwarding: packets are not forwarded: containers on kiln0"],
    );
    check(|facts| (facts.forwards, facts.networks) = (false, Vec::new()), &[]);
    check(
        |facts| (facts.forwards, facts.is_writable, facts.networks) = (false, false, Vec::new()),
        &["Fail forwarding: packets are not forwarded, and /proc/sys"],
    );
    check(
        |facts| facts.chains = Err(FilterError::Missing),
        &["Fail packet rules: the kernel has no nf_tables"],
    );
    check(|facts| facts.chains = Err(FilterError::Forbidden), &["Warn packet rules: only root"]);
    check(|facts| facts.has_old_filters = true, &["Warn firewall: rules of the older iptables"]);
    check(|facts| facts.has_ipv6 = false, &["Warn ipv6: disabled"]);
    check(|facts| facts.resolv = "nameserver 127.0.0.53\n".to_owned(), &["Warn name servers: "]);
    check(
        |facts| {
            facts.resolv = "nameserver 127.0.0.53\n".to_owned();
            facts.resolved = "nameserver 192.0.2.1\n".to_owned();
        },
        &[],
    );
    check(
        |facts| facts.way_out = Some(Interface { name: "wg0".to_owned(), mtu: 1420 }),
        &["Warn mtu: wg0 takes packets of 1420 bytes at most, and containers send 1500"],
    );
    check(
        |facts| {
            facts.way_out = Some(Interface { name: "wg0".to_owned(), mtu: 1420 });
            facts.networks[0].mtu = Some(1420);
        },
        &[],
    );
    check(|facts| facts.way_out = None, &["Warn mtu: there is no default route"]);
    check(|facts| facts.ports = Some((40000, 40100)), &["Warn ports: the kernel chooses ports from 40000"]);
}

#[test]
fn firewalls_that_drop_have_a_rule_as_fix() {
    for (chain, fix) in [
        (chain("ip", "filter", "FORWARD", &[]), "iptables -I FORWARD -i kiln0 -j ACCEPT"),
        (chain("ip6", "filter", "FORWARD", &[]), "ip6tables -I FORWARD -i kiln0 -j ACCEPT"),
        (
            chain("inet", "firewalld", "filter_FORWARD", &[]),
            "firewall-cmd --zone=trusted --add-interface=kiln0",
        ),
        (chain("inet", "mine", "fwd", &[]), "nft insert rule inet mine fwd iifname kiln0 accept"),
    ] {
        let facts = Facts { chains: Ok(vec![chain]), ..sound() };
        let found = findings(&facts);
        assert!(found.len() == 1 && found[0].contains(fix), "{found:?}");
    }
    // A table with rules for all networks lets them pass, and one that drops nothing does.
    check(|facts| facts.chains = Ok(vec![chain("ip", "filter", "FORWARD", &["kiln0"])]), &[]);
    check(
        |facts| {
            facts.networks.push(own("kiln1", [172, 18, 0, 0], 16));
            facts.chains = Ok(vec![chain("ip", "filter", "FORWARD", &["kiln0"])]);
        },
        &["Fail firewall: the chain FORWARD of the table ip filter drops"],
    );
    check(
        |facts| {
            facts.filters_bridges = true;
            facts.chains = Ok(vec![chain("ip", "filter", "FORWARD", &["kiln0"])]);
        },
        &["Warn br_netfilter: packets between containers of one network"],
    );
}

#[test]
fn overlaps_are_found_with_the_route_that_wins() {
    check(
        |facts| facts.routes.push(route([172, 17, 3, 0], 24, "tun0")),
        &["Fail subnets: 172.17.0.0/16 of kiln0 overlaps with the route to 172.17.3.0/24 by tun0"],
    );
    check(
        |facts| facts.routes.push(route([172, 16, 0, 0], 12, "tun0")),
        &["Warn subnets: 172.17.0.0/16 of kiln0 overlaps with the route to 172.16.0.0/12 by tun0"],
    );
}
