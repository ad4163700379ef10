//! Monitors: one process per running container, the parent of its first process.
//!
//! A command forks the monitor before it has threads, creates or takes a container, and passes it on with its lock. The
//! monitor starts the program, reads its output, writes the log, and records the end. It serves connections to
//! `containers/ID/control`, at which commands attach, wait, and say that the user ends the program. It outlives the
//! command; no command is needed for a container to run.

mod checks;
mod clients;
mod serve;
pub(crate) mod streams;

use crate::attached::Attached;
use crate::container::{Containers, Owned};
use crate::error::EngineError;
use crate::wire::{self, Answer, Attach, Message, Request, StartFailure, StartRequest};
use kiln_network::PublishError;
use kiln_runtime::fork_process;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::net::SocketAddr;
use std::path::Path;

/// Name of the socket in a container's directory.
pub(crate) const CONTROL: &str = "control";

/// A monitor that has no container yet. Dropped, it ends.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
}

/// How a container is started.
#[derive(Clone, Copy, Debug)]
pub struct StartOptions<'a> {
    /// Directory that is emptied at boot.
    pub state: &'a Path,
    /// Initial size of the container's terminal, lines and columns.
    pub size: (u16, u16),
    /// Whether the command is attached from the first byte of output.
    pub attach: Option<Attach>,
}

impl Monitor {
    /// Forks the process. Must be called before the program starts its second thread; panics otherwise.
    ///
    /// # Errors
    /// Fails when the process cannot be created.
    pub fn fork() -> Result<Monitor, EngineError> {
        // The pidfd is not needed: the monitor outlives this process, or ends when the socket is closed.
        let (socket, _) = fork_process(c"kiln-monitor", serve::serve)?;
        Ok(Monitor { socket })
    }

    /// Starts a container. Returns the connection to its monitor when the program runs.
    ///
    /// # Errors
    /// Fails when the container does not start: its record holds the error, or it is removed if it was to be removed
    /// at its end.
    pub fn start(
        self,
        containers: &Containers<'_>,
        owned: Owned,
        options: &StartOptions<'_>,
    ) -> Result<Attached, StartFailure> {
        self.ask(containers, owned, options, Request::Start)
    }

    /// Looks after a container that runs and whose monitor was killed ([`Containers::take_orphan`]): goes on with its log,
    /// records its end, and follows its restart policy. Returns when commands can connect. `state` is a directory that is
    /// emptied at boot.
    ///
    /// # Errors
    /// Fails when the layers of the container, its log or its socket cannot be used.
    pub fn adopt(
        self,
        containers: &Containers<'_>,
        owned: Owned,
        state: &Path,
    ) -> Result<Attached, StartFailure> {
        let options = StartOptions { state, size: (0, 0), attach: None };
        self.ask(containers, owned, &options, Request::Adopt)
    }

    fn ask(
        self,
        containers: &Containers<'_>,
        owned: Owned,
        options: &StartOptions<'_>,
        kind: fn(Box<StartRequest>) -> Request,
    ) -> Result<Attached, StartFailure> {
        let request = StartRequest {
            store: containers.root.clone(),
            state: options.state.to_owned(),
            id: owned.container.id.clone(),
            root: containers.root_of(&owned.container).map_err(|error| failure(&error))?,
            images: containers.prepare_mounts(&owned.container).map_err(|error| failure(&error))?,
            size: options.size,
            attach: options.attach,
        };
        let request = wire::json(&kind(Box::new(request)));
        let gone = |_| lost();
        wire::send(self.socket.as_fd(), &request, &[owned.lock.as_fd()]).map_err(gone)?;
        // The monitor has the lock now: it must be free when the monitor ends, not when this process does.
        drop(owned);
        match wire::receive::<Answer>(self.socket.as_fd()).map_err(gone)? {
            Some(Message::Json(Answer::Started, mut fds)) => {
                Ok(Attached::new(self.socket, fds.pop().ok_or_else(lost)?))
            }
            Some(Message::Json(Answer::Failed(failure), _)) => Err(failure),
            _ => Err(lost()),
        }
    }
}

/// Address of the socket in a container's directory, by a descriptor of the directory: its path can be longer than an
/// address.
pub(crate) fn address(dir: &OwnedFd) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{CONTROL}", dir.as_raw_fd()))
}

fn lost() -> StartFailure {
    let message = "the monitor of the container ended unexpectedly".to_owned();
    StartFailure { message, code: 125, is_full: false, free_port: None }
}

/// Describes an error for another process.
pub(crate) fn failure(error: &EngineError) -> StartFailure {
    StartFailure {
        message: chain(error),
        code: crate::start::start_code(error),
        is_full: error.is_full(),
        free_port: free_port(error),
    }
}

/// First free port after one that cannot be published because it is in use.
fn free_port(error: &EngineError) -> Option<SocketAddr> {
    /// Number of ports to try.
    const TRIES: u16 = 100;
    let EngineError::Publish { source, .. } = error else { return None };
    let PublishError::Allocated { address, .. } = source.as_ref() else { return None };
    let after = (1..TRIES).map_while(|step| address.port().checked_add(step));
    let mut after = after.map(|port| SocketAddr::new(address.ip(), port));
    after.find(|address| std::net::TcpListener::bind(address).is_ok())
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
