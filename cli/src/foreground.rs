//! A command that is attached to a container: copies between the user's streams and the container's monitor.

use crate::detach_keys::DetachKeys;
use crate::error::CliError;
use crate::ui;
use kiln_engine::log::Stream;
use kiln_engine::{Attached, Event};
use kiln_runtime::container::terminal::{RawOutput, RawTerminal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios;
use std::sync::Arc;

/// Streams of the user that are connected with a container.
#[derive(Debug)]
pub struct Foreground {
    /// True when the container has a terminal.
    pub terminal: bool,
    /// True when the user's input goes to the container.
    pub input: bool,
    /// True when the container's standard output goes to the user.
    pub stdout: bool,
    /// True when the container's standard error goes to the user.
    pub stderr: bool,
    /// Keys that end the connection.
    pub keys: DetachKeys,
}

/// End of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The program has ended.
    Exited {
        /// Exit code, or 128 plus the signal.
        code: i32,
        /// True when the kernel ended a process for lack of memory.
        is_out_of_memory: bool,
    },
    /// The user has pressed the keys to leave.
    Detached,
    /// The monitor was killed.
    Gone,
}

/// Input on its way to the container.
#[derive(Default)]
struct Input {
    waiting: Vec<u8>,
    has_ended: bool,
    is_closed: bool,
}

impl Foreground {
    /// Fails when the container has a terminal and takes input, and this command's input is no terminal.
    ///
    /// # Errors
    ///
    /// Fails with the reference's message.
    pub fn check(&self) -> Result<(), CliError> {
        if self.terminal && self.input && !termios::isatty(rustix::stdio::stdin()) {
            return Err(CliError::failed("the input device is not a TTY")
                .hint("leave out -t when input comes from a pipe or a file"));
        }
        Ok(())
    }

    /// Copies until the program ends, or the user leaves.
    ///
    /// # Errors
    ///
    /// Fails when the user's terminal cannot be put into raw mode.
    pub fn run(mut self, connection: &Arc<Attached>) -> Result<Ended, CliError> {
        let is_raw = self.terminal && self.input;
        let _restore = is_raw
            .then(|| RawTerminal::new(RawOutput::Raw))
            .transpose()
            .map_err(|errno| CliError::failed(format!("cannot prepare the terminal: {errno}")))?;
        let mut input = Input { is_closed: !self.input, ..Input::default() };
        loop {
            let stdin = rustix::stdio::stdin();
            let reads = !input.is_closed && !input.has_ended && input.waiting.is_empty();
            let writes = if input.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            let mut polled = vec![PollFd::new(&**connection, PollFlags::IN | writes)];
            if reads {
                polled.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            }
            match poll(&mut polled, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return Ok(Ended::Gone),
            }
            let events = polled[0].revents();
            let has_input = polled.get(1).is_some_and(|fd| !fd.revents().is_empty());
            drop(polled);
            if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                match connection.next() {
                    Event::Output(stream, bytes) => self.show(connection, stream, &bytes),
                    Event::Exited { code, is_out_of_memory } => {
                        return Ok(Ended::Exited { code, is_out_of_memory });
                    }
                    Event::Gone => return Ok(Ended::Gone),
                }
            }
            if has_input && self.read(&mut input, is_raw) {
                return Ok(Ended::Detached);
            }
            pass(connection, &mut input);
        }
    }

    /// Reads input of the user; true when the user leaves.
    fn read(&mut self, input: &mut Input, is_raw: bool) -> bool {
        let mut buffer = [0u8; Attached::MOST];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                input.has_ended = true;
                if is_raw {
                    // In raw mode input ends only when the terminal was closed, and not all terminals send SIGHUP then.
                    let _ = kill_process(getpid(), Signal::HUP);
                }
            }
            Ok(length) if is_raw => {
                let (passed, leaves) = self.keys.filter(&buffer[..length]);
                input.waiting = passed;
                return leaves;
            }
            Ok(length) => input.waiting.extend_from_slice(&buffer[..length]),
        }
        false
    }

    /// Writes output of the container to the user's stream.
    fn show(&mut self, connection: &Attached, stream: Stream, bytes: &[u8]) {
        let (is_shown, fd) = match stream {
            Stream::Stdout => (&mut self.stdout, rustix::stdio::stdout()),
            Stream::Stderr => (&mut self.stderr, rustix::stdio::stderr()),
        };
        if *is_shown && !write_all(fd, bytes) {
            *is_shown = false;
            // A monitor that has ended closes no output.
            let _ = connection.close_output(stream);
        }
    }
}

/// Sends input as far as the container takes it, and then its end.
fn pass(connection: &Attached, input: &mut Input) {
    if !input.waiting.is_empty() {
        match connection.try_input(&input.waiting) {
            Ok(true) => input.waiting.clear(),
            Ok(false) => return,
            // The end of the connection is noticed where output is read.
            Err(_) => input.waiting.clear(),
        }
    }
    if input.has_ended && !input.is_closed {
        input.is_closed = true;
        let _ = connection.close_input();
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            // Another process, which shares the stream, has made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut polled = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                let _ = poll(&mut polled, None);
            }
            Err(errno) => {
                if matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG) {
                    ui::lose(errno.into());
                }
                return false;
            }
        }
    }
    true
}

/// Size of the user's terminal, lines and columns; zeros without one.
pub fn own_size() -> (u16, u16) {
    let size = kiln_runtime::container::terminal::own_size().unwrap_or_default();
    (size.rows, size.columns)
}
