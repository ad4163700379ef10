//! The ports of this machine that are in use, and by whom.

use super::config::{Binding, Protocol};
use super::publish::{Holder, PublishError};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    address: SocketAddr,
    inode: u64,
}

/// An error when a program has one of the ports.
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

/// Who has a port that cannot be bound.
pub(super) fn holder(address: SocketAddr, protocol: Protocol) -> Holder {
    let found = bound(protocol)
        .into_iter()
        .find(|bound| bound.address.port() == address.port() && overlap(address.ip(), bound.address.ip()));
    found.map_or(Holder::Unknown, |bound| process_of(bound.inode))
}

/// Whether both cannot be bound at once. A socket for all addresses of version 6 mostly is one for those of
/// version 4 too.
fn overlap(wanted: IpAddr, bound: IpAddr) -> bool {
    match (wanted, bound) {
        (IpAddr::V4(_), IpAddr::V6(bound)) => bound.is_unspecified(),
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        _ => wanted == bound || wanted.is_unspecified() || bound.is_unspecified(),
    }
}

fn bound(protocol: Protocol) -> Vec<Bound> {
    let names: &[&str] = match protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => &[],
    };
    let read = |name: &&str| fs::read_to_string(Path::new("/proc/thread-self/net").join(name));
    let tables = names.iter().filter_map(|name| read(name).ok());
    tables.flat_map(|table| parse(&table, protocol == Protocol::Tcp)).collect()
}

/// Reads a table of the kernel's; of TCP only sockets that listen.
fn parse(table: &str, only_listening: bool) -> Vec<Bound> {
    const LISTENING: &str = "0A";
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        if only_listening && state != LISTENING {
            return None;
        }
        let address = SocketAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?);
        Some(Bound { address, inode })
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Words of the machine's byte order, in hexadecimal digits.
fn address_of(digits: &str) -> Option<IpAddr> {
    let word = |place: usize| {
        let digits = digits.get(8 * place..8 * place + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    if digits.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let octets: [u8; 16] = [word(0)?, word(1)?, word(2)?, word(3)?].concat().try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// The process that has a socket.
fn process_of(inode: u64) -> Holder {
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
    fn tables_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F91 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
";
        let bound = |address: &str, inode| Bound { address: address.parse().unwrap(), inode };
        assert_eq!(parse(table, true), [bound("127.0.0.1:8080", 4711)]);
        assert_eq!(parse(table, false).len(), 2);
        let six = "head\n   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9 1\n";
        assert_eq!(parse(six, true), [bound("[::1]:80", 9)]);
    }
}
