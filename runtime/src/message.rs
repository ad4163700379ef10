//! Messages with file descriptors over a SEQPACKET socket.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Maximum number of file descriptors in one message (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

/// Sends one message as JSON.
///
/// # Errors
/// Fails when the other end is closed, and when the message is longer than the socket's buffer.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let json = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    send_bytes(socket, &[&json], fds, SendFlags::empty())
}

/// Sends one message of several parts. With [`SendFlags::DONTWAIT`] it fails with `EAGAIN` when the receiver has not read
/// earlier messages.
///
/// # Errors
/// Fails when the other end is closed, and when the message is longer than the socket's buffer.
pub fn send_bytes(
    socket: BorrowedFd<'_>,
    parts: &[&[u8]],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    loop {
        match rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL | flags) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one message in JSON; `None` when the other end is closed.
///
/// # Errors
/// Fails with `EBADMSG` for other messages, and when the socket cannot be read.
pub fn receive<T: for<'de> Deserialize<'de>>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let Some((bytes, fds)) = receive_bytes(socket)? else { return Ok(None) };
    let message = serde_json::from_slice(&bytes).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, fds)))
}

/// A message with its file descriptors; `None` when the other end is closed.
pub type Received = Option<(Vec<u8>, Vec<OwnedFd>)>;

/// Receives one message of any length with its file descriptors; `None` when the other end is closed. Empty messages
/// must not be sent.
///
/// # Errors
/// Fails with `EAGAIN` on a non-blocking socket without a message, and when the socket cannot be read.
pub fn receive_bytes(socket: BorrowedFd<'_>) -> Result<Received, Errno> {
    // The length is peeked first: most messages are short, and clearing a buffer for the longest costs more than the
    // call.
    let length = loop {
        let look = RecvFlags::PEEK | RecvFlags::TRUNC;
        match rustix::net::recv(socket, &mut [0u8; 0][..], look) {
            // CONNRESET is returned once when the peer closed its end before it read this side's last message; its own
            // last message can still be received.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            other => break other?.1,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let mut buffer = vec![0u8; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut iov = [IoSliceMut::new(&mut buffer)];
        match rustix::net::recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    buffer.truncate(received.bytes);
    Ok(Some((buffer, fds)))
}
