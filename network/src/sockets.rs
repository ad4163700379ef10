//! Ports of this host that are in use, and their processes.

use super::config::{Binding, Protocol};
use super::netlink::{Message, Netlink};
use super::publish::{Holder, PublishError};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Socket that is bound to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    address: SocketAddr,
    inode: u32,
}

/// Fails when a program uses one of the ports.
pub(super) fn check(binding: &Binding) -> Result<(), PublishError> {
    let ports = binding.host_port..=binding.last_port();
    for bound in bound(binding.protocol) {
        if ports.contains(&bound.address.port()) && overlap(binding.host_address, bound.address.ip()) {
            let address = SocketAddr::new(binding.host_address, bound.address.port());
            return Err(PublishError::Allocated { address, holder: process_of(bound.inode) });
        }
    }
    Ok(())
}

/// Holder of a port that cannot be bound.
pub(super) fn holder(address: SocketAddr, protocol: Protocol) -> Holder {
    let found = bound(protocol)
        .into_iter()
        .find(|bound| bound.address.port() == address.port() && overlap(address.ip(), bound.address.ip()));
    found.map_or(Holder::Unknown, |bound| process_of(bound.inode))
}

/// True when both addresses cannot be bound at once. An IPv6 socket for all addresses usually covers IPv4 too.
fn overlap(wanted: IpAddr, bound: IpAddr) -> bool {
    match (wanted, bound) {
        (IpAddr::V4(_), IpAddr::V6(bound)) => bound.is_unspecified(),
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        _ => wanted == bound || wanted.is_unspecified() || bound.is_unspecified(),
    }
}

/// Sockets that are bound to ports; of TCP only those that listen. They are requested by netlink: reading the tables in
/// `/proc` goes through the whole hash table of connections, which takes long.
fn bound(protocol: Protocol) -> Vec<Bound> {
    let states = match protocol {
        Protocol::Tcp => LISTENING,
        Protocol::Udp => ALL,
        Protocol::Sctp => return Vec::new(),
    };
    let ask = |family: u8| {
        let mut question = vec![family, protocol.number(), 0, 0];
        question.extend(u32::to_ne_bytes(states));
        question.resize(QUESTION, 0);
        Netlink::open_sockets().and_then(|mut netlink| netlink.dump(BY_FAMILY, &question))
    };
    // Without the kernel's socket diagnosis nothing is known.
    let answers = [IPV4, IPV6].map(|family| ask(family).unwrap_or_default());
    answers.iter().flatten().filter_map(parse).collect()
}

const BY_FAMILY: u16 = 20;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// Bits of socket states.
const LISTENING: u32 = 1 << 10;
const ALL: u32 = u32::MAX;
/// Length of `struct inet_diag_req_v2`, in bytes.
const QUESTION: usize = 56;

/// Parses a `struct inet_diag_msg`. `None` when it is malformed.
fn parse(message: &Message) -> Option<Bound> {
    let body = message.body.as_slice();
    let port = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    let address: IpAddr = match body.first()? {
        &IPV4 => Ipv4Addr::from(<[u8; 4]>::try_from(body.get(8..12)?).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(body.get(8..24)?).ok()?).into(),
    };
    let inode = u32::from_ne_bytes(body.get(68..72)?.try_into().ok()?);
    Some(Bound { address: SocketAddr::new(address, port), inode })
}

/// Process that holds a socket.
fn process_of(inode: u32) -> Holder {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        if links.any(|link| link.as_os_str() == wanted.as_str()) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Holder::Process { pid, name: name.trim_end().to_owned() };
        }
    }
    Holder::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read() {
        let mut body = vec![0; 72];
        body[0] = IPV4;
        body[4..6].copy_from_slice(&[0x1f, 0x90]);
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        body[68..72].copy_from_slice(&4711u32.to_ne_bytes());
        let bound = parse(&Message { kind: BY_FAMILY, body: body.clone() });
        assert_eq!(bound, Some(Bound { address: "127.0.0.1:8080".parse().unwrap(), inode: 4711 }));
        body.truncate(71);
        assert_eq!(parse(&Message { kind: BY_FAMILY, body }), None);
    }

    #[test]
    fn overlaps() {
        let check = |wanted: &str, bound: &str| overlap(wanted.parse().unwrap(), bound.parse().unwrap());
        assert!(check("0.0.0.0", "127.0.0.1") && check("127.0.0.1", "0.0.0.0"));
        assert!(check("10.0.0.1", "::") && !check("10.0.0.1", "::1") && !check("::", "0.0.0.0"));
        assert!(!check("10.0.0.1", "10.0.0.2") && check("::1", "::1"));
    }
}
