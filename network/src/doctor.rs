//! What of this host keeps containers from their networks. Pure: [`checks`] are functions of [`Facts`], which
//! [`Facts::read`] collects without changing anything.

mod read;

use super::address::Subnet;
use super::resolv;
use serde::Serialize;

/// Usual size of packets in bytes, which containers send.
const USUAL_MTU: u32 = 1500;
/// Number of ports for outgoing connections and published ports below which they run out easily.
const FEW_PORTS: u16 = 1000;

/// Facts about the network of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// True when IPv4 packets are forwarded between interfaces.
    pub forwards: bool,
    /// True when settings of the kernel can be changed.
    pub is_writable: bool,
    /// Networks of containers that exist.
    pub networks: Vec<OwnNetwork>,
    /// Chains through which forwarded packets go, those of Kiln left out; the error where they cannot be read.
    pub chains: Result<Vec<Chain>, FilterError>,
    /// True when rules of the older iptables, which cannot be read, are in force.
    pub has_old_filters: bool,
    /// True when IPv6 is enabled.
    pub has_ipv6: bool,
    /// Text of the host's `resolv.conf`.
    pub resolv: String,
    /// Text of the file in which systemd-resolved lists its own servers.
    pub resolved: String,
    /// Routes of IPv4, without default routes.
    pub routes: Vec<Route>,
    /// Interface of the default route; `None` without a route.
    pub way_out: Option<Interface>,
    /// True when packets within a bridge go through the rules of packets that are forwarded (`br_netfilter`).
    pub filters_bridges: bool,
    /// First and last of the ports that the kernel chooses from.
    pub ports: Option<(u16, u16)>,
}

/// A network of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNetwork {
    /// Name of its bridge.
    pub bridge: String,
    /// Addresses of its containers.
    pub subnet: Subnet,
    /// Largest packet on the bridge in bytes; `None` when it does not exist at the moment.
    pub mtu: Option<u32>,
}

/// A route to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Addresses that it leads to.
    pub subnet: Subnet,
    /// Name of the interface.
    pub interface: String,
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the interface.
    pub name: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// A chain of packet rules at the hook for forwarded packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Family of the table, as `nft` names it.
    pub family: &'static str,
    /// Name of its table.
    pub table: String,
    /// Name of the chain.
    pub name: String,
    /// True when packets that no rule accepts are dropped or rejected.
    pub drops: bool,
    /// Bridges of containers that rules of its table name.
    pub named: Vec<String>,
}

/// Reason why packet rules cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The kernel has no nf_tables.
    Missing,
    /// Only root can read them.
    Forbidden,
}

/// Importance of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is wrong there.
    Ok,
    /// Something does not work, or may not.
    Warn,
    /// Containers have no network, or cannot be reached.
    Fail,
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the check.
    pub name: &'static str,
    /// Importance of the finding.
    pub level: Level,
    /// Finding as one sentence.
    pub text: String,
    /// Remedy; `None` when nothing is wrong.
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Check {
        Check { name, level: Level::Ok, text: text.into(), fix: None }
    }

    fn warn(name: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { name, level: Level::Warn, text: text.into(), fix: Some(fix.into()) }
    }

    fn fail(name: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { level: Level::Fail, ..Check::warn(name, text, fix) }
    }
}

/// All checks, in the order in which a packet meets what they are about.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        rules(facts),
        forwarding(facts),
        filters(facts),
        bridges(facts),
        subnets(facts),
        mtu(facts),
        ipv6(facts),
        servers(facts),
        ports(facts),
    ]
}

fn rules(facts: &Facts) -> Check {
    const NAME: &str = "packet rules";
    match facts.chains {
        Ok(_) => Check::ok(NAME, "the kernel has nf_tables"),
        Err(FilterError::Missing) => Check::fail(
            NAME,
            "the kernel has no nf_tables: containers cannot be connected to networks",
            "load the module (modprobe nf_tables), or run containers with --network host",
        ),
        Err(FilterError::Forbidden) => {
            Check::warn(NAME, "only root can read packet rules", "run the same command with sudo")
        }
    }
}

fn forwarding(facts: &Facts) -> Check {
    const NAME: &str = "forwarding";
    const FIX: &str = "sysctl -w net.ipv4.ip_forward=1";
    match (facts.forwards, facts.networks.iter().find(|network| network.mtu.is_some())) {
        (true, _) => Check::ok(NAME, "packets are forwarded between interfaces"),
        (false, Some(network)) => Check::fail(
            NAME,
            format!("packets are not forwarded: containers on {} reach no other host", network.bridge),
            FIX,
        ),
        (false, None) if !facts.is_writable => Check::fail(
            NAME,
            "packets are not forwarded, and /proc/sys cannot be written: containers would reach no other host",
            FIX,
        ),
        (false, None) => Check::ok(NAME, "off, and switched on for the first container"),
    }
}

fn filters(facts: &Facts) -> Check {
    const NAME: &str = "firewall";
    let Ok(chains) = &facts.chains else { return Check::ok(NAME, "not known without the packet rules") };
    let bridges: Vec<&str> = facts.networks.iter().map(|network| network.bridge.as_str()).collect();
    let passes = |chain: &&Chain| {
        !chain.drops
            || (!bridges.is_empty()
                && bridges.iter().all(|bridge| chain.named.iter().any(|own| own == bridge)))
    };
    if let Some(chain) = chains.iter().find(|chain| !passes(chain)) {
        let Chain { family, table, name, .. } = chain;
        let bridge = bridges.first().copied().unwrap_or("BRIDGE");
        let fix = match (*family, table.as_str(), name.as_str()) {
            ("ip", "filter", "FORWARD") => format!(
                "iptables -I FORWARD -i {bridge} -j ACCEPT; iptables -I FORWARD -o {bridge} -m conntrack --ctstate \
                 RELATED,ESTABLISHED,DNAT -j ACCEPT"
            ),
            ("ip6", "filter", "FORWARD") => {
                format!(
                    "ip6tables -I FORWARD -i {bridge} -j ACCEPT; ip6tables -I FORWARD -o {bridge} -j ACCEPT"
                )
            }
            ("inet", "firewalld", _) => format!("firewall-cmd --zone=trusted --add-interface={bridge}"),
            _ => format!(
                "nft insert rule {family} {table} {name} iifname {bridge} accept; nft insert rule {family} {table} \
                 {name} oifname {bridge} accept"
            ),
        };
        let text = format!("the chain {name} of the table {family} {table} drops forwarded packets");
        return Check::fail(NAME, text, fix);
    }
    if facts.has_old_filters {
        return Check::warn(
            NAME,
            "rules of the older iptables are in force, which cannot be read here",
            "look for a policy that drops: iptables-legacy -S FORWARD",
        );
    }
    Check::ok(NAME, "no chain drops forwarded packets of containers")
}

fn bridges(facts: &Facts) -> Check {
    const NAME: &str = "br_netfilter";
    let drops = facts.chains.iter().flatten().any(|chain| chain.drops);
    match (facts.filters_bridges, drops) {
        (true, true) => Check::warn(
            NAME,
            "packets between containers of one network go through the firewall, which drops",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        ),
        (true, false) => {
            Check::ok(NAME, "packets within a network go through the firewall, which lets them pass")
        }
        (false, _) => Check::ok(NAME, "packets within a network do not go through the firewall"),
    }
}

fn subnets(facts: &Facts) -> Check {
    const NAME: &str = "subnets";
    for network in &facts.networks {
        let foreign = facts.routes.iter().filter(|route| route.interface != network.bridge);
        let mut overlapping = foreign.filter(|route| route.subnet.overlaps(network.subnet));
        let Some(route) = overlapping.next() else { continue };
        let OwnNetwork { bridge, subnet, .. } = network;
        let Route { subnet: other, interface } = route;
        let text = format!("{subnet} of {bridge} overlaps with the route to {other} by {interface}");
        let fix = format!(
            "stop the containers, and remove the bridge: ip link delete {bridge} (the next one gets a free subnet)"
        );
        // The more specific route gets the packets.
        return match other.prefix() >= subnet.prefix() {
            true => Check::fail(NAME, format!("{text}: its containers are not reached"), fix),
            false => Check::warn(NAME, format!("{text}: hosts there are not reached"), fix),
        };
    }
    Check::ok(NAME, "no network of containers overlaps with a route of the host")
}

fn mtu(facts: &Facts) -> Check {
    const NAME: &str = "mtu";
    let Some(Interface { name, mtu }) = &facts.way_out else {
        return Check::warn(
            NAME,
            "there is no default route: containers reach no other networks",
            "connect the host, or set a route: ip route add default via ADDRESS",
        );
    };
    let largest = facts.networks.iter().filter_map(|network| network.mtu).max().unwrap_or(USUAL_MTU);
    if *mtu >= largest {
        return Check::ok(NAME, format!("{name} takes packets of {mtu} bytes"));
    }
    Check::warn(
        NAME,
        format!(
            "{name} takes packets of {mtu} bytes at most, and containers send {largest}: large transfers may hang"
        ),
        "iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    )
}

fn ipv6(facts: &Facts) -> Check {
    const NAME: &str = "ipv6";
    match facts.has_ipv6 {
        true => Check::ok(NAME, "enabled"),
        false => Check::warn(
            NAME,
            "disabled on this host: containers have IPv4 only",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0 (with ipv6.disable=1 on the kernel's command line, remove that)",
        ),
    }
}

fn servers(facts: &Facts) -> Check {
    const NAME: &str = "name servers";
    match resolv::choose(&facts.resolv, || facts.resolved.clone()).is_public {
        false => Check::ok(NAME, "containers reach those of the host"),
        true => Check::warn(
            NAME,
            "the host has none that containers reach (those on loopback are out of their reach): they ask 8.8.8.8",
            "name another one in /etc/resolv.conf, or for a container: kiln run --dns ADDRESS",
        ),
    }
}

fn ports(facts: &Facts) -> Check {
    const NAME: &str = "ports";
    match facts.ports {
        Some((first, last)) if last.saturating_sub(first) < FEW_PORTS => Check::warn(
            NAME,
            format!("the kernel chooses ports from {first} to {last} only, which run out"),
            "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"",
        ),
        Some((first, last)) => Check::ok(NAME, format!("free ports are chosen from {first} to {last}")),
        None => Check::ok(NAME, "the range of free ports is not known"),
    }
}

#[cfg(test)]
mod tests;
