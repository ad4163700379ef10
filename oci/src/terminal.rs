//! Terminals: sending one to the caller's socket, and relaying between two.

use crate::arguments::Arguments;
use crate::error::OciError;
use kiln_runtime::container::terminal;
use kiln_runtime::op::ConsoleSize;
use oci_spec::runtime::Process;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Sends a file descriptor to the listener at a socket, with a text.
pub(crate) fn send_fd(path: &Path, fd: BorrowedFd<'_>, word: &[u8]) -> Result<(), OciError> {
    let socket = connect(path)?;
    send_over(&socket, fd, word).map_err(|errno| OciError::file("send to", path)(errno.into()))
}

/// Connects to the listener at a socket.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd, OciError> {
    let failed = |errno: Errno| OciError::file("connect to", path)(errno.into());
    let kind = SocketType::STREAM;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    rustix::net::connect(&socket, &address).map_err(failed)?;
    Ok(socket)
}

/// Sends a file descriptor over a connection, with a text.
pub(crate) fn send_over(socket: &OwnedFd, fd: BorrowedFd<'_>, word: &[u8]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(word)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Destination of a process's pidfd and terminal: sockets of the caller, or this process.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    pidfd_socket: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    /// Master of the terminal; `None` without a terminal, and when the caller's socket received it.
    pub(crate) console: Option<OwnedFd>,
}

impl Handover {
    pub(crate) fn of(arguments: &Arguments) -> Handover {
        let path = |name: &str| arguments.get(name).map(PathBuf::from);
        Handover { pidfd_socket: path("pidfd-socket"), console_socket: path("console-socket"), console: None }
    }

    pub(crate) fn pidfd(&self, pidfd: BorrowedFd<'_>) -> Result<(), OciError> {
        self.pidfd_socket.as_ref().map_or(Ok(()), |path| send_fd(path, pidfd, b"pidfd"))
    }

    pub(crate) fn console(&mut self, master: OwnedFd) -> Result<(), OciError> {
        if let Some(path) = &self.console_socket {
            return send_fd(path, master.as_fd(), b"/dev/ptmx");
        }
        terminal::copy_size(&master);
        self.console = Some(master);
        Ok(())
    }
}

/// Size of a process's terminal; 0 by 0 when the configuration has none.
pub(crate) fn size(process: &Process) -> ConsoleSize {
    let number = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    process.console_size().map_or(ConsoleSize { rows: 0, columns: 0 }, |size| ConsoleSize {
        rows: number(size.height()),
        columns: number(size.width()),
    })
}

/// Checks the destination of a terminal: this process if it stays in the foreground, otherwise the caller's socket.
pub(crate) fn check(process: &Process, arguments: &Arguments, stays: bool) -> Result<(), OciError> {
    match (process.terminal() == Some(true), arguments.has("console-socket"), stays) {
        (true, false, false) => Err(OciError::usage(
            "cannot allocate tty if runtime will detach without setting console socket: pass --console-socket",
        )),
        (false, true, _) | (true, true, true) => {
            Err(OciError::usage("cannot use console socket if runtime will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}
