//! Messages to and from the kernel.

use crate::op::describe_errno;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::fmt;

/// Header length of every message (`struct nlmsghdr`).
pub(super) const HEADER: usize = 16;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const EXCLUSIVE: u16 = 0x200;

const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Why the kernel refused.
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

/// A socket that speaks to one part of the kernel.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// One message of an answer: its type and what follows the header.
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) body: Vec<u8>,
}

impl Netlink {
    /// For links, addresses and routes of this namespace.
    pub(super) fn open_route() -> Answer<Netlink> {
        // Protocol 0 of this family is NETLINK_ROUTE.
        Netlink::open(None)
    }

    /// For packet filters of this namespace.
    pub(super) fn open_netfilter() -> Answer<Netlink> {
        Netlink::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> Answer<Netlink> {
        let family = AddressFamily::NETLINK;
        let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Netlink::over(socket))
    }

    /// Over a socket that was opened elsewhere, in another namespace say.
    pub(super) fn over(socket: OwnedFd) -> Netlink {
        Netlink { socket, sequence: 0 }
    }

    /// Sends one request and waits for its acknowledgement.
    pub(super) fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> Answer {
        self.sequence += 1;
        self.send(&message(kind, flags | REQUEST | ACK, self.sequence, body))?;
        self.acknowledgement(self.sequence)
    }

    /// Sends a question and gives all messages of the answer.
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

    /// Sends several messages at once; waits for as many acknowledgements as were asked for.
    pub(super) fn batch(&mut self, messages: &[(u16, u16, Vec<u8>)]) -> Answer {
        let mut bytes = Vec::new();
        let mut awaited = Vec::new();
        for (kind, flags, body) in messages {
            self.sequence += 1;
            if flags & ACK != 0 {
                awaited.push(self.sequence);
            }
            bytes.extend(message(*kind, flags | REQUEST, self.sequence, body));
        }
        self.send(&bytes)?;
        // A batch that fails is undone as a whole, and only the failures are told.
        for sequence in awaited {
            self.acknowledgement(sequence)?;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Answer {
        rustix::net::send(&self.socket, bytes, SendFlags::empty())?;
        Ok(())
    }

    fn acknowledgement(&mut self, wanted: u32) -> Answer {
        loop {
            for (message, sequence) in self.receive()? {
                if message.kind == ERROR && sequence <= wanted {
                    let result = error_of(&message);
                    if sequence == wanted || result.is_err() {
                        return result;
                    }
                }
            }
        }
    }

    fn receive(&mut self) -> Answer<Vec<(Message, u32)>> {
        let mut buffer = vec![0u8; 64 * 1024];
        let (length, _) = loop {
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        Ok(split(&buffer[..length]))
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
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
