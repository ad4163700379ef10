//! The user's terminal while a container uses another one.

use crate::op::ConsoleSize;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::termios::{self, OptionalActions, OutputModes, Termios, Winsize};

/// What happens to the ends of lines that this process writes to a raw terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawOutput {
    /// They are written as they are: the container's terminal has translated them.
    Raw,
    /// The terminal translates them: the container's terminal leaves them plain.
    Translated,
}

/// The terminal on standard input in raw mode; dropping it restores the settings.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Sets raw mode.
    ///
    /// # Errors
    /// `ENOTTY` when standard input is no terminal.
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

/// The size of the terminal that this process has on a standard stream; `None` without one.
pub fn own_size() -> Option<ConsoleSize> {
    own_winsize().map(|size| ConsoleSize { rows: size.ws_row, columns: size.ws_col })
}

/// Gives a container's terminal the size of this process's; nothing happens without one, or when the container has ended.
pub fn copy_size(master: &OwnedFd) {
    if let Some(size) = own_winsize() {
        let _ = termios::tcsetwinsize(master.as_fd(), size);
    }
}

fn own_winsize() -> Option<Winsize> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    streams.into_iter().find_map(|stream| termios::tcgetwinsize(stream).ok())
}
