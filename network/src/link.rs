//! Interfaces, addresses and routes: changes are planned as data, and several are carried out at once.

use super::address::{Subnet, Subnet6, link_local};
use super::config::ParentMode;
use super::netlink::{Answer, CREATE, EXCLUSIVE, Message, Netlink, NetlinkError, REPLACE, Request};
use super::{NetworkError, kernel};
use netlink_packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Index of the loopback interface in every namespace.
pub(super) const LOOPBACK: u32 = 1;
/// Index of the container's first interface in its namespace.
pub(super) const INSIDE: u32 = 2;

/// One change, with its description for errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    what: &'static str,
    request: Request,
}

fn step(what: &'static str, message: &RouteNetlinkMessage, flags: u16) -> Step {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    Step { what, request: Request { kind: message.message_type(), flags, body, accepts: None } }
}

/// Carries out all steps in one exchange.
pub(super) fn carry_out(netlink: &mut Netlink, steps: &[Step]) -> Result<(), NetworkError> {
    let requests: Vec<Request> = steps.iter().map(|step| step.request.clone()).collect();
    netlink.exchange(&requests, None).map_err(|(place, source)| {
        let what = steps.get(place).map_or("set up links", |step| step.what);
        NetworkError::Kernel { what, source }
    })
}

fn dump(netlink: &mut Netlink, message: &RouteNetlinkMessage) -> Answer<Vec<RouteNetlinkMessage>> {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    let answers = netlink.dump(message.message_type(), &body)?;
    Ok(answers.iter().filter_map(parse).collect())
}

fn parse(message: &Message) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    RouteNetlinkMessage::deserialize(&header, &message.body).ok()
}

fn link(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

fn named(name: &str) -> LinkMessage {
    let mut link = link(0);
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn up(mut link: LinkMessage) -> LinkMessage {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

/// Index of the interface called `name`. `None` when there is none.
pub(super) fn find(netlink: &mut Netlink, name: &str) -> Answer<Option<u32>> {
    let question = RouteNetlinkMessage::GetLink(named(name));
    let mut body = vec![0; question.buffer_len()];
    question.emit(&mut body);
    match netlink.get(question.message_type(), &body) {
        Ok(answer) => match parse(&answer) {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link.header.index)),
            _ => Err(NetlinkError(libc::EBADMSG)),
        },
        Err(NetlinkError(libc::ENODEV)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a bridge with a fixed MAC address: otherwise it would take over that of its lowest port, and change it with
/// its containers.
pub(super) fn make_bridge(
    netlink: &mut Netlink,
    name: &str,
    mac: [u8; 6],
    mtu: Option<u32>,
) -> Result<u32, NetworkError> {
    let mut bridge = named(name);
    bridge.attributes.push(LinkAttribute::Address(mac.to_vec()));
    bridge.attributes.extend(mtu.map(LinkAttribute::Mtu));
    bridge.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    let what = "make the bridge";
    carry_out(netlink, &[step(what, &RouteNetlinkMessage::NewLink(bridge), CREATE | EXCLUSIVE)])?;
    let index = find(netlink, name).map_err(kernel("look for the bridge"))?;
    index.ok_or(NetworkError::Kernel { what, source: NetlinkError(libc::ENODEV) })
}

/// Pair of linked interfaces, one on the bridge in this namespace, one in a container.
pub(super) struct Pair<'a> {
    pub(super) bridge: u32,
    pub(super) namespace: BorrowedFd<'a>,
    /// Name of the interface in the container.
    pub(super) name: &'a str,
    /// Index in the container, where that is known to be free; else 0.
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    pub(super) mtu: Option<u32>,
    /// True when it can reach only the bridge itself.
    pub(super) isolated: bool,
    /// True when the bridge may send a container's packets back to the same container.
    pub(super) hairpin: bool,
}

impl Pair<'_> {
    /// Steps that create the pair. `name_here` must be new: the interface of an ended container may exist for a while,
    /// and waiting for its deletion takes tens of milliseconds.
    pub(super) fn make(&self, name_here: &str) -> Vec<Step> {
        let what = "link the container to the bridge";
        let mut peer = link(self.index);
        peer.attributes.push(LinkAttribute::IfName(self.name.to_owned()));
        peer.attributes.push(LinkAttribute::NetNsFd(self.namespace.as_raw_fd()));
        peer.attributes.push(LinkAttribute::Address(self.mac.to_vec()));
        peer.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        let mut here = up(named(name_here));
        here.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        here.attributes.push(LinkAttribute::Controller(self.bridge));
        here.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let mut steps = vec![step(what, &RouteNetlinkMessage::NewLink(here), CREATE | EXCLUSIVE)];
        if self.isolated || self.hairpin {
            let mut port = named(name_here);
            port.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![
                    InfoBridgePort::HairpinMode(self.hairpin),
                    InfoBridgePort::Isolated(self.isolated),
                ])),
            ]));
            let what = "set up the container's place at the bridge";
            steps.push(step(what, &RouteNetlinkMessage::NewLink(port), 0));
        }
        steps
    }
}

impl Pair<'_> {
    /// Step that creates the container's interface on a device of this host instead of on a bridge: `self.bridge` is the
    /// index of the device.
    pub(super) fn make_on(&self, mode: ParentMode) -> Step {
        let mut own = link(self.index);
        own.attributes.push(LinkAttribute::IfName(self.name.to_owned()));
        own.attributes.push(LinkAttribute::NetNsFd(self.namespace.as_raw_fd()));
        own.attributes.push(LinkAttribute::Link(self.bridge));
        own.attributes.push(LinkAttribute::Address(self.mac.to_vec()));
        own.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        let mode = match mode {
            ParentMode::Bridge => MacVlanMode::Bridge,
            ParentMode::Private => MacVlanMode::Private,
            ParentMode::Vepa => MacVlanMode::Vepa,
            ParentMode::Passthru => MacVlanMode::Passthrough,
        };
        own.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
        ]));
        let what = "create the container's interface on the parent device (macvlan)";
        step(what, &RouteNetlinkMessage::NewLink(own), CREATE | EXCLUSIVE)
    }
}

/// Step that sets an interface down; an absent one is a success.
pub(super) fn take_down(name: &str) -> Step {
    let mut down = named(name);
    down.header.change_mask = LinkFlags::Up;
    let what = "take down the interface of a container that is gone";
    let mut step = step(what, &RouteNetlinkMessage::SetLink(down), 0);
    step.request.accepts = Some(libc::ENODEV);
    step
}

pub(super) fn delete(name: &str) -> Step {
    step("remove the bridge", &RouteNetlinkMessage::DelLink(named(name)), 0)
}

/// Step that removes a container's interface by the name of its other end; an absent one is a success.
pub(super) fn unplug(name: &str) -> Step {
    let what = "remove the container's interface";
    let mut step = step(what, &RouteNetlinkMessage::DelLink(named(name)), 0);
    step.request.accepts = Some(libc::ENODEV);
    step
}

pub(super) fn bring_up(what: &'static str, index: u32) -> Step {
    step(what, &RouteNetlinkMessage::SetLink(up(link(index))), 0)
}

/// First IPv4 address of an interface. `None` when it has none.
pub(super) fn address(netlink: &mut Netlink, index: u32) -> Answer<Option<Subnet>> {
    let found = addresses(netlink, Some(index), AddressFamily::Inet)?;
    Ok(found.into_iter().find_map(|(address, prefix)| match address {
        IpAddr::V4(address) => Some(Subnet::of(address, prefix)),
        IpAddr::V6(_) => None,
    }))
}

/// First IPv6 address of an interface that is not link-local. `None` when it has none.
pub(super) fn address6(netlink: &mut Netlink, index: u32) -> Answer<Option<Subnet6>> {
    let found = addresses(netlink, Some(index), AddressFamily::Inet6)?;
    Ok(found.into_iter().find_map(|(address, prefix)| match address {
        IpAddr::V6(address) if !address.is_unicast_link_local() => Some(Subnet6::of(address, prefix)),
        _ => None,
    }))
}

/// All addresses of this host.
pub(super) fn all_addresses() -> Answer<Vec<IpAddr>> {
    let mut netlink = Netlink::open_route()?;
    let mut found = addresses(&mut netlink, None, AddressFamily::Inet)?;
    found.extend(addresses(&mut netlink, None, AddressFamily::Inet6)?);
    Ok(found.into_iter().map(|(address, _)| address).collect())
}

fn addresses(netlink: &mut Netlink, index: Option<u32>, family: AddressFamily) -> Answer<Vec<(IpAddr, u8)>> {
    let mut question = AddressMessage::default();
    question.header.family = family;
    let mut found = Vec::new();
    for message in dump(netlink, &RouteNetlinkMessage::GetAddress(question))? {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        if index.is_some_and(|index| message.header.index != index) {
            continue;
        }
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let plain = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        found.extend(local.or(plain).map(|address| (address, message.header.prefix_len)));
    }
    Ok(found)
}

/// Address that an interface keeps in another namespace.
pub(super) struct LastingAddress(AddressMessage);

impl LastingAddress {
    pub(super) fn give(self, index: u32) -> Step {
        let mut message = self.0;
        message.header.index = index;
        step(
            "give the network device its address",
            &RouteNetlinkMessage::NewAddress(message),
            CREATE | REPLACE,
        )
    }
}

/// Permanent addresses of global scope of an interface, as opposed to those with a lifetime.
pub(super) fn lasting_addresses(netlink: &mut Netlink, index: u32) -> Answer<Vec<LastingAddress>> {
    let mut found = Vec::new();
    for message in dump(netlink, &RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        let RouteNetlinkMessage::NewAddress(mut message) = message else { continue };
        let lasts = message.header.index == index
            && message.header.scope == AddressScope::Universe
            && message.header.flags.contains(AddressHeaderFlags::Permanent);
        if lasts {
            // The other attributes are the kernel's state and not settings; the label may hold the interface's old
            // name.
            message.attributes.retain(|attribute| {
                use AddressAttribute::{Address, Broadcast, Local};
                matches!(attribute, Local(_) | Address(_) | Broadcast(_))
            });
            found.push(LastingAddress(message));
        }
    }
    Ok(found)
}

/// Step that moves an interface into another namespace, under another name there.
pub(super) fn give_away(index: u32, inside: &str, namespace: BorrowedFd<'_>) -> Step {
    let mut message = link(index);
    message.attributes.push(LinkAttribute::IfName(inside.to_owned()));
    message.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    step("move the network device into the container", &RouteNetlinkMessage::SetLink(message), 0)
}

/// Step that adds an IPv4 address to an interface.
pub(super) fn give_address(what: &'static str, index: u32, address: Subnet) -> Step {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix();
    message.header.index = index;
    let broadcast = Ipv4Addr::from(u32::from(address.network()) | !address.mask());
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.address())));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address.address())));
    message.attributes.push(AddressAttribute::Broadcast(broadcast));
    step(what, &RouteNetlinkMessage::NewAddress(message), CREATE | REPLACE)
}

/// Step that adds an IPv6 address to an interface, without duplicate address detection: that takes more than a second,
/// and this network assigns its addresses itself.
pub(super) fn give_address6(what: &'static str, index: u32, address: Ipv6Addr, prefix: u8) -> Step {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = prefix;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.header.index = index;
    if address.is_unicast_link_local() {
        message.header.scope = AddressScope::Link;
    }
    message.attributes.push(AddressAttribute::Local(IpAddr::V6(address)));
    message.attributes.push(AddressAttribute::Address(IpAddr::V6(address)));
    step(what, &RouteNetlinkMessage::NewAddress(message), CREATE | REPLACE)
}

/// Step that adds to an interface the link-local address that the kernel would add later.
pub(super) fn give_link_local(what: &'static str, index: u32, mac: [u8; 6]) -> Step {
    give_address6(what, index, link_local(mac), 64)
}

/// Step that sets the default route to a gateway, where there was none.
pub(super) fn default_route(index: u32, gateway: IpAddr) -> Step {
    route_to(index, gateway, CREATE | EXCLUSIVE)
}

/// Step that sets the default route to a gateway, in place of another one.
pub(super) fn replace_default_route(index: u32, gateway: IpAddr) -> Step {
    route_to(index, gateway, CREATE | REPLACE)
}

fn route_to(index: u32, gateway: IpAddr, flags: u16) -> Step {
    let mut route = RouteMessage::default();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    let (family, gateway) = match gateway {
        IpAddr::V4(gateway) => (AddressFamily::Inet, RouteAddress::Inet(gateway)),
        IpAddr::V6(gateway) => (AddressFamily::Inet6, RouteAddress::Inet6(gateway)),
    };
    route.header.address_family = family;
    route.attributes.push(RouteAttribute::Gateway(gateway));
    route.attributes.push(RouteAttribute::Oif(index));
    let message = RouteNetlinkMessage::NewRoute(route);
    step("set the container's default route", &message, flags)
}

/// A route of IPv4 in the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Destination; `None` for the default route.
    pub(super) subnet: Option<Subnet>,
    /// Index of the interface.
    pub(super) interface: u32,
    /// Priority; the smallest one counts.
    pub(super) metric: u32,
}

/// Routes of this host's main table.
pub(super) fn ways(netlink: &mut Netlink) -> Answer<Vec<Way>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let messages = dump(netlink, &RouteNetlinkMessage::GetRoute(question))?;
    let way = |message: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return None };
        if route.header.table != RouteHeader::RT_TABLE_MAIN || route.header.kind != RouteType::Unicast {
            return None;
        }
        let (mut way, length) =
            (Way { subnet: None, interface: 0, metric: 0 }, route.header.destination_prefix_length);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(to)) => {
                    way.subnet = Some(Subnet::of(*to, length))
                }
                RouteAttribute::Oif(index) => way.interface = *index,
                RouteAttribute::Priority(metric) => way.metric = *metric,
                _ => {}
            }
        }
        Some(way)
    };
    Ok(messages.iter().filter_map(way).collect())
}

/// Destinations of this host's IPv4 routes, without the default route, and without the two halves of all addresses that
/// stand for one with some VPNs.
pub(super) fn networks(netlink: &mut Netlink) -> Answer<Vec<Subnet>> {
    let found = destinations(netlink, AddressFamily::Inet)?;
    Ok(found
        .into_iter()
        .filter_map(|(address, prefix)| match address {
            RouteAddress::Inet(address) if prefix > 1 => Some(Subnet::of(address, prefix)),
            _ => None,
        })
        .collect())
}

/// Destinations of this host's IPv6 routes, without the default route.
pub(super) fn networks6(netlink: &mut Netlink) -> Answer<Vec<Subnet6>> {
    let found = destinations(netlink, AddressFamily::Inet6)?;
    Ok(found
        .into_iter()
        .filter_map(|(address, prefix)| match address {
            RouteAddress::Inet6(address) => Some(Subnet6::of(address, prefix)),
            _ => None,
        })
        .collect())
}

fn destinations(netlink: &mut Netlink, family: AddressFamily) -> Answer<Vec<(RouteAddress, u8)>> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    let mut found = Vec::new();
    for message in dump(netlink, &RouteNetlinkMessage::GetRoute(question))? {
        let RouteNetlinkMessage::NewRoute(route) = message else { continue };
        let prefix = route.header.destination_prefix_length;
        found.extend(route.attributes.into_iter().filter_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => Some((address, prefix)),
            _ => None,
        }));
    }
    Ok(found)
}
