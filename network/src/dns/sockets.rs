//! Sockets of the name server in a container's namespace, and the packet rules that lead to them.
//!
//! ```text
//! table inet kiln-names {
//!     chain output {
//!         hook output raw
//!         ip daddr 127.0.0.11 udp dport 53 udp dport set 40404 notrack     # tcp likewise
//!         ip saddr 127.0.0.11 udp sport 40404 udp sport set 53 notrack
//!     }
//! }
//! ```
//!
//! Clients ask at port 53. The sockets have another port, so that a name server in the container can listen at port 53
//! of all addresses, as they all do. The ports are exchanged packet by packet: a translation of connections would keep
//! an entry for each query, and the kernel has room for some ten thousands.

use super::super::config::Protocol;
use super::super::netlink::{Answer, NetlinkError};
use super::super::nft::expression::{
    Expression, FIRST, META_L4PROTO, META_NFPROTO, equal, meta, network_header, set, transport_header,
    untracked, write_transport_header,
};
use super::super::nft::{Hook, Transaction};
use super::super::{NetworkError, kernel, proxy, within};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SocketType;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Address of the name server, which each container has on its loopback: also one with IPv6 networks only.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Port of the name server for clients.
const PORT: u16 = 53;
/// Room for queries that wait while no process serves them, in bytes.
const WAITING: usize = 1 << 20;

/// Sockets of one container.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) datagrams: OwnedFd,
    pub(super) streams: OwnedFd,
}

/// Failure inside of a namespace.
enum Failure {
    Socket(Errno),
    Rules(NetlinkError),
}

impl Sockets {
    /// Creates the sockets and the rules in a network namespace.
    pub(super) fn make(namespace: BorrowedFd<'_>) -> Result<Sockets, NetworkError> {
        let made = within(namespace, || {
            let (sockets, port) = Sockets::make_here().map_err(Failure::Socket)?;
            lead_to(port).map_err(Failure::Rules)?;
            Ok(sockets)
        })?;
        made.map_err(|failure| match failure {
            Failure::Socket(errno) => NetworkError::Names("make the sockets of", errno),
            Failure::Rules(error) => kernel("set up packet rules for names in the container")(error),
        })
    }

    fn make_here() -> Result<(Sockets, u16), Errno> {
        /// Number of ports to try: a stream of the container may have the one that is free for datagrams.
        const TRIES: usize = 100;
        let mut tries = TRIES;
        loop {
            let datagrams = proxy::bind(SocketAddr::new(ADDRESS.into(), 0), SocketType::DGRAM)?;
            let port = SocketAddr::try_from(rustix::net::getsockname(&datagrams)?)?.port();
            tries -= 1;
            match proxy::listen(SocketAddr::new(IpAddr::V4(ADDRESS), port)) {
                Ok(streams) => {
                    // Without the privilege for more the usual room must do.
                    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&datagrams, WAITING);
                    return Ok((Sockets { datagrams, streams }, port));
                }
                Err(Errno::ADDRINUSE) if tries > 0 => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sockets that came with a message. `None` when they are not two.
    pub(super) fn of(fds: Vec<OwnedFd>) -> Option<Sockets> {
        let [datagrams, streams] = <[OwnedFd; 2]>::try_from(fds).ok()?;
        Some(Sockets { datagrams, streams })
    }

    pub(super) fn lend(&self) -> [BorrowedFd<'_>; 2] {
        [self.datagrams.as_fd(), self.streams.as_fd()]
    }
}

/// Sets up the rules in the network namespace of the calling thread.
fn lead_to(port: u16) -> Answer {
    // Removing a table takes 10 ms, so that is only done where there is one: its sockets were closed.
    match rules(port, Transaction::new_table).commit() {
        Err(NetlinkError(libc::EEXIST)) => rules(port, Transaction::fresh_table).commit(),
        done => done,
    }
}

fn rules(port: u16, table: fn(&mut Transaction)) -> Transaction {
    const CHAIN: &str = "output";
    const OUTPUT: Hook = Hook { kind: "filter", number: 3, priority: -300 };
    /// Offsets in the IPv4 header.
    const SOURCE: u32 = 12;
    const DESTINATION: u32 = 16;
    let mut rules = Transaction::new("kiln-names");
    table(&mut rules);
    rules.hooked_chain(CHAIN, OUTPUT);
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        rules.rule(CHAIN, &exchange(protocol, (DESTINATION, 2), PORT, port));
        rules.rule(CHAIN, &exchange(protocol, (SOURCE, 0), port, PORT));
    }
    rules
}

/// Rule that replaces a port of the name server's address; `address` and `offset` are where the headers have these.
fn exchange(protocol: Protocol, (address, offset): (u32, u32), old: u16, new: u16) -> Vec<Expression> {
    const IPV4: u8 = 2;
    let checksum = if protocol == Protocol::Tcp { 16 } else { 6 };
    vec![
        meta(META_NFPROTO, FIRST),
        equal(&[IPV4]),
        network_header(address, 4, FIRST),
        equal(&ADDRESS.octets()),
        meta(META_L4PROTO, FIRST),
        equal(&[protocol.number()]),
        transport_header(offset, 2, FIRST),
        equal(&old.to_be_bytes()),
        set(&new.to_be_bytes()),
        write_transport_header(offset, 2, checksum),
        untracked(),
    ]
}
