//! Proxy in a separate process, for a caller that keeps to one thread.
//!
//! Each message carries one socket or a part of the routes. The process ends, and closes all its sockets, when the other
//! end of the connection is closed.

use super::{Front, FrontSocket, Proxy, Route};
use kiln_runtime::{SpawnError, fork_process, message};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Most routes of one message: a message must fit into the socket's buffer.
const ROUTES: usize = 500;

/// Messages to the process.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// Serves the socket that comes with the message.
    Serve { is_stream: bool, targets: Vec<SocketAddr> },
    /// Adds targets of redirected connections.
    Redirect { routes: Vec<Route> },
}

/// Process that passes on connections; it is waited for when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    socket: Option<OwnedFd>,
    pidfd: OwnedFd,
}

impl Process {
    /// Forks the process. Panics when the caller has a second thread.
    pub(super) fn fork() -> Result<Process, SpawnError> {
        let (socket, pidfd) = fork_process(c"kiln-proxy", serve)?;
        Ok(Process { socket: Some(socket), pidfd })
    }

    pub(super) fn serve(&self, fronts: Vec<Front>) -> Result<(), Errno> {
        for Front { socket, targets } in fronts {
            let (is_stream, socket) = match socket {
                FrontSocket::Stream(socket) => (true, socket),
                FrontSocket::Datagram(socket) => (false, socket),
            };
            self.send(&Message::Serve { is_stream, targets }, Some(&socket))?;
        }
        Ok(())
    }

    pub(super) fn redirect(&self, routes: &[Route]) -> Result<(), Errno> {
        routes
            .chunks(ROUTES)
            .try_for_each(|routes| self.send(&Message::Redirect { routes: routes.to_vec() }, None))
    }

    fn send(&self, message: &Message, socket: Option<&OwnedFd>) -> Result<(), Errno> {
        let connection = self.socket.as_ref().ok_or(Errno::PIPE)?;
        let fds: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
        message::send(connection.as_fd(), message, &fds)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.socket = None;
        // The ports are free again before the next start of the container. An error means that it was waited for.
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {}
    }
}

/// Serves the messages of a connection until it is closed.
fn serve(socket: OwnedFd) {
    let proxy = Proxy::new();
    let mut all = Vec::new();
    while let Ok(Some((message, mut fds))) = message::receive::<Message>(socket.as_fd()) {
        let serving = match (message, fds.pop()) {
            (Message::Serve { is_stream, targets }, Some(socket)) => {
                let socket =
                    if is_stream { FrontSocket::Stream(socket) } else { FrontSocket::Datagram(socket) };
                proxy.serve(vec![Front { socket, targets }])
            }
            (Message::Redirect { routes }, _) => proxy.add_routes(routes),
            (Message::Serve { .. }, None) => continue,
        };
        let Ok(serving) = serving else { return };
        all.push(serving);
    }
}
