//! Terminals: handing one over to a caller, and standing between two.

use crate::error::OciError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::termios::{OptionalActions, Termios};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::Path;

/// Sends a descriptor to whoever listens at a socket, with a word.
pub(crate) fn send_fd(path: &Path, fd: BorrowedFd<'_>, word: &[u8]) -> Result<(), OciError> {
    let socket = connect(path)?;
    send_over(&socket, fd, word).map_err(|errno| OciError::file("send to", path)(errno.into()))
}

/// Connects to whoever listens at a socket.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd, OciError> {
    let failed = |errno: Errno| OciError::file("connect to", path)(errno.into());
    let kind = SocketType::STREAM;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    rustix::net::connect(&socket, &address).map_err(failed)?;
    Ok(socket)
}

/// Sends a descriptor over a connection, with a word.
pub(crate) fn send_over(socket: &OwnedFd, fd: BorrowedFd<'_>, word: &[u8]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(word)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// This process's own terminal, raw while this lives.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes the terminal that is standard input raw; `None` when that is no terminal.
    pub(crate) fn standard_input() -> Option<Raw> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Gives a terminal the size of the one this process has, if any.
pub(crate) fn copy_size(master: &OwnedFd) {
    for own in [rustix::stdio::stdin(), rustix::stdio::stdout()] {
        if let Ok(size) = rustix::termios::tcgetwinsize(own) {
            let _ = rustix::termios::tcsetwinsize(master.as_fd(), size);
            return;
        }
    }
}
