//! Subnets of both IP versions.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Candidates for the bridge's subnet, tried in this order: private ranges that other engines do not take first.
pub(super) const CANDIDATES: [Subnet; 6] = [
    Subnet::new([10, 87, 0, 0], 16),
    Subnet::new([10, 89, 64, 0], 18),
    Subnet::new([172, 31, 128, 0], 17),
    Subnet::new([192, 168, 87, 0], 24),
    Subnet::new([10, 211, 0, 0], 16),
    Subnet::new([192, 168, 211, 0], 24),
];

/// IPv4 subnet, or an address with its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Subnet of `prefix` leading bits that contains `address`.
    pub const fn new(address: [u8; 4], prefix: u8) -> Subnet {
        let [a, b, c, d] = address;
        Subnet { address: Ipv4Addr::new(a, b, c, d), prefix }
    }

    /// Subnet of `prefix` leading bits that contains `address`.
    pub fn of(address: Ipv4Addr, prefix: u8) -> Subnet {
        Subnet { address, prefix: prefix.min(32) }
    }

    /// Address with the prefix length of this subnet.
    pub(super) fn with(self, address: Ipv4Addr) -> Subnet {
        Subnet { address, ..self }
    }

    /// Address that the subnet was constructed with.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Prefix length in bits, at most 32.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub(super) fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// First address of the subnet.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & self.mask())
    }

    /// Last address of the subnet, which is the one for broadcasts.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !self.mask())
    }

    /// True when the address is in the subnet.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.overlaps(Subnet::of(address, 32))
    }

    /// Distance of an address from the first one.
    pub(super) fn offset(self, address: Ipv4Addr) -> u32 {
        u32::from(address) & !self.mask()
    }

    /// First usable address, which is the bridge's by default.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network()) + 1)
    }

    /// True when the subnets have an address in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }

    /// Addresses for containers: all but the network, gateway and broadcast addresses.
    pub(super) fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = u32::from(self.network()) + 2;
        let last = u32::from(self.network()) | !self.mask();
        (first..last).map(Ipv4Addr::from)
    }

    /// Addresses for containers in a part of the subnet.
    pub(super) fn hosts_in(self, part: Subnet) -> impl Iterator<Item = Ipv4Addr> {
        let first = u32::from(part.network()).max(u32::from(self.network()) + 1);
        let last = u32::from(part.last()).min(u32::from(self.last()).saturating_sub(1));
        (first..=last).map(Ipv4Addr::from)
    }
}

/// Text that is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no subnet: write ADDRESS/PREFIX, such as {example}", example = if self.0.contains(':') { "fd00:1::/64" } else { "10.1.0.0/24" })]
pub struct NotASubnet(String);

impl FromStr for Subnet {
    type Err = NotASubnet;

    fn from_str(text: &str) -> Result<Subnet, NotASubnet> {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
        });
        parts.map(|(address, prefix)| Subnet::of(address, prefix)).ok_or_else(|| NotASubnet(text.to_owned()))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

/// Range of IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet6 {
    address: Ipv6Addr,
    prefix: u8,
}

impl Subnet6 {
    /// Range of `prefix` leading bits that contains `address`.
    pub fn of(address: Ipv6Addr, prefix: u8) -> Subnet6 {
        Subnet6 { address, prefix: prefix.min(128) }
    }

    /// Unique local range (RFC 4193) of a network: stable for the same name on the same host, most likely different
    /// elsewhere. `machine` identifies the host.
    pub(super) fn local(machine: &[u8], name: &str) -> Subnet6 {
        let seed = mix(machine.iter().copied().chain([0]).chain(name.bytes()));
        let [_, _, _, a, b, c, d, e] = seed.to_be_bytes();
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&[0xfd, a, b, c, d, e]);
        Subnet6::of(Ipv6Addr::from(octets), 64)
    }

    /// Prefix length in bits, at most 128.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub(super) fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// First address of the range.
    pub fn network(self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.address) & self.mask())
    }

    /// True when the address is in the range.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        u128::from(address) & self.mask() == u128::from(self.network())
    }

    /// Address of the bridge.
    pub fn gateway(self) -> Ipv6Addr {
        self.member(1)
    }

    /// Address at the offset `number` from the first.
    pub(super) fn member(self, number: u32) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.network()).wrapping_add(u128::from(number)))
    }

    /// Address that the range was constructed with.
    pub fn address(self) -> Ipv6Addr {
        self.address
    }

    /// True when the ranges have an address in common.
    pub fn overlaps(self, other: Subnet6) -> bool {
        let mask = self.mask() & other.mask();
        u128::from(self.address) & mask == u128::from(other.address) & mask
    }
}

impl FromStr for Subnet6 {
    type Err = NotASubnet;

    fn from_str(text: &str) -> Result<Subnet6, NotASubnet> {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 128)?))
        });
        parts.map(|(address, prefix)| Subnet6::of(address, prefix)).ok_or_else(|| NotASubnet(text.to_owned()))
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

/// Hash of bytes: FNV-1a, and the last step of splitmix64 so that all bits depend on all bytes.
pub(super) fn mix(bytes: impl Iterator<Item = u8>) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let hash = bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// MAC address as Docker derives it: locally administered, with the IP address at its end.
pub(super) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Link-local address of a MAC address (RFC 4291, appendix A).
pub(super) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_ranges_are_stable_and_differ() {
        let one = Subnet6::local(b"machine", "kiln0");
        assert_eq!(one.to_string(), "fd41:5127:e913::/64");
        assert_ne!(one, Subnet6::local(b"machine", "kiln1"));
        assert_ne!(one, Subnet6::local(b"another", "kiln0"));
        assert_eq!(one.gateway().to_string(), "fd41:5127:e913::1");
        assert!(one.contains(one.member(0x1_0002)) && !one.contains(Ipv6Addr::LOCALHOST));
        assert_eq!(link_local([2, 0x42, 10, 87, 0, 2]).to_string(), "fe80::42:aff:fe57:2");
    }

    #[test]
    fn ranges() {
        let subnet = Subnet::new([10, 87, 3, 4], 16);
        assert_eq!(
            (subnet.to_string().as_str(), subnet.gateway()),
            ("10.87.0.0/16", Ipv4Addr::new(10, 87, 0, 1))
        );
        assert_eq!(subnet.hosts().next(), Some(Ipv4Addr::new(10, 87, 0, 2)));
        let small = Subnet::new([192, 168, 1, 0], 30);
        assert_eq!(small.hosts().collect::<Vec<_>>(), [Ipv4Addr::new(192, 168, 1, 2)]);
        assert!(
            subnet.overlaps(Subnet::new([10, 0, 0, 0], 8))
                && subnet.overlaps(Subnet::new([10, 87, 1, 0], 24))
        );
        assert!(!subnet.overlaps(Subnet::new([10, 88, 0, 0], 16)));
        assert!(Subnet::new([0, 0, 0, 0], 0).overlaps(subnet));
        let part = |text: &str| -> Vec<String> {
            let subnet: Subnet = "10.1.0.0/29".parse().unwrap();
            subnet.hosts_in(text.parse().unwrap()).map(|address| address.to_string()).collect()
        };
        assert_eq!(part("10.1.0.0/30"), ["10.1.0.1", "10.1.0.2", "10.1.0.3"]);
        assert_eq!(part("10.1.0.4/30"), ["10.1.0.4", "10.1.0.5", "10.1.0.6"]);
    }

    #[test]
    fn texts_of_subnets() {
        assert_eq!("10.1.2.3/24".parse::<Subnet>().unwrap().to_string(), "10.1.2.0/24");
        assert_eq!("fd00::1/64".parse::<Subnet6>().unwrap().to_string(), "fd00::/64");
        for wrong in ["", "10.1.0.0", "10.1.0.0/33", "10.1.0/24", "/24", "x/8", "10.1.0.0/-1", "fd00::/64"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
        let error = "fd00::/129".parse::<Subnet6>().unwrap_err();
        let expected = "`fd00::/129` is no subnet: write ADDRESS/PREFIX, such as fd00:1::/64";
        assert_eq!(error.to_string(), expected);
    }
}
