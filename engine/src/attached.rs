//! Connections of commands to a container's monitor.

use crate::container::Records;
use crate::error::EngineError;
use crate::log::Stream;
use crate::monitor;
use crate::record::Container;
use crate::settings::attachment::Attachment;
use crate::wire::{self, Answer, Message, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Connection to a monitor.
#[derive(Debug)]
pub struct Attached {
    socket: OwnedFd,
    pidfd: Option<OwnedFd>,
}

/// Event at a container.
#[derive(Debug)]
pub enum Event {
    /// Output of the program.
    Output(Stream, Vec<u8>),
    /// The program has ended.
    Exited {
        /// Exit code, or 128 plus the signal.
        code: i32,
        /// True when the kernel ended a process for lack of memory.
        is_out_of_memory: bool,
    },
    /// The monitor has ended without a word: it was killed.
    Gone,
}

impl Records {
    /// Connects to the monitor of a container. `None` when it has none: its program does not run.
    ///
    /// # Errors
    /// Fails when the socket cannot be used.
    pub fn connect(&self, container: &Container) -> Result<Option<Attached>, EngineError> {
        let Ok(dir) = kiln_image::sys::open_dir(&self.dir_of(container)) else { return Ok(None) };
        let connect = || {
            let address = monitor::address(&dir)?;
            let kind = SocketType::SEQPACKET;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
            rustix::net::connect(&socket, &address).map(|()| socket)
        };
        match connect() {
            Ok(socket) => Ok(Some(Attached { socket, pidfd: None })),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(errno) => Err(EngineError::Streams(errno)),
        }
    }
}

impl Attached {
    pub(crate) fn new(socket: OwnedFd, pidfd: OwnedFd) -> Attached {
        Attached { socket, pidfd: Some(pidfd) }
    }

    /// Adds the pidfd of the container's first process.
    ///
    /// # Errors
    /// Fails when descriptors run out.
    pub fn with_process(mut self, pidfd: &OwnedFd) -> Result<Attached, EngineError> {
        self.pidfd = Some(rustix::io::fcntl_dupfd_cloexec(pidfd, 3).map_err(EngineError::Streams)?);
        Ok(self)
    }

    /// Pidfd of the container's first process; `None` when the connection was not made by its start.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Asks for the output from now on, and for the exit code; with `input` this command sends input.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub fn attach(&self, input: bool) -> Result<(), EngineError> {
        self.ask(&Request::Attach { input })
    }

    /// Asks for the exit code of the next end.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub fn ask_for_end(&self) -> Result<(), EngineError> {
        self.ask(&Request::Wait)
    }

    /// Informs the monitor that the user ends the program: it is not started again.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub fn stop(&self) -> Result<(), EngineError> {
        self.ask(&Request::Stop)
    }

    /// Informs the monitor that the container has another name.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub(crate) fn renamed(&self) -> Result<(), EngineError> {
        self.ask(&Request::Renamed)
    }

    /// Informs the monitor that the input has ended.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub fn close_input(&self) -> Result<(), EngineError> {
        self.ask(&Request::CloseInput)
    }

    /// Informs the monitor that this command's output is closed: the program's write to it fails then, if this command has started it.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub fn close_output(&self, stream: Stream) -> Result<(), EngineError> {
        self.ask(&Request::CloseOutput { stream })
    }

    /// Sets the size of the container's terminal.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), EngineError> {
        self.ask(&Request::Resize { rows, columns })
    }

    /// Connects the container to a network.
    ///
    /// # Errors
    /// Fails when the monitor could not do it, or has ended.
    pub(crate) fn connect_network(&self, attachment: Attachment) -> Result<(), EngineError> {
        self.ask_for_network(&Request::Connect(Box::new(attachment)))
    }

    /// Disconnects the container from a network, by its id.
    ///
    /// # Errors
    /// Fails when the monitor could not do it, or has ended.
    pub(crate) fn disconnect_network(&self, network: &str) -> Result<(), EngineError> {
        self.ask_for_network(&Request::Disconnect { network: network.to_owned() })
    }

    fn ask_for_network(&self, request: &Request) -> Result<(), EngineError> {
        self.ask(request)?;
        match wire::receive::<Answer>(self.socket.as_fd()).map_err(EngineError::Streams)? {
            Some(Message::Json(Answer::Done, _)) => Ok(()),
            Some(Message::Json(Answer::Failed(failure), _)) => Err(EngineError::Monitor(failure.message)),
            // The program has ended, or the monitor is one of an older version.
            _ => Err(EngineError::Monitor("the container has ended, or cannot be connected".to_owned())),
        }
    }

    fn ask(&self, request: &Request) -> Result<(), EngineError> {
        wire::send(self.socket.as_fd(), &wire::json(request), &[]).map_err(EngineError::Streams)
    }

    /// Sends input, at most [`Attached::MOST`] bytes; false when the program has not taken the earlier input.
    ///
    /// # Errors
    /// Fails when the monitor has ended.
    pub fn try_input(&self, bytes: &[u8]) -> Result<bool, EngineError> {
        match wire::try_send(self.socket.as_fd(), &wire::input(bytes), &[]) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(EngineError::Streams(errno)),
        }
    }

    /// Most bytes of input in one message.
    pub const MOST: usize = wire::MAX_PIECE;

    /// Waits for the next event.
    pub fn next(&self) -> Event {
        match wire::receive::<Answer>(self.socket.as_fd()) {
            Ok(Some(Message::Output(stream, bytes))) => Event::Output(stream, bytes),
            Ok(Some(Message::Json(Answer::Exited { code, is_out_of_memory }, _))) => {
                Event::Exited { code, is_out_of_memory }
            }
            _ => Event::Gone,
        }
    }

    /// Waits until the monitor has closed the connection. After the last end of the program it does so by its own end.
    pub fn wait_for_close(&self) {
        while !matches!(self.next(), Event::Gone) {}
    }

    /// Waits for the next end of the program; `None` when the monitor was killed.
    pub fn wait(&self) -> Option<i32> {
        loop {
            match self.next() {
                Event::Output(..) => {}
                Event::Exited { code, .. } => return Some(code),
                Event::Gone => return None,
            }
        }
    }

    /// Like [`Attached::wait`] for at most `patience`; the outer `None` when that is over.
    pub fn wait_for(&self, patience: std::time::Duration) -> Option<Option<i32>> {
        // A time beyond the clock is no limit.
        let deadline = std::time::Instant::now().checked_add(patience);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
            let left = left.map(|left| rustix::event::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut polled, left.as_ref()) {
                Ok(0) => return None,
                Err(_) => {}
                Ok(_) => match self.next() {
                    Event::Output(..) => {}
                    Event::Exited { code, .. } => return Some(Some(code)),
                    Event::Gone => return Some(None),
                },
            }
        }
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
