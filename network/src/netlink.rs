//! Netlink: messages to and from the kernel.

use kiln_runtime::op::describe_errno;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::fmt;
use std::mem::MaybeUninit;

/// Header length of every message in bytes (`struct nlmsghdr`).
pub(super) const HEADER: usize = 16;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;

const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Errno with which the kernel refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetlinkError(pub(super) i32);

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe_errno(self.0))
    }
}

impl std::error::Error for NetlinkError {}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> NetlinkError {
        NetlinkError(errno.raw_os_error())
    }
}

pub(super) type Answer<T = ()> = Result<T, NetlinkError>;

/// Netlink socket of one protocol.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// One request: its type, flags, and the body after the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Vec<u8>,
    /// Errno that counts as success.
    pub(super) accepts: Option<i32>,
}

/// One message of an answer: its type and the body after the header.
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) body: Vec<u8>,
}

impl Netlink {
    /// Opens a socket for links, addresses and routes of this namespace.
    pub(super) fn open_route() -> Answer<Netlink> {
        Netlink::route_socket().map(Netlink::over)
    }

    /// Opens a file descriptor for links, addresses and routes.
    pub(super) fn route_socket() -> Answer<OwnedFd> {
        // Protocol 0 of this family is NETLINK_ROUTE.
        Netlink::socket(None)
    }

    /// Opens a socket for packet filters of this namespace.
    pub(super) fn open_netfilter() -> Answer<Netlink> {
        Netlink::socket(Some(netlink::NETFILTER)).map(Netlink::over)
    }

    /// Opens a socket for the diagnosis of sockets of this namespace.
    pub(super) fn open_sockets() -> Answer<Netlink> {
        Netlink::socket(Some(netlink::SOCK_DIAG)).map(Netlink::over)
    }

    fn socket(protocol: Option<rustix::net::Protocol>) -> Answer<OwnedFd> {
        let family = AddressFamily::NETLINK;
        Ok(rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
    }

    /// Uses a socket that was opened elsewhere, as in another namespace.
    pub(super) fn over(socket: OwnedFd) -> Netlink {
        Netlink { socket, sequence: 0 }
    }

    /// Sends a request that has one answer.
    pub(super) fn get(&mut self, kind: u16, body: &[u8]) -> Answer<Message> {
        self.sequence += 1;
        self.send(&message(kind, REQUEST, self.sequence, body))?;
        loop {
            for (message, sequence) in self.receive()? {
                match message.kind {
                    _ if sequence != self.sequence => {}
                    ERROR => return Err(error_of(&message).err().unwrap_or(NetlinkError(libc::EBADMSG))),
                    _ => return Ok(message),
                }
            }
        }
    }

    /// Sends a request and returns all messages of the answer.
    pub(super) fn dump(&mut self, kind: u16, body: &[u8]) -> Answer<Vec<Message>> {
        self.sequence += 1;
        self.send(&message(kind, REQUEST | DUMP, self.sequence, body))?;
        let mut found = Vec::new();
        loop {
            for (message, sequence) in self.receive()? {
                match message.kind {
                    _ if sequence != self.sequence => {}
                    DONE => return Ok(found),
                    ERROR => return Err(error_of(&message).err().unwrap_or(NetlinkError(0))),
                    _ => found.push(message),
                }
            }
        }
    }

    /// Sends several requests at once and waits until all are done: two system calls, however many requests.
    ///
    /// Only the last is acknowledged; for the others only failures are reported. The first failure is returned with the
    /// index of its request. Whether the remaining requests are carried out depends on the netlink protocol. `end` is
    /// sent after them, and is not acknowledged.
    pub(super) fn exchange(
        &mut self,
        requests: &[Request],
        end: Option<&Request>,
    ) -> Result<(), (usize, NetlinkError)> {
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        for (place, request) in requests.iter().chain(end).enumerate() {
            self.sequence += 1;
            let ack = if place + 1 == requests.len() { ACK } else { 0 };
            let flags = request.flags | REQUEST | ack;
            append(&mut bytes, request.kind, flags, self.sequence, &request.body);
        }
        if requests.is_empty() {
            return Ok(());
        }
        self.send(&bytes).map_err(|error| (0, error))?;
        self.acknowledgement(first, requests)
    }

    fn send(&mut self, bytes: &[u8]) -> Answer {
        // The kernel uses part of the buffer for its own data.
        if bytes.len() > 64 * 1024 {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len() * 2)?;
        }
        rustix::net::send(&self.socket, bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Reads the results of requests, the first of which has the sequence number `first`, and the last of which is
    /// acknowledged.
    fn acknowledgement(&mut self, first: u32, requests: &[Request]) -> Result<(), (usize, NetlinkError)> {
        loop {
            for (message, sequence) in self.receive().map_err(|error| (0, error))? {
                // Answers to an earlier exchange are skipped.
                let place = sequence.wrapping_sub(first) as usize;
                let Some(request) = requests.get(place).filter(|_| message.kind == ERROR) else { continue };
                match error_of(&message) {
                    Err(NetlinkError(errno)) if request.accepts == Some(errno) => {}
                    result => result.map_err(|error| (place, error))?,
                }
                if place + 1 == requests.len() {
                    return Ok(());
                }
            }
        }
    }

    fn receive(&mut self) -> Answer<Vec<(Message, u32)>> {
        // Space for the longest message; the unused part stays uninitialised.
        let mut room = [MaybeUninit::uninit(); 64 * 1024];
        loop {
            match rustix::net::recv(&self.socket, &mut room[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => return Ok(split(received?.0.0)),
            }
        }
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    append(&mut bytes, kind, flags, sequence, body);
    bytes
}

fn append(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn split(mut bytes: &[u8]) -> Vec<(Message, u32)> {
    let number = |bytes: &[u8], at: usize| {
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let mut messages = Vec::new();
    while bytes.len() >= HEADER {
        let length = number(bytes, 0) as usize;
        if length < HEADER || length > bytes.len() {
            break;
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        messages.push((Message { kind, body: bytes[HEADER..length].to_vec() }, number(bytes, 8)));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    messages
}

fn error_of(message: &Message) -> Answer {
    let code = message
        .body
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(-libc::EBADMSG, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(NetlinkError(-code)) }
}
