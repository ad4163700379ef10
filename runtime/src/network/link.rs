//! Interfaces, addresses and routes.

use super::address::Subnet;
use super::netlink::{Answer, CREATE, EXCLUSIVE, Message, Netlink, NetlinkError};
use netlink_packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::net::{IpAddr, Ipv4Addr};

/// Index of the loopback interface in every namespace.
pub(super) const LOOPBACK: u32 = 1;
/// Index that the container's interface gets in its namespace.
pub(super) const INSIDE: u32 = 2;
/// Its name there.
const INSIDE_NAME: &str = "eth0";

fn send(netlink: &mut Netlink, message: &RouteNetlinkMessage, flags: u16) -> Answer {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    netlink.request(message.message_type(), flags, &body)
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

/// The index of the interface called `name`.
pub(super) fn find(netlink: &mut Netlink, name: &str) -> Answer<Option<u32>> {
    for message in dump(netlink, &RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        let RouteNetlinkMessage::NewLink(link) = message else { continue };
        if link.attributes.contains(&LinkAttribute::IfName(name.to_owned())) {
            return Ok(Some(link.header.index));
        }
    }
    Ok(None)
}

pub(super) fn make_bridge(netlink: &mut Netlink, name: &str) -> Answer<u32> {
    let mut bridge = link(0);
    bridge.attributes.push(LinkAttribute::IfName(name.to_owned()));
    bridge.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    match send(netlink, &RouteNetlinkMessage::NewLink(bridge), CREATE | EXCLUSIVE) {
        Ok(()) | Err(NetlinkError(libc::EEXIST)) => {}
        Err(error) => return Err(error),
    }
    find(netlink, name)?.ok_or(NetlinkError(libc::ENODEV))
}

/// Makes two linked interfaces: `name` on the bridge here, `eth0` in another namespace.
pub(super) fn make_pair(
    netlink: &mut Netlink,
    name: &str,
    bridge: u32,
    namespace: BorrowedFd<'_>,
    mac: [u8; 6],
) -> Answer {
    let mut peer = link(INSIDE);
    peer.attributes.push(LinkAttribute::IfName(INSIDE_NAME.to_owned()));
    peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    peer.attributes.push(LinkAttribute::Address(mac.to_vec()));
    let mut here = link(0);
    here.header.flags = LinkFlags::Up;
    here.header.change_mask = LinkFlags::Up;
    here.attributes.push(LinkAttribute::IfName(name.to_owned()));
    here.attributes.push(LinkAttribute::Controller(bridge));
    here.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    send(netlink, &RouteNetlinkMessage::NewLink(here), CREATE | EXCLUSIVE)
}

pub(super) fn delete(netlink: &mut Netlink, name: &str) -> Answer {
    let mut gone = link(0);
    gone.attributes.push(LinkAttribute::IfName(name.to_owned()));
    send(netlink, &RouteNetlinkMessage::DelLink(gone), 0)
}

pub(super) fn bring_up(netlink: &mut Netlink, index: u32) -> Answer {
    let mut up = link(index);
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    send(netlink, &RouteNetlinkMessage::SetLink(up), 0)
}

/// The first version 4 address of an interface.
pub(super) fn address(netlink: &mut Netlink, index: u32) -> Answer<Option<Subnet>> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    for message in dump(netlink, &RouteNetlinkMessage::GetAddress(question))? {
        let RouteNetlinkMessage::NewAddress(found) = message else { continue };
        if found.header.index != index {
            continue;
        }
        for attribute in &found.attributes {
            if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                return Ok(Some(Subnet::of(*address, found.header.prefix_len)));
            }
        }
    }
    Ok(None)
}

pub(super) fn add_address(netlink: &mut Netlink, index: u32, address: Subnet) -> Answer {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix();
    message.header.index = index;
    let broadcast = Ipv4Addr::from(u32::from(address.network()) | !address.mask());
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.address())));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address.address())));
    message.attributes.push(AddressAttribute::Broadcast(broadcast));
    match send(netlink, &RouteNetlinkMessage::NewAddress(message), CREATE | EXCLUSIVE) {
        Err(NetlinkError(libc::EEXIST)) => Ok(()),
        other => other,
    }
}

pub(super) fn add_default_route(netlink: &mut Netlink, gateway: Ipv4Addr) -> Answer {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    send(netlink, &RouteNetlinkMessage::NewRoute(route), CREATE | EXCLUSIVE)
}

/// The networks that this machine knows a way to, the default route left out.
pub(super) fn networks(netlink: &mut Netlink) -> Answer<Vec<Subnet>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let mut found = Vec::new();
    for message in dump(netlink, &RouteNetlinkMessage::GetRoute(question))? {
        let RouteNetlinkMessage::NewRoute(route) = message else { continue };
        for attribute in &route.attributes {
            if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
                found.push(Subnet::of(*address, route.header.destination_prefix_length));
            }
        }
    }
    Ok(found)
}
