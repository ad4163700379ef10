//! Subnets for new networks: ranges that neither the host nor another network uses.

use super::address::{CANDIDATES, Subnet, Subnet6};
use super::bridge::machine;
use super::config;
use super::netlink::Netlink;
use super::{NetworkError, kernel, link, resolv, sysctl};
use std::net::{IpAddr, Ipv4Addr};

/// Ranges from which subnets are taken, in this order, with the prefix length of each subnet. The first is used neither by
/// other engines nor by Kubernetes.
const POOLS: [(Subnet, u8); 3] = [
    (Subnet::new([10, 144, 0, 0], 12), 22),
    (Subnet::new([172, 16, 0, 0], 12), 24),
    (Subnet::new([192, 168, 0, 0], 16), 24),
];

/// Finds a subnet for a new network that overlaps with none of `taken`, and with no route and no name server of this host.
///
/// # Errors
/// [`NetworkError::NoSubnet`] when there is none, and when the routes cannot be read.
pub fn free_subnet(taken: &[Subnet]) -> Result<Subnet, NetworkError> {
    let mut used = routes()?;
    used.extend(taken);
    used.extend(servers());
    // The default network may be created later.
    used.push(CANDIDATES[0]);
    first_free(&used).ok_or_else(|| {
        let all: Vec<String> = POOLS.iter().map(|(pool, _)| pool.to_string()).collect();
        NetworkError::NoSubnet(all.join(", "))
    })
}

/// Checks that a subnet overlaps with no route of this host.
///
/// # Errors
/// [`NetworkError::Overlap`], and when the routes cannot be read.
pub fn check_subnet(subnet: Subnet) -> Result<(), NetworkError> {
    match routes()?.iter().any(|route| route.overlaps(subnet)) {
        true => Err(NetworkError::Overlap(subnet)),
        false => Ok(()),
    }
}

/// Checks that an IPv6 range overlaps with no route of this host.
///
/// # Errors
/// [`NetworkError::Overlap6`], and when the routes cannot be read.
pub fn check_subnet6(subnet: Subnet6) -> Result<(), NetworkError> {
    let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
    let routes = link::networks6(&mut host).map_err(kernel("read this host's routes"))?;
    match routes.iter().any(|route| route.overlaps(subnet)) {
        true => Err(NetworkError::Overlap6(subnet)),
        false => Ok(()),
    }
}

/// Unique local IPv6 range for the network of a bridge: the same one each time on the same host.
pub fn local_subnet6(bridge: &str) -> Subnet6 {
    Subnet6::local(&machine(), bridge)
}

/// True when this host supports IPv6 and has not disabled it.
pub fn host_has_ipv6() -> bool {
    sysctl::has_ipv6()
}

/// Checks that a new bridge can have a name.
///
/// # Errors
/// [`NetworkError::BadName`], and [`NetworkError::DeviceExists`] when an interface of this host has it.
pub fn check_bridge(name: &str) -> Result<(), NetworkError> {
    if !config::is_interface_name(name) {
        return Err(NetworkError::BadName(name.to_owned()));
    }
    let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
    match link::find(&mut host, name).map_err(kernel("look for the bridge"))? {
        Some(_) => Err(NetworkError::DeviceExists(name.to_owned())),
        None => Ok(()),
    }
}

/// Checks that a device of this host exists, to be the parent of containers' interfaces.
///
/// # Errors
/// [`NetworkError::NoParent`], and when the kernel cannot be asked.
pub fn check_parent(name: &str) -> Result<(), NetworkError> {
    let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
    // A longer name is refused by the kernel with another error.
    let is_name = config::is_parent_name(name);
    match is_name.then(|| link::find(&mut host, name)).transpose().map_err(kernel("look for the device"))? {
        Some(Some(index)) if index != link::LOOPBACK => Ok(()),
        _ => Err(NetworkError::NoParent(name.to_owned())),
    }
}

/// Name servers of this host, as subnets of one address.
pub(super) fn servers() -> Vec<Subnet> {
    let servers = resolv::servers().into_iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(Subnet::of(address, 32)),
        IpAddr::V6(_) => None,
    });
    servers.collect()
}

fn routes() -> Result<Vec<Subnet>, NetworkError> {
    let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
    link::networks(&mut host).map_err(kernel("read this host's routes"))
}

/// First subnet of the pools that overlaps with none in use. Behind an overlap the search goes on at its end, so that it is
/// short whatever is in use.
fn first_free(used: &[Subnet]) -> Option<Subnet> {
    POOLS.iter().find_map(|(pool, prefix)| {
        let last = u64::from(u32::from(pool.last()));
        let mut at = u64::from(u32::from(pool.network()));
        while at <= last {
            let candidate = Subnet::of(Ipv4Addr::from(u32::try_from(at).ok()?), *prefix);
            let Some(other) = used.iter().find(|used| used.overlaps(candidate)) else {
                return Some(candidate);
            };
            let behind = other.last().max(candidate.last());
            at = u64::from(u32::from(behind)) + 1;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_the_host_are_in_use() {
        let loopback = "127.0.0.0/24".parse().unwrap();
        assert!(matches!(check_subnet(loopback), Err(NetworkError::Overlap(_))));
        assert!(matches!(check_bridge("lo"), Err(NetworkError::DeviceExists(_))));
        assert!(matches!(check_bridge("br-0123456789012"), Err(NetworkError::BadName(_))));
    }

    #[test]
    fn subnets_avoid_what_is_in_use() {
        let check = |used: &[&str], expected: Option<&str>| {
            let used: Vec<Subnet> = used.iter().map(|text| text.parse().unwrap()).collect();
            let found = first_free(&used).map(|subnet| subnet.to_string());
            assert_eq!(found.as_deref(), expected, "{used:?}");
        };
        check(&[], Some("10.144.0.0/22"));
        check(&["10.144.0.0/22", "10.144.5.7/32"], Some("10.144.8.0/22"));
        check(&["10.144.0.0/13", "10.152.0.0/16"], Some("10.153.0.0/22"));
        check(&["10.0.0.0/8"], Some("172.16.0.0/24"));
        check(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/17"], Some("192.168.128.0/24"));
        check(&["0.0.0.0/0"], None);
        check(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], None);
    }
}
