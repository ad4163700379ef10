//! Published ports: ports of the host that are mapped to a container.
//!
//! Packet rules redirect connections from elsewhere, and from this host to its other addresses, which keep their source
//! address. Connections to loopback addresses are served by a [`Proxy`]. The sockets that it serves also reserve the
//! ports, so that a conflict is reported at once, and no other process can bind one later. Very many ports are not
//! reserved in this way: conflicts among containers and with ports that are in use now are reported, but a program can
//! bind one later, to no effect.

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

/// Most ports of one container that are reserved by a socket each, or two.
const RESERVED: usize = 128;
/// Number of attempts to find a port that is free in both IP versions.
const TRIES: usize = 64;

/// Reason why ports cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The port is in use.
    #[error("Bind for {address} failed: port is already allocated{holder}")]
    Allocated {
        /// Address and port of the host.
        address: SocketAddr,
        /// Container or process that uses the port.
        holder: Holder,
    },
    /// The port cannot be bound for another reason.
    #[error("cannot bind {address}/{protocol}")]
    Bind {
        /// Address and port of the host.
        address: SocketAddr,
        /// Transport protocol of the port.
        protocol: Protocol,
        /// Cause of the failure.
        #[source]
        source: Errno,
    },
    /// No port of the host is free.
    #[error("no free {0} port")]
    NoPort(Protocol),
    /// The range exceeds the largest port number.
    #[error("{count} ports from {first} on are more than there are")]
    Range {
        /// First port of the range.
        first: u16,
        /// Number of ports in the range.
        count: u16,
    },
    /// The network is internal: nothing is forwarded into it.
    #[error("ports cannot be published in an internal network")]
    Internal,
    /// The container's address is one of the network outside of this host.
    #[error(
        "ports cannot be published in a macvlan network: its containers are reached at their own addresses"
    )]
    Outside,
    /// The container has published ports already.
    #[error("the container's ports are published already")]
    Twice,
    /// The proxy cannot be started.
    #[error("cannot serve ports on loopback addresses")]
    Proxy(#[source] Errno),
    /// An operation on the network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Holder of a port that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Another container, by its owner text.
    Container(String),
    /// A process on this host.
    Process {
        /// Pid of the process.
        pid: i32,
        /// Name of the process.
        name: String,
    },
    /// The holder cannot be determined.
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

/// Published ports of a container. They are free again when this is dropped.
#[derive(Debug)]
pub struct Published {
    bindings: Vec<Binding>,
    /// Addresses of the container.
    container: Vec<IpAddr>,
    serving: Vec<Serving>,
    store: Store,
    address: Ipv4Addr,
    /// Keeps the address of the container.
    _lease: Arc<Lease>,
}

impl Published {
    /// Bindings in force, with the ports that were picked.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.serving.clear();
        // Ports that cannot be removed now are removed later like those of a killed process.
        if let Ok(changing) = self.store.change() {
            let _ = self.store.forget_ports(&changing, self.address);
            let _ = conntrack::forget(&self.bindings, &[], &self.container);
        }
    }
}

impl Bridge {
    /// Publishes ports of a container, all or none. `owner` appears in errors about conflicts with these ports.
    ///
    /// # Errors
    /// [`PublishError::Allocated`] when a port is in use, [`PublishError::Internal`] and [`PublishError::Twice`].
    pub fn publish(
        &self,
        connection: &Connection,
        mappings: &[PortMapping],
        owner: &str,
        proxy: &Proxy,
    ) -> Result<Published, PublishError> {
        if self.store.has_ports(connection.address) {
            return Err(PublishError::Twice);
        }
        let changing = self.store.change()?;
        let published = self.publish_for(&changing, Target::of(connection), mappings, owner, proxy)?;
        drop(changing);
        forget_flows(published)
    }

    /// Publishes the ports of a container again whose publisher was killed.
    ///
    /// # Errors
    /// Those of [`Bridge::publish`]: another process may have taken a port meanwhile.
    pub fn publish_again(
        &self,
        retaken: &Connection,
        bindings: &[Binding],
        owner: &str,
        proxy: &Proxy,
    ) -> Result<Published, PublishError> {
        let mappings: Vec<PortMapping> = bindings.iter().map(PortMapping::from).collect();
        let changing = self.store.change()?;
        self.store.forget_ports(&changing, retaken.address)?;
        let published = self.publish_for(&changing, Target::of(retaken), &mappings, owner, proxy)?;
        drop(changing);
        forget_flows(published)
    }

    fn publish_for(
        &self,
        changing: &Changing,
        target: Target,
        mappings: &[PortMapping],
        owner: &str,
        proxy: &Proxy,
    ) -> Result<Published, PublishError> {
        if self.network.internal {
            return Err(PublishError::Internal);
        }
        if self.parent.is_some() {
            return Err(PublishError::Outside);
        }
        self.store.ensure_rules(changing, &self.network)?;
        let others = self.store.live_ports(changing)?;
        let reserved = reserve(mappings, &others)?;
        let bindings = reserved.bindings.clone();
        let (serving, redirect) = serve(reserved, &target, proxy).map_err(PublishError::Proxy)?;
        let Target { ipv4, ipv6, lease } = target;
        let ports = Ports { owner: owner.to_owned(), bindings, ipv4, ipv6, redirect };
        put_in_force(&self.store, changing, &ports)?;
        Ok(Published {
            bindings: ports.bindings,
            container: [Some(ipv4.into()), ipv6.map(IpAddr::V6)].into_iter().flatten().collect(),
            serving,
            store: self.store.clone(),
            address: ipv4,
            _lease: lease,
        })
    }
}

/// Forgets how datagrams to the ports have gone before. The lock on the network must be free: on failure the ports are
/// released, which takes it.
fn forget_flows(published: Published) -> Result<Published, PublishError> {
    let forgotten = link::all_addresses()
        .and_then(|local| conntrack::forget(&published.bindings, &local, &[]))
        .map_err(kernel("forget how datagrams have gone"));
    forgotten.map(|()| published).map_err(PublishError::from)
}

/// Container to which ports lead.
struct Target {
    ipv4: Ipv4Addr,
    ipv6: Option<Ipv6Addr>,
    lease: Arc<Lease>,
}

impl Target {
    fn of(connection: &Connection) -> Target {
        let ipv6 = connection.ipv6.map(|ipv6| ipv6.address);
        Target { ipv4: connection.address, ipv6, lease: connection.lease.clone() }
    }
}

/// Stores the ports and adds their rules, or neither.
fn put_in_force(store: &Store, changing: &Changing, ports: &Ports) -> Result<(), NetworkError> {
    let failed = || kernel("make the rules of published ports");
    let entries = ports.entries();
    store.remember_ports(changing, ports)?;
    let added = rules::add_entries(&entries).map_err(failed()).and_then(|added| {
        if added {
            return Ok(());
        }
        // No known container has these ports, so the existing entries are stale.
        rules::remove_entries(&entries).map_err(failed())?;
        rules::add_entries(&entries).map_err(failed()).map(drop)
    });
    if added.is_err() {
        store.forget_ports(changing, ports.ipv4)?;
    }
    added
}

/// Ports that no other process can bind now.
struct Reserved {
    bindings: Vec<Binding>,
    /// Sockets bound to the host's ports, each with the container's port.
    fronts: Vec<(FrontSocket, u16)>,
    /// True when there are too many ports for a socket each.
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

/// Addresses of the host that a mapping applies to.
fn addresses(mapping: &PortMapping) -> Vec<IpAddr> {
    match mapping.host_address {
        Some(address) => vec![address],
        None if sysctl::has_ipv6() => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        None => vec![Ipv4Addr::UNSPECIFIED.into()],
    }
}

impl Reserved {
    /// Fails when another container has one of the ports, or this one already has.
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

    /// Reserves the ports by binding sockets to them.
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

    /// Reserves any port that is free on all of a mapping's addresses.
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
            // With port 0 the kernel picks a free one.
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

/// Socket bound to a port. `None` for SCTP, which the kernel may lack, and which the proxy does not serve.
fn bind(address: SocketAddr, protocol: Protocol) -> Result<Option<FrontSocket>, Errno> {
    match protocol {
        Protocol::Tcp => proxy::listen(address).map(|socket| Some(FrontSocket::Stream(socket))),
        Protocol::Udp => {
            proxy::bind(address, SocketType::DGRAM).map(|socket| Some(FrontSocket::Datagram(socket)))
        }
        Protocol::Sctp => Ok(None),
    }
}

/// Starts the proxy for ports that rules do not serve; returns also the listeners for connections that rules redirect.
fn serve(
    reserved: Reserved,
    target: &Target,
    proxy: &Proxy,
) -> Result<(Vec<Serving>, Vec<SocketAddr>), Errno> {
    // IPv4 first: programs that listen on IPv4 only are more common than those that listen on IPv6 only.
    let targets = |port: u16| {
        let ipv6 = target.ipv6.map(|ipv6| SocketAddr::new(ipv6.into(), port));
        [Some(SocketAddr::new(target.ipv4.into(), port)), ipv6].into_iter().flatten().collect()
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
    serving.extend(redirecting);
    Ok((serving, listeners))
}
