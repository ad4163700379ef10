//! Subnets of version 4.

use std::fmt;
use std::net::Ipv4Addr;

/// Tried in this order for the bridge: private ranges that other engines do not take first.
pub(super) const CANDIDATES: [Subnet; 6] = [
    Subnet::new([10, 87, 0, 0], 16),
    Subnet::new([10, 89, 64, 0], 18),
    Subnet::new([172, 31, 128, 0], 17),
    Subnet::new([192, 168, 87, 0], 24),
    Subnet::new([10, 211, 0, 0], 16),
    Subnet::new([192, 168, 211, 0], 24),
];

/// A range of addresses, or an address in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The range of `prefix` leading bits that holds `address`.
    pub const fn new(address: [u8; 4], prefix: u8) -> Subnet {
        let [a, b, c, d] = address;
        Subnet { address: Ipv4Addr::new(a, b, c, d), prefix }
    }

    pub(super) fn of(address: Ipv4Addr, prefix: u8) -> Subnet {
        Subnet { address, prefix: prefix.min(32) }
    }

    /// An address, with this range's length.
    pub(super) fn with(self, address: Ipv4Addr) -> Subnet {
        Subnet { address, ..self }
    }

    /// The address itself.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Number of leading bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub(super) fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The first address of the range.
    pub(super) fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & self.mask())
    }

    /// The first usable address, which is the bridge's.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network()) + 1)
    }

    pub(super) fn overlaps(self, other: Subnet) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }

    /// Addresses for containers: all but the network's, the gateway's and the broadcast address.
    pub(super) fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = u32::from(self.network()) + 2;
        let last = u32::from(self.network()) | !self.mask();
        (first..last).map(Ipv4Addr::from)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
