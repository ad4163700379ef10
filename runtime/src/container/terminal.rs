//! The user's terminal while a container with another terminal runs.

use crate::op::ConsoleSize;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::termios::{self, OptionalActions, OutputModes, Termios, Winsize};

/// Translation of the ends of lines that this process writes to a raw terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawOutput {
    /// None: the container's terminal has translated them.
    Raw,
    /// The user's terminal translates them: the container's terminal does not.
    Translated,
}

/// The terminal on standard input in raw mode; dropping it restores the settings.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Sets raw mode on the terminal.
    ///
    /// # Errors
    /// `ENOTTY` when standard input is not a terminal.
    pub fn new(output: RawOutput) -> Result<RawTerminal, Errno> {
        let stdin = rustix::stdio::stdin();
        let before = termios::tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        if output == RawOutput::Translated {
            raw.output_modes |= OutputModes::OPOST;
        }
        termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that was closed has no settings to restore.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Size of the terminal on a standard stream of this process; `None` when none is a terminal.
pub fn own_size() -> Option<ConsoleSize> {
    own_winsize().map(|size| ConsoleSize { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the size of a container's terminal to that of this process's. Without a terminal, or when the container has
/// ended, the size stays.
pub fn copy_size(master: &OwnedFd) {
    if let Some(size) = own_winsize() {
        let _ = termios::tcsetwinsize(master.as_fd(), size);
    }
}

fn own_winsize() -> Option<Winsize> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    streams.into_iter().find_map(|stream| termios::tcgetwinsize(stream).ok())
}
