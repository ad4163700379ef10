//! Datagrams of many senders, each passed on by a separate socket, so that answers find their way back.

use super::stream;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most datagrams that one socket passes on in a turn, so that others get theirs.
pub(super) const AT_ONCE: usize = 64;
/// Most senders of one port. Further ones are not served until some have been idle.
const SENDERS: usize = 4096;
/// Longest datagram in bytes.
const LONGEST: usize = 64 * 1024;

/// Socket of a published port, with its senders.
pub(super) struct Relay {
    socket: OwnedFd,
    targets: Vec<SocketAddr>,
    /// Tokens of the sockets towards the container.
    senders: HashMap<SocketAddr, u64>,
    buffer: Vec<u8>,
}

impl Relay {
    pub(super) fn new(socket: OwnedFd, targets: Vec<SocketAddr>) -> Relay {
        Relay { socket, targets, senders: HashMap::new(), buffer: Vec::new() }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Reads one datagram: its length, and its sender.
    pub(super) fn receive(&mut self) -> Result<(usize, SocketAddr), Errno> {
        self.buffer.resize(LONGEST, 0);
        let (length, _, sender) =
            rustix::net::recvfrom(&self.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        Ok((length, sender.ok_or(Errno::INVAL)?.try_into()?))
    }

    pub(super) fn back(&self, sender: SocketAddr) -> Option<u64> {
        self.senders.get(&sender).copied()
    }

    /// Opens a new socket towards the container.
    pub(super) fn connect(&self) -> Result<OwnedFd, Errno> {
        let target = *self.targets.first().ok_or(Errno::NOTCONN)?;
        if self.senders.len() >= SENDERS {
            return Err(Errno::MFILE);
        }
        let any = match target {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = stream::bind(SocketAddr::new(any, 0), SocketType::DGRAM)?;
        rustix::net::connect(&socket, &target)?;
        Ok(socket)
    }

    pub(super) fn remember(&mut self, sender: SocketAddr, token: u64) {
        self.senders.insert(sender, token);
    }

    pub(super) fn forget(&mut self, sender: SocketAddr) {
        self.senders.remove(&sender);
        if self.senders.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Sends the datagram that was read last. One that cannot be sent is lost, as datagrams may be.
    pub(super) fn pass_on(&self, length: usize, back: &OwnedFd) {
        let _ = rustix::net::send(back, &self.buffer[..length], SendFlags::DONTWAIT);
    }

    /// Sends the container's answers to their sender; fails when the socket is no longer usable.
    pub(super) fn answer(&self, back: &OwnedFd, sender: SocketAddr) -> Result<(), Errno> {
        let mut buffer = vec![0; LONGEST];
        for _ in 0..AT_ONCE {
            match rustix::net::recv(back, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    let _ =
                        rustix::net::sendto(&self.socket, &buffer[..length], SendFlags::DONTWAIT, &sender);
                }
                Err(Errno::AGAIN) => return Ok(()),
                // No program listens on that port now; that may change.
                Err(Errno::INTR | Errno::CONNREFUSED) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
