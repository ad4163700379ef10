//! Network: a bridge and the containers connected to it.

use super::address::{self, Subnet, Subnet6, mac_of};
use super::config::{Ipv6, NetworkConfig, Parent, ParentMode, Place};
use super::link::{self, Pair, carry_out};
use super::netlink::Netlink;
use super::rules::{self, Network};
use super::store::{Changing, Known, Lease, Store};
use super::sysctl::Version;
use super::{NetworkError, kernel, pool, sysctl};
use kiln_runtime::MakeNetwork;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use tracing::debug;

/// Network of containers on this host.
#[derive(Debug)]
pub struct Bridge {
    pub(super) store: Store,
    pub(super) network: Network,
    index: u32,
    gateway: Ipv4Addr,
    mtu: Option<u32>,
    isolated_members: bool,
    range: Option<Subnet>,
    reserved: Vec<IpAddr>,
    /// Mode of interfaces on a device of the host, whose index `index` is; `None` on a bridge.
    pub(super) parent: Option<ParentMode>,
}

/// Addresses of an existing network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// IPv4 subnet of the network.
    pub subnet: Subnet,
    /// IPv4 address of its bridge.
    pub gateway: Ipv4Addr,
    /// IPv6 range; `None` where the network has no IPv6.
    pub subnet6: Option<Subnet6>,
}

/// Endpoint of a container in a network. Its address is free again when this is dropped and the container has ended.
#[derive(Debug)]
pub struct Connection {
    namespace: OwnedFd,
    /// Name of the container's interface.
    pub interface: String,
    /// IPv4 address of the container.
    pub address: Ipv4Addr,
    /// Gateway of the container's default route.
    pub gateway: Ipv4Addr,
    /// IPv4 subnet of the network.
    pub subnet: Subnet,
    /// IPv6 part; `None` where the network has no IPv6.
    pub ipv6: Option<Connection6>,
    /// MAC address of the container's interface.
    pub mac: [u8; 6],
    pub(super) lease: Arc<Lease>,
    has_parent: bool,
}

/// IPv6 part of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection6 {
    /// IPv6 address of the container.
    pub address: Ipv6Addr,
    /// Gateway of the container's default route.
    pub gateway: Ipv6Addr,
    /// IPv6 range of the network.
    pub subnet: Subnet6,
}

impl Connection {
    /// Notes the first process of the container, with its start time in ticks since boot: it keeps the addresses when
    /// this process is killed.
    ///
    /// # Errors
    /// Fails when the file of the lease cannot be written.
    pub fn note_user(&self, pid: i32, ticks: &str) -> Result<(), NetworkError> {
        let failed = |errno: Errno| super::file("write", Path::new("lease"))(errno.into());
        self.lease.note_user(pid, ticks).map_err(failed)
    }

    /// Network namespace to start the container in.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Makes the network the container's way out, in place of another one.
    ///
    /// # Errors
    /// Fails when the interface is gone, or the kernel refuses the route.
    pub fn lead_out(&self) -> Result<(), NetworkError> {
        let mut inside = routing_in(self.namespace.as_fd())?;
        let index = index_of(&mut inside, &self.interface)?;
        let mut steps = vec![link::replace_default_route(index, self.gateway.into())];
        steps.extend(self.ipv6.map(|ipv6| link::replace_default_route(index, ipv6.gateway.into())));
        carry_out(&mut inside, &steps)
    }

    /// Removes the interface from a container that runs on. The addresses are free again when this is dropped.
    ///
    /// # Errors
    /// Fails when the kernel refuses it.
    pub fn unplug(&self) -> Result<(), NetworkError> {
        if self.has_parent {
            let mut inside = routing_in(self.namespace.as_fd())?;
            carry_out(&mut inside, &[link::unplug(&self.interface)])?;
        } else {
            let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
            carry_out(&mut host, &[link::unplug(&self.lease.interface)])?;
        }
        let failed = |errno: Errno| super::file("write", Path::new("lease"))(errno.into());
        self.lease.forget_user().map_err(failed)
    }
}

impl Bridge {
    /// Opens the default network, or creates it. `state` is a directory that is emptied at boot; several processes may
    /// use it at once.
    pub fn open(state: &Path) -> Result<Bridge, NetworkError> {
        Bridge::open_with(state, &NetworkConfig::default())
    }

    /// Opens a network, or creates it. An existing one keeps its addresses.
    ///
    /// # Errors
    /// [`NetworkError::Differs`] when the configuration requires other addresses than the existing network's, or
    /// another value of `internal`; [`NetworkError::Overlap`] and [`NetworkError::NoSubnet`] when subnets are in use.
    pub fn open_with(state: &Path, config: &NetworkConfig) -> Result<Bridge, NetworkError> {
        let bridge = config.checked_bridge();
        let bridge = bridge.ok_or_else(|| NetworkError::BadName(config.bridge.clone()))?;
        let store = Store::open(state)?;
        let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
        let index = link::find(&mut host, bridge).map_err(kernel("look for the bridge"))?;
        let changing = store.change()?;
        let known = match (index, store.known(bridge)) {
            (Some(index), Some(known)) if known.index == index => known,
            (index, _) => make(&mut host, &store, &changing, index, config)?,
        };
        let (subnet, has_ipv6) = (known.network.ipv4, known.network.ipv6.is_some());
        debug!(bridge, %subnet, has_ipv6, was_created = index != Some(known.index), "network");
        check(config, &known.network)?;
        store.start_forwarding(&changing, Version::Four)?;
        if known.network.ipv6.is_some() {
            store.start_forwarding(&changing, Version::Six)?;
        }
        store.live_ports(&changing)?;
        store.ensure_rules(&changing, &known.network)?;
        Ok(Bridge {
            store,
            network: known.network,
            index: known.index,
            gateway: known.gateway,
            mtu: config.mtu,
            isolated_members: config.isolated_members,
            range: config.range,
            reserved: config.reserved.clone(),
            parent: None,
        })
    }

    /// Opens a network whose containers have interfaces on a device of this host, and addresses in that one's network. It
    /// has neither a bridge nor packet rules.
    ///
    /// # Errors
    /// [`NetworkError::NoParent`] when there is no such device, [`NetworkError::NoSubnet`] without a subnet.
    pub fn open_on(state: &Path, config: &NetworkConfig, parent: &Parent) -> Result<Bridge, NetworkError> {
        let ipv4 = config.ipv4.ok_or_else(|| NetworkError::NoSubnet("none was chosen".to_owned()))?;
        let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
        let index = link::find(&mut host, &parent.device).map_err(kernel("look for the parent device"))?;
        let ipv6 = match config.ipv6 {
            Ipv6::Range(range) => Some(range),
            Ipv6::Automatic | Ipv6::Off => None,
        };
        let bridge = parent.device.clone();
        Ok(Bridge {
            store: Store::open(state)?,
            network: Network { bridge, ipv4, ipv6, internal: config.internal },
            index: index.ok_or_else(|| NetworkError::NoParent(parent.device.clone()))?,
            gateway: config.gateway.unwrap_or_else(|| ipv4.gateway()),
            mtu: config.mtu,
            isolated_members: false,
            range: config.range,
            reserved: config.reserved.clone(),
            parent: Some(parent.mode),
        })
    }

    /// True while a container uses an address of a subnet.
    ///
    /// # Errors
    /// Fails when the files of leases cannot be used.
    pub fn is_used(state: &Path, subnet: Subnet) -> Result<bool, NetworkError> {
        Store::open(state)?.is_used(subnet)
    }

    /// Addresses of the network of a bridge; `None` when it does not exist now.
    ///
    /// # Errors
    /// Fails when the state cannot be used.
    pub fn ranges(state: &Path, bridge: &str) -> Result<Option<Ranges>, NetworkError> {
        let known = Store::open(state)?.known(bridge);
        Ok(known.map(|Known { gateway, network, .. }| Ranges {
            subnet: network.ipv4,
            gateway,
            subnet6: network.ipv6,
        }))
    }

    /// Removes a network that no container uses; an absent one is a success. With the last network, packet forwarding
    /// on the host is switched off, if it was off before the first.
    ///
    /// # Errors
    /// [`NetworkError::InUse`] while a container uses an address of the network.
    pub fn remove(state: &Path, bridge: &str) -> Result<(), NetworkError> {
        let store = Store::open(state)?;
        let changing = store.change()?;
        let Some(known) = store.known(bridge) else { return Ok(()) };
        if store.is_used(known.network.ipv4)? {
            return Err(NetworkError::InUse(bridge.to_owned()));
        }
        store.live_ports(&changing)?;
        store.forget(&changing, bridge)?;
        rules::remove_network(&known.network).map_err(kernel("remove packet rules"))?;
        if store.networks().is_empty() {
            store.stop_forwarding(&changing)?;
        }
        let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
        match link::find(&mut host, bridge).map_err(kernel("look for the bridge"))? {
            Some(index) if index == known.index => carry_out(&mut host, &[link::delete(bridge)]),
            _ => Ok(()),
        }
    }

    /// Removes the packet rules of a network that no container uses; [`Bridge::open_with`] adds them again. The caller sees
    /// to it that no other process is between opening the network and connecting a container.
    ///
    /// # Errors
    /// Fails when the state or the rules cannot be changed.
    pub fn rest(state: &Path, bridge: &str) -> Result<(), NetworkError> {
        let store = Store::open(state)?;
        let _changing = store.change()?;
        match store.known(bridge) {
            Some(known) if !store.is_used(known.network.ipv4)? => {
                rules::remove_network(&known.network).map_err(kernel("remove packet rules"))
            }
            _ => Ok(()),
        }
    }

    /// IPv4 address under which containers reach this host.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// IPv4 subnet of the network.
    pub fn subnet(&self) -> Subnet {
        self.network.ipv4
    }

    /// IPv6 range of the network; `None` where it has no IPv6.
    pub fn subnet6(&self) -> Option<Subnet6> {
        self.network.ipv6
    }

    /// Creates a network namespace and connects it.
    ///
    /// # Errors
    /// [`NetworkError::NoAddress`] when all addresses of the network are in use.
    pub fn connect(&self, maker: &dyn MakeNetwork) -> Result<Connection, NetworkError> {
        self.connect_at(maker, &Place::default())
    }

    /// Creates a network namespace and connects it with the addresses of `place`.
    ///
    /// # Errors
    /// [`NetworkError::NotInRange`], [`NetworkError::AddressInUse`] and [`NetworkError::NoAddress`].
    pub fn connect_at(&self, maker: &dyn MakeNetwork, place: &Place) -> Result<Connection, NetworkError> {
        let lease = self.lease(place)?;
        let (namespace, routing) = maker.make_network()?;
        let mut inside = Netlink::over(routing);
        let loopback = [link::bring_up("bring up loopback", link::LOOPBACK)];
        self.link(lease, place, namespace, &mut inside, ("eth0", link::INSIDE), &loopback)
    }

    /// Connects an existing network namespace by an interface called `name`, which must not exist in it. Only the first
    /// network of a container has the default route, so this one gets none.
    ///
    /// # Errors
    /// Those of [`Bridge::connect_at`].
    pub fn join(
        &self,
        namespace: BorrowedFd<'_>,
        name: &str,
        place: &Place,
    ) -> Result<Connection, NetworkError> {
        let lease = self.lease(place)?;
        let namespace = namespace.try_clone_to_owned().map_err(super::file("use", Path::new("namespace")))?;
        let mut inside = routing_in(namespace.as_fd())?;
        self.link(lease, place, namespace, &mut inside, (name, 0), &[])
    }

    /// Links the container to the bridge in two exchanges with the kernel: one in this namespace for the pair of
    /// interfaces, one for all that is in the container's.
    fn link(
        &self,
        lease: (Lease, Option<Ipv6Addr>),
        place: &Place,
        namespace: OwnedFd,
        inside: &mut Netlink,
        (name, index): (&str, u32),
        before: &[link::Step],
    ) -> Result<Connection, NetworkError> {
        let (lease, address6) = lease;
        let mac = place.mac.unwrap_or_else(|| mac_of(lease.address));
        let pair = Pair {
            bridge: self.index,
            namespace: namespace.as_fd(),
            name,
            index,
            mac,
            mtu: self.mtu,
            isolated: self.isolated_members,
            hairpin: sysctl::bridges_are_filtered(),
        };
        let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
        // The interface of the address's previous user may still exist with this address. It is only set down: its
        // deletion takes a hundred times as long.
        let mut steps: Vec<link::Step> = lease.before.iter().map(|name| link::take_down(name)).collect();
        match self.parent {
            Some(mode) => steps.push(pair.make_on(mode)),
            None => steps.extend(pair.make(&lease.interface)),
        }
        carry_out(&mut host, &steps)?;
        let is_first = index != 0;
        let index = if is_first { index } else { index_of(inside, name)? };
        let connection = Connection {
            namespace,
            interface: name.to_owned(),
            address: lease.address,
            gateway: self.gateway,
            subnet: self.network.ipv4,
            ipv6: self.connection6(address6),
            mac,
            lease: Arc::new(lease),
            has_parent: self.parent.is_some(),
        };
        let mut steps = before.to_vec();
        steps.extend(inside_steps(
            &connection,
            index,
            is_first && !self.network.internal && !place.without_route,
        ));
        if let Err(error) = carry_out(inside, &steps) {
            // The error that came first matters; a new namespace takes its interface along.
            let _ = connection.unplug();
            return Err(error);
        }
        Ok(connection)
    }

    /// Leases addresses that are not in use.
    fn lease(&self, place: &Place) -> Result<(Lease, Option<Ipv6Addr>), NetworkError> {
        let range = self.network.ipv4;
        let is_reserved = |address: IpAddr| self.reserved.contains(&address);
        for address in [place.ipv4.map(IpAddr::V4), place.ipv6.map(IpAddr::V6)].into_iter().flatten() {
            if is_reserved(address) || address.is_ipv6() && self.store.is_taken(address)? {
                return Err(NetworkError::AddressInUse(address));
            }
        }
        if let Some(address) = place.ipv4 {
            let is_usable = address != self.gateway && address != range.network() && address != range.last();
            if !range.contains(address) || !is_usable {
                return Err(NetworkError::NotInRange(address.into(), range.to_string()));
            }
            return self.lease_one(address, place)?.ok_or_else(|| NetworkError::AddressInUse(address.into()));
        }
        let is_free = |address: &Ipv4Addr| *address != self.gateway && !is_reserved((*address).into());
        let part = self.range.map(|part| range.hosts_in(part));
        let all = self.range.is_none().then(|| range.hosts());
        for address in part.into_iter().flatten().chain(all.into_iter().flatten()).filter(is_free) {
            if let Some(lease) = self.lease_one(address, place)? {
                return Ok(lease);
            }
        }
        Err(NetworkError::NoAddress(self.range.unwrap_or(range)))
    }

    /// Takes the addresses of a container that runs, whose previous holder was killed: those of `endpoint`, in its
    /// network namespace. `None` when another container has got one of them meanwhile.
    ///
    /// # Errors
    /// Fails when the files of leases cannot be used.
    pub fn retake(
        &self,
        namespace: OwnedFd,
        interface: &str,
        (address, ipv6): (Ipv4Addr, Option<Ipv6Addr>),
    ) -> Result<Option<Connection>, NetworkError> {
        let derived = || self.network.ipv6.map(|range| range.member(self.network.ipv4.offset(address)));
        let ipv6 = ipv6.or_else(derived);
        let lease = self.store.retake(address, ipv6.map(IpAddr::V6))?;
        Ok(lease.map(|lease| Connection {
            namespace,
            interface: interface.to_owned(),
            address,
            gateway: self.gateway,
            subnet: self.network.ipv4,
            ipv6: self.connection6(ipv6),
            mac: mac_of(address),
            lease: Arc::new(lease),
            has_parent: self.parent.is_some(),
        }))
    }

    fn connection6(&self, address: Option<Ipv6Addr>) -> Option<Connection6> {
        let both = address.zip(self.network.ipv6);
        both.map(|(address, subnet)| Connection6 { address, gateway: subnet.gateway(), subnet })
    }

    fn lease_one(
        &self,
        address: Ipv4Addr,
        place: &Place,
    ) -> Result<Option<(Lease, Option<Ipv6Addr>)>, NetworkError> {
        let ipv6 = match (place.ipv6, self.network.ipv6) {
            (None, range) => range.map(|range| range.member(self.network.ipv4.offset(address))),
            (Some(wanted), Some(range)) if range.contains(wanted) && wanted != range.gateway() => {
                Some(wanted)
            }
            (Some(wanted), range) => {
                let range = range.map_or("a network without version 6".to_owned(), |range| range.to_string());
                return Err(NetworkError::NotInRange(wanted.into(), range));
            }
        };
        let lease = self.store.lease(address, ipv6.map(IpAddr::V6), new_name)?;
        Ok(lease.map(|lease| (lease, ipv6)))
    }
}

/// Routing socket in another network namespace, which this thread enters for a moment.
///
/// A further thread would stay visible for a while after its end, and the monitor of a container must be seen to have one
/// when it forks.
fn routing_in(namespace: BorrowedFd<'_>) -> Result<Netlink, NetworkError> {
    const HOME: &str = "/proc/thread-self/ns/net";
    let enter = |to: BorrowedFd<'_>| move_into_link_name_space(to, Some(LinkNameSpaceType::Network));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let home = rustix::fs::open(HOME, flags, Mode::empty())
        .map_err(|errno| super::file("open", Path::new(HOME))(errno.into()))?;
    enter(namespace).map_err(|errno| super::file("enter", Path::new("network namespace"))(errno.into()))?;
    let socket = Netlink::route_socket();
    enter(home.as_fd()).expect("a thread may return to the namespace that it comes from");
    socket.map(Netlink::over).map_err(kernel("open a routing socket"))
}

/// Index of the interface `name`, which exists.
fn index_of(netlink: &mut Netlink, name: &str) -> Result<u32, NetworkError> {
    let found = link::find(netlink, name).map_err(kernel("look for the container's interface"))?;
    found.ok_or_else(|| NetworkError::BadName(name.to_owned()))
}

/// Steps in the container's namespace.
fn inside_steps(connection: &Connection, index: u32, is_way_out: bool) -> Vec<link::Step> {
    let mut steps = Vec::new();
    let own = connection.subnet.with(connection.address);
    steps.push(link::give_address("set the container's address", index, own));
    if let Some(ipv6) = connection.ipv6 {
        let what = "set the container's version 6 address";
        steps.push(link::give_link_local(what, index, connection.mac));
        steps.push(link::give_address6(what, index, ipv6.address, ipv6.subnet.prefix()));
    }
    steps.push(link::bring_up("bring up the container's interface", index));
    if is_way_out {
        steps.push(link::default_route(index, connection.gateway.into()));
        steps.extend(connection.ipv6.map(|ipv6| link::default_route(index, ipv6.gateway.into())));
    }
    steps
}

/// Creates the missing parts of a network: its bridge, or only the addresses of a bridge that another process or an
/// earlier version has created.
fn make(
    host: &mut Netlink,
    store: &Store,
    changing: &Changing,
    index: Option<u32>,
    config: &NetworkConfig,
) -> Result<Known, NetworkError> {
    let bridge = &config.bridge;
    let ipv6 = match config.ipv6 {
        Ipv6::Off => None,
        Ipv6::Automatic => {
            let has_ipv6 = sysctl::has_ipv6() && store.start_forwarding(changing, Version::Six).is_ok();
            has_ipv6.then(|| Subnet6::local(&machine(), bridge))
        }
        Ipv6::Range(range) => {
            store.start_forwarding(changing, Version::Six)?;
            Some(range)
        }
    };
    let index = match index {
        Some(index) => index,
        None => link::make_bridge(host, bridge, random_mac(), config.mtu)?,
    };
    let (own, own6) = (
        link::address(host, index).map_err(kernel("read the bridge's address"))?,
        link::address6(host, index).map_err(kernel("read the bridge's address"))?,
    );
    let own = match own {
        Some(own) => own,
        None => choose_address(host, config)?,
    };
    // The bridge's existing address may be any in the range.
    let ipv6 = own6.filter(|_| config.ipv6 == Ipv6::Automatic).or(ipv6);
    sysctl::ignore_advertisements(bridge);
    let what = "set the bridge's address";
    let mut steps = vec![link::give_address(what, index, own)];
    if let Some(ipv6) = ipv6 {
        // Forwarded packets are announced by neighbour discovery from a link-local address, and only by one whose
        // duplicate address detection has ended.
        let announcing = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        steps.push(link::give_address6(what, index, announcing, 64));
        steps.push(link::give_address6(what, index, ipv6.gateway(), ipv6.prefix()));
    }
    steps.push(link::bring_up("bring up the bridge", index));
    carry_out(host, &steps)?;
    let network = Network {
        bridge: bridge.clone(),
        ipv4: Subnet::of(own.network(), own.prefix()),
        ipv6: ipv6.map(|ipv6| Subnet6::of(ipv6.network(), ipv6.prefix())),
        internal: config.internal,
    };
    let known = Known { index, gateway: own.address(), network };
    store.remember(changing, &known)?;
    // Rules of an earlier bridge of this name may be for other addresses.
    if rules::know(bridge).map_err(kernel("set up packet rules"))? {
        store.restore_rules(changing)?;
    }
    Ok(known)
}

/// Address of the bridge, with its subnet.
fn choose_address(host: &mut Netlink, config: &NetworkConfig) -> Result<Subnet, NetworkError> {
    let mut used = link::networks(host).map_err(kernel("read this host's routes"))?;
    if config.ipv4.is_none() {
        used.extend(&config.avoid);
        used.extend(pool::servers());
    }
    let is_free = |range: Subnet| !used.iter().any(|used| used.overlaps(range));
    let range = match config.ipv4 {
        Some(range) if is_free(range) => range,
        Some(range) => return Err(NetworkError::Overlap(range)),
        None => address::CANDIDATES.iter().copied().find(|range| is_free(*range)).ok_or_else(|| {
            let list: Vec<String> = address::CANDIDATES.iter().map(ToString::to_string).collect();
            NetworkError::NoSubnet(list.join(", "))
        })?,
    };
    let gateway = config.gateway.unwrap_or_else(|| range.gateway());
    if range.contains(gateway) {
        Ok(range.with(gateway))
    } else {
        Err(NetworkError::NotInRange(gateway.into(), range.to_string()))
    }
}

/// Fails when a network differs from a configuration.
fn check(config: &NetworkConfig, network: &Network) -> Result<(), NetworkError> {
    let ipv4 = config.ipv4.is_none_or(|range| range.to_string() == network.ipv4.to_string());
    let ipv6 = match config.ipv6 {
        Ipv6::Automatic => true,
        Ipv6::Off => network.ipv6.is_none(),
        Ipv6::Range(range) => network.ipv6.is_some_and(|other| other.to_string() == range.to_string()),
    };
    if ipv4 && ipv6 && config.internal == network.internal {
        Ok(())
    } else {
        Err(NetworkError::Differs(config.bridge.clone()))
    }
}

/// Identifier of this host; random when it has none.
pub(super) fn machine() -> Vec<u8> {
    match fs::read("/etc/machine-id") {
        Ok(id) if !id.is_empty() => id,
        _ => random::<16>().to_vec(),
    }
}

/// Random name for a new interface.
fn new_name() -> String {
    let [a, b, c, d, e] = random::<5>();
    format!("kiln{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}")
}

fn random_mac() -> [u8; 6] {
    let [a, b, c, d, e] = random::<5>();
    [0x02, a, b, c, d, e]
}

fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    while let Err(Errno::INTR) = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {}
    bytes
}
