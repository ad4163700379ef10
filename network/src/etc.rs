//! Name resolution files of containers in /etc, as data for the caller to write.

use crate::resolv;

/// Source of the name servers that a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// Unchanged file of the host, for containers in the host's network namespace.
    OfHost,
    /// Name servers of the host that containers can reach.
    ForContainer,
    /// The name server of [`crate::dns`], which asks those of the host for other names.
    Names,
}

impl Resolver {
    /// Text of the file `/etc/resolv.conf`.
    pub fn text(self) -> String {
        match self {
            Resolver::OfHost => resolv::for_host_network(),
            Resolver::ForContainer => resolv::for_container().text,
            Resolver::Names => resolv::for_names(&resolv::for_host_network(), &[], &[]),
        }
    }
}

/// Files in /etc of a container with its own host name, as pairs of name and text. `address` is its address in a
/// network; `None` without one.
pub fn files(hostname: &str, address: Option<&str>, resolver: Resolver) -> [(&'static str, String); 3] {
    [
        ("hosts", resolv::container_hosts(address, hostname, &[])),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolver.text()),
    ]
}
