//! Two connected streams, each passing on data of the other.

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Capacity of a pipe in bytes.
const PIPE: usize = 64 * 1024;
/// Most full pipes that one stream passes on in a turn, so that others get theirs.
const AT_ONCE: usize = 16;

/// Accepted connection, and the connection to its target.
pub(super) struct Pair {
    front: OwnedFd,
    back: Option<OwnedFd>,
    connected: bool,
    targets: VecDeque<SocketAddr>,
    forth: Flow,
    home: Flow,
}

/// One direction of a pair.
#[derive(Default)]
struct Flow {
    /// Pipe, created when there is data to pass on.
    pipe: Option<(OwnedFd, OwnedFd)>,
    held: usize,
    /// True after the end of the source.
    ended: bool,
    /// True when the target's sending side was shut down after that.
    told: bool,
}

/// Result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to do before the next event.
    Blocked,
    /// More data may be ready at once.
    More,
    /// Both directions have ended, or it failed.
    Over,
}

fn socket(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Opens a bound, non-blocking socket. One of IPv6 is for IPv6 only.
pub(in super::super) fn bind(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let socket = socket(address, kind)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Opens a listening, non-blocking socket.
pub(in super::super) fn listen(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = bind(address, SocketType::STREAM)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

pub(super) fn accept(listener: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

impl Pair {
    pub(super) fn new(front: OwnedFd, targets: Vec<SocketAddr>) -> Pair {
        let _ = sockopt::set_tcp_nodelay(&front, true);
        Pair {
            front,
            back: None,
            connected: false,
            targets: targets.into(),
            forth: Flow::default(),
            home: Flow::default(),
        }
    }

    /// Begins to connect to the next target; returns false when there is none left, and the accepted connection is to
    /// be reset.
    pub(super) fn connect_next(&mut self, epoll: &OwnedFd, token: u64) -> bool {
        let is_first = self.back.take().is_none();
        while let Some(target) = self.targets.pop_front() {
            if let Ok(back) = begin(target) {
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                let data = EventData::new_u64(token);
                let added = epoll::add(epoll, &back, data, flags).is_ok()
                    && (!is_first || epoll::add(epoll, &self.front, data, flags).is_ok());
                if added {
                    self.back = Some(back);
                    return true;
                }
            }
        }
        self.reset();
        false
    }

    /// Makes closing reset the connections rather than end them.
    fn reset(&self) {
        for side in [Some(&self.front), self.back.as_ref()].into_iter().flatten() {
            let _ = sockopt::set_socket_linger(side, Some(Duration::ZERO));
        }
    }

    /// Passes on data as far as possible without blocking.
    pub(super) fn turn(&mut self, epoll: &OwnedFd, token: u64) -> Turn {
        let Some(back) = &self.back else { return Turn::Over };
        if !self.connected {
            match sockopt::socket_error(back) {
                Ok(Ok(())) if rustix::net::getpeername(back).is_ok_and(|peer| peer.is_some()) => {
                    let _ = sockopt::set_tcp_nodelay(back, true);
                    self.connected = true;
                }
                Ok(Ok(())) => return Turn::Blocked,
                _ if self.connect_next(epoll, token) => return Turn::Blocked,
                _ => return Turn::Over,
            }
        }
        let Some(back) = &self.back else { return Turn::Over };
        let forth = self.forth.pump(self.front.as_fd(), back.as_fd());
        let home = self.home.pump(back.as_fd(), self.front.as_fd());
        match (forth, home) {
            (Ok(Turn::Over), Ok(Turn::Over)) => Turn::Over,
            (Ok(forth), Ok(home)) if forth == Turn::More || home == Turn::More => Turn::More,
            (Ok(_), Ok(_)) => Turn::Blocked,
            _ => {
                self.reset();
                Turn::Over
            }
        }
    }
}

fn begin(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let back = socket(target, SocketType::STREAM)?;
    match rustix::net::connect(&back, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(back),
        Err(errno) => Err(errno),
    }
}

impl Flow {
    fn pump(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<Turn, Errno> {
        if self.told {
            return Ok(Turn::Over);
        }
        let (reader, writer) = match &self.pipe {
            Some((reader, writer)) => (reader, writer),
            None => {
                let (reader, writer) = self.pipe.insert(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?);
                (&*reader, &*writer)
            }
        };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..AT_ONCE {
            if self.held == 0 && !self.ended {
                match splice(source, None, writer, None, PIPE, flags) {
                    Ok(0) => self.ended = true,
                    Ok(length) => self.held = length,
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => return Ok(Turn::Blocked),
                    Err(errno) => return Err(errno),
                }
            }
            if self.held > 0 {
                match splice(reader, None, target, None, self.held, flags) {
                    Ok(length) => self.held -= length,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(Turn::Blocked),
                    Err(errno) => return Err(errno),
                }
            }
            if self.ended && self.held == 0 {
                self.told = true;
                self.pipe = None;
                // The peer may have closed the connection already.
                let _ = rustix::net::shutdown(target, Shutdown::Write);
                return Ok(Turn::Over);
            }
        }
        Ok(Turn::More)
    }
}
