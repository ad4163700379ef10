//! What containers find about names in /etc, as data: the caller writes it.

use crate::resolv;

/// The name servers and names that a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// The host's file as it is, for containers in the host's network.
    OfHost,
    /// The host's name servers that containers reach.
    ForContainer,
}

impl Resolver {
    /// The text of `/etc/resolv.conf`.
    pub fn text(self) -> String {
        match self {
            Resolver::OfHost => resolv::for_host_network(),
            Resolver::ForContainer => resolv::for_container().text,
        }
    }
}

/// Files of /etc of a container with a host name of its own, as names and texts. `address` is its address in a network;
/// `None` without one.
pub fn files(hostname: &str, address: Option<&str>, resolver: Resolver) -> [(&'static str, String); 3] {
    [
        ("hosts", resolv::container_hosts(address, hostname, &[])),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolver.text()),
    ]
}
