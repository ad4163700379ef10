//! Removes flows of datagrams from the kernel's connection tracking.
//!
//! The kernel decides where a sender's datagrams go by the first of them, and keeps to it as long as they keep coming.
//! So when a port is published or withdrawn, earlier flows to it have to be removed.

use super::config::{Binding, Protocol};
use super::netlink::{Answer, Message, Netlink, Request};
use super::nft::expression::{attribute, nested, number};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Subsystem number of connection tracking, as the high byte of message types.
const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
/// Length of `struct nfgenmsg`, in bytes.
const HEADER: usize = 4;

const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Tracked flow of datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    /// Original destination of the datagrams.
    destination: IpAddr,
    port: u16,
    /// Source address of the replies.
    answers: IpAddr,
    /// Attributes that identify it in a request.
    name: Vec<u8>,
}

/// Removes flows to published ports: those to addresses of this host, and those that a container answers.
pub(super) fn forget(bindings: &[Binding], local: &[IpAddr], container: &[IpAddr]) -> Answer {
    let bindings: Vec<&Binding> =
        bindings.iter().filter(|binding| binding.protocol == Protocol::Udp).collect();
    if bindings.is_empty() {
        return Ok(());
    }
    let concerns = |flow: &Flow| {
        let is_ours = |binding: &&Binding| {
            let address = binding.host_address;
            (binding.host_port..=binding.last_port()).contains(&flow.port)
                && address.is_ipv4() == flow.destination.is_ipv4()
                && (address == flow.destination || address.is_unspecified())
        };
        let is_here = local.contains(&flow.destination) || container.contains(&flow.answers);
        is_here && bindings.iter().any(is_ours)
    };
    let mut netlink = Netlink::open_netfilter()?;
    let mut flows = netlink.dump(GET, &question(IPV4))?;
    flows.extend(netlink.dump(GET, &question(IPV6))?);
    let requests: Vec<Request> = flows.iter().filter_map(parse).filter(concerns).map(deletion).collect();
    netlink.exchange(&requests, None).map_err(|(_, error)| error)
}

/// Request for flows of datagrams only; Linux before 5.8 ignores the filter and returns all.
fn question(family: u8) -> Vec<u8> {
    const FILTER: u16 = 25;
    const BY_PROTOCOL: u32 = 1 << 3;
    let mut body = vec![family, 0, 0, 0];
    body.extend(nested(ORIGINAL, &[nested(2, &[attribute(1, &[Protocol::Udp.number()])])]));
    // In the host's byte order, unlike all other attributes.
    let flags = attribute(1, &BY_PROTOCOL.to_ne_bytes());
    body.extend(nested(FILTER, &[flags, number(2, 0)]));
    body
}

fn deletion(flow: Flow) -> Request {
    Request { kind: DELETE, flags: 0, body: flow.name, accepts: Some(libc::ENOENT) }
}

fn parse(message: &Message) -> Option<Flow> {
    let attributes = message.body.get(HEADER..)?;
    let original = find(attributes, ORIGINAL)?;
    let protocol = find(original, 2)?;
    if find(protocol, 1)?.first() != Some(&Protocol::Udp.number()) {
        return None;
    }
    let port = find(protocol, 3)?;
    let mut name = message.body[..HEADER].to_vec();
    name.extend(nested(ORIGINAL, &[original.to_vec()]));
    Some(Flow {
        destination: address(find(original, 1)?, [2, 4])?,
        port: u16::from_be_bytes([*port.first()?, *port.get(1)?]),
        answers: address(find(find(attributes, REPLY)?, 1)?, [1, 3])?,
        name,
    })
}

/// Address of either IP version, each of which has its own attribute.
fn address(attributes: &[u8], [four, six]: [u16; 2]) -> Option<IpAddr> {
    if let Some(octets) = find(attributes, four) {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(find(attributes, six)?).ok()?).into())
}

/// Content of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    const FLAGS: u16 = 0xc000;
    while let [a, b, c, d, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let content = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) & !FLAGS == kind {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read() {
        let tuple = |kind: u16, source: [u8; 4], destination: [u8; 4], ports: [u16; 2]| {
            let addresses = nested(1, &[attribute(1, &source), attribute(2, &destination)]);
            let ports = ports.map(u16::to_be_bytes);
            let protocol =
                nested(2, &[attribute(1, &[17]), attribute(2, &ports[0]), attribute(3, &ports[1])]);
            nested(kind, &[addresses, protocol])
        };
        let original = tuple(ORIGINAL, [192, 0, 2, 9], [192, 0, 2, 1], [4000, 53]);
        let reply = tuple(REPLY, [10, 87, 0, 2], [192, 0, 2, 9], [53, 4000]);
        let header = [2, 0, 0, 0];
        let body = [&header[..], &original, &reply].concat();
        let flow = parse(&Message { kind: SUBSYSTEM << 8, body }).unwrap();
        let expected = Flow {
            destination: Ipv4Addr::new(192, 0, 2, 1).into(),
            port: 53,
            answers: Ipv4Addr::new(10, 87, 0, 2).into(),
            name: [&header[..], &original].concat(),
        };
        assert_eq!(flow, expected);
    }
}
