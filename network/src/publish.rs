//! Published ports: ports of the host that lead to a container.
//!
//! Connections from elsewhere, and from this host to its other addresses, are sent on by packet rules, and
//! keep their source address. Connections to loopback addresses are served by a [`Proxy`]. The sockets that
//! it serves also reserve the ports, so that a conflict is told at once, and nobody else takes one later.
//! Very many ports are not reserved in this way: conflicts among containers and with ports that are in use
//! now are told, but a program can take one later, to no effect.

use super::bridge::{Bridge, Connection};
use super::config::{Binding, PortMapping, Protocol};
use super::proxy::{self, Front, FrontSocket, Proxy, Route, Serving};
use super::store::{Changing, Lease, Ports, Store};
use super::{NetworkError, conntrack, kernel, link, rules, sockets, sysctl};
use rustix::io::Errno;
use rustix::net::SocketType;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// How many ports of one container are reserved by a socket each, or two.
const RESERVED: usize = 128;
/// How often a free port is looked for that is free in both versions.
const TRIES: usize = 64;

/// Why ports cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody has the port.
    #[error("Bind for {address} failed: port is already allocated{holder}")]
    Allocated {
        /// Address and port of the host.
        address: SocketAddr,
        /// Who has it.
        holder: Holder,
    },
    /// The port cannot be had for another reason.
    #[error("cannot bind {address}/{protocol}")]
    Bind {
        /// Address and port of the host.
        address: SocketAddr,
        /// Protocol.
        protocol: Protocol,
        /// Why.
        #[source]
        source: Errno,
    },
    /// No port is free.
    #[error("no free {0} port")]
    NoPort(Protocol),
    /// More ports than there are.
    #[error("{count} ports from {first} on are more than there are")]
    Range {
        /// The first.
        first: u16,
        /// How many.
        count: u16,
    },
    /// The network has no way in.
    #[error("ports cannot be published in an internal network")]
    Internal,
    /// The container has published ports.
    #[error("the container's ports are published already")]
    Twice,
    /// The proxy cannot be started.
    #[error("cannot serve ports on loopback addresses")]
    Proxy(#[source] Errno),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Another container.
    Container(String),
    /// A process.
    Process {
        /// Its id.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// Not to be found out.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Container(name) => write!(f, " by container `{name}`"),
            Holder::Process { pid, name } => write!(f, " by process {pid} (`{name}`)"),
            Holder::Unknown => Ok(()),
        }
    }
}

/// A container's published ports. They are free again when this is dropped.
#[derive(Debug)]
pub struct Published {
    bindings: Vec<Binding>,
    /// The container's addresses.
    container: Vec<IpAddr>,
    serving: Vec<Serving>,
    store: Store,
    lease: Arc<Lease>,
}

impl Published {
    /// What is published, with the ports that were picked.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.serving.clear();
        // What cannot be removed now is removed as what a killed program has left.
        if let Ok(changing) = self.store.change() {
            let _ = self.store.forget_ports(&changing, self.lease.address);
            let _ = conntrack::forget(&self.bindings, &[], &self.container);
        }
    }
}

impl Bridge {
    /// Publishes ports of a container, all or none. `owner` is told to others who want the same ports.
    pub fn publish(
        &self,
        connection: &Connection,
        mappings: &[PortMapping],
        owner: &str,
        proxy: &Proxy,
    ) -> Result<Published, PublishError> {
        if self.network.internal {
            return Err(PublishError::Internal);
        }
        if self.store.has_ports(connection.address) {
            return Err(PublishError::Twice);
        }
        let changing = self.store.change()?;
        self.store.ensure_rules(&changing, &self.network)?;
        let others = self.store.live_ports(&changing)?;
        let reserved = reserve(mappings, &others)?;
        let bindings = reserved.bindings.clone();
        let (serving, redirect) = serve(reserved, connection, proxy).map_err(PublishError::Proxy)?;
        let ports = Ports {
            owner: owner.to_owned(),
            bindings,
            ipv4: connection.address,
            ipv6: connection.ipv6.map(|ipv6| ipv6.address),
            redirect,
        };
        put_in_force(&self.store, &changing, &ports)?;
        let ipv6 = ports.ipv6.map(IpAddr::V6);
        let published = Published {
            bindings: ports.bindings,
            container: [Some(ports.ipv4.into()), ipv6].into_iter().flatten().collect(),
            serving,
            store: self.store.clone(),
            lease: connection.lease.clone(),
        };
        drop(changing);
        let forgotten = link::all_addresses()
            .and_then(|local| conntrack::forget(&published.bindings, &local, &[]))
            .map_err(kernel("forget how datagrams have gone"));
        forgotten.map(|()| published).map_err(PublishError::from)
    }
}

/// Writes the ports down and makes their rules, or neither.
fn put_in_force(store: &Store, changing: &Changing, ports: &Ports) -> Result<(), NetworkError> {
    let failed = || kernel("make the rules of published ports");
    let entries = ports.entries();
    store.remember_ports(changing, ports)?;
    let added = rules::add_entries(&entries).map_err(failed()).and_then(|added| {
        if added {
            return Ok(());
        }
        // No container that is known has these ports, so what is there is nobody's.
        rules::remove_entries(&entries).map_err(failed())?;
        rules::add_entries(&entries).map_err(failed()).map(drop)
    });
    if added.is_err() {
        store.forget_ports(changing, ports.ipv4)?;
    }
    added
}

/// Ports that nobody else can take now.
struct Reserved {
    bindings: Vec<Binding>,
    /// Sockets bound to them, and the container's ports.
    fronts: Vec<(FrontSocket, u16)>,
    /// Whether there are too many for a socket each.
    is_redirected: bool,
}

fn reserve(mappings: &[PortMapping], others: &[Ports]) -> Result<Reserved, PublishError> {
    let total: usize = mappings.iter().map(|mapping| usize::from(mapping.count)).sum();
    let mut reserved = Reserved { bindings: Vec::new(), fronts: Vec::new(), is_redirected: total > RESERVED };
    for mapping in mappings {
        let last = |first: u16| first.checked_add(mapping.count.saturating_sub(1));
        for first in [mapping.container_port, mapping.host_port] {
            if last(first).is_none() {
                return Err(PublishError::Range { first, count: mapping.count });
            }
        }
        if mapping.host_port == 0 {
            for port in 0..mapping.count {
                reserved.any(mapping, mapping.container_port + port, others)?;
            }
            continue;
        }
        for host_address in addresses(mapping) {
            let binding = Binding {
                host_address,
                host_port: mapping.host_port,
                container_port: mapping.container_port,
                count: mapping.count,
                protocol: mapping.protocol,
            };
            reserved.check(&binding, others)?;
            if reserved.is_redirected {
                sockets::check(&binding)?;
            } else {
                reserved.hold(&binding)?;
            }
            reserved.bindings.push(binding);
        }
    }
    Ok(reserved)
}

/// The host's addresses that a mapping is for.
fn addresses(mapping: &PortMapping) -> Vec<IpAddr> {
    match mapping.host_address {
        Some(address) => vec![address],
        None if sysctl::has_ipv6() => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        None => vec![Ipv4Addr::UNSPECIFIED.into()],
    }
}

impl Reserved {
    /// An error when a container has one of the ports, or we have.
    fn check(&self, binding: &Binding, others: &[Ports]) -> Result<(), PublishError> {
        let theirs = others.iter().flat_map(|ports| {
            let holder = Holder::Container(ports.owner.clone());
            ports.bindings.iter().map(move |other| (other, holder.clone()))
        });
        let ours = self.bindings.iter().map(|other| (other, Holder::Unknown));
        for (other, holder) in theirs.chain(ours) {
            if let Some(port) = binding.conflict(other) {
                let address = SocketAddr::new(binding.host_address, port);
                return Err(PublishError::Allocated { address, holder });
            }
        }
        Ok(())
    }

    /// Takes the ports by binding sockets to them.
    fn hold(&mut self, binding: &Binding) -> Result<(), PublishError> {
        for (port, inside) in binding.ports() {
            let address = SocketAddr::new(binding.host_address, port);
            match bind(address, binding.protocol) {
                Ok(front) => self.fronts.extend(front.map(|front| (front, inside))),
                Err(Errno::ADDRINUSE) => {
                    let holder = sockets::holder(address, binding.protocol);
                    return Err(PublishError::Allocated { address, holder });
                }
                Err(source) => {
                    return Err(PublishError::Bind { address, protocol: binding.protocol, source });
                }
            }
        }
        Ok(())
    }

    /// Takes any port that is free on all of a mapping's addresses.
    fn any(
        &mut self,
        mapping: &PortMapping,
        container_port: u16,
        others: &[Ports],
    ) -> Result<(), PublishError> {
        let protocol = mapping.protocol;
        let addresses = addresses(mapping);
        let Some(first) = addresses.first() else { return Ok(()) };
        let mut failure = PublishError::NoPort(protocol);
        for _ in 0..TRIES {
            // The kernel knows a free one.
            let address = SocketAddr::new(*first, 0);
            let kind = if protocol == Protocol::Udp { SocketType::DGRAM } else { SocketType::STREAM };
            let picked = proxy::bind(address, kind)
                .and_then(|socket| SocketAddr::try_from(rustix::net::getsockname(&socket)?));
            let picked = picked.map_err(|source| PublishError::Bind { address, protocol, source })?;
            let (bindings, fronts) = (self.bindings.len(), self.fronts.len());
            let taken = addresses.iter().try_for_each(|host_address| {
                let (host_address, host_port) = (*host_address, picked.port());
                let binding = Binding { host_address, host_port, container_port, count: 1, protocol };
                self.check(&binding, others)?;
                self.hold(&binding)?;
                self.bindings.push(binding);
                Ok(())
            });
            match taken {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
            self.bindings.truncate(bindings);
            self.fronts.truncate(fronts);
        }
        Err(failure)
    }
}

/// A socket bound to a port; none for a protocol that the kernel may lack, and that we do not serve.
fn bind(address: SocketAddr, protocol: Protocol) -> Result<Option<FrontSocket>, Errno> {
    match protocol {
        Protocol::Tcp => proxy::listen(address).map(|socket| Some(FrontSocket::Stream(socket))),
        Protocol::Udp => {
            proxy::bind(address, SocketType::DGRAM).map(|socket| Some(FrontSocket::Datagram(socket)))
        }
        Protocol::Sctp => Ok(None),
    }
}

/// Has the proxy serve what rules do not: gives also where it waits for connections that rules redirect.
fn serve(
    reserved: Reserved,
    connection: &Connection,
    proxy: &Proxy,
) -> Result<(Vec<Serving>, Vec<SocketAddr>), Errno> {
    // Programs that listen for version 4 only are more common than the contrary.
    let targets = |port: u16| {
        let ipv6 = connection.ipv6.map(|ipv6| SocketAddr::new(ipv6.address.into(), port));
        [Some(SocketAddr::new(connection.address.into(), port)), ipv6].into_iter().flatten().collect()
    };
    let mut serving = Vec::new();
    if !reserved.fronts.is_empty() {
        let fronts = reserved.fronts.into_iter();
        let fronts = fronts.map(|(socket, port)| Front { socket, targets: targets(port) });
        serving.push(proxy.serve(fronts.collect())?);
    }
    let is_served = |binding: &&Binding| {
        let address = binding.host_address;
        binding.protocol == Protocol::Tcp && (address.is_unspecified() || address.is_loopback())
    };
    let mut routes = Vec::new();
    for binding in reserved.bindings.iter().filter(is_served).filter(|_| reserved.is_redirected) {
        routes.extend(binding.ports().map(|(port, inside)| Route {
            meant_for: SocketAddr::new(binding.host_address, port),
            targets: targets(inside),
        }));
    }
    if routes.is_empty() {
        return Ok((serving, Vec::new()));
    }
    let (redirecting, listeners) = proxy.redirect(routes)?;
    serving.push(redirecting);
    Ok((serving, listeners))
}
