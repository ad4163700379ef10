//! Signals as events.

use crate::error::CliError;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that would end the command, or that are sent on to a container.
const CAUGHT: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGALRM,
];

/// Receiver of blocked signals.
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals. Must be called before threads are started.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses a signalfd.
    pub fn catch() -> Result<Signals, CliError> {
        let set: SigSet = CAUGHT.into_iter().collect();
        let failed = |errno| CliError::failed(format!("cannot catch signals: {errno}"));
        set.thread_block().map_err(failed)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).map_err(failed)?;
        Ok(Signals { fd })
    }

    /// Calls `react` with each signal, on a new thread, until the program exits.
    pub fn listen(self, react: impl Fn(i32) + Send + 'static) {
        std::thread::spawn(move || {
            while let Ok(Some(signal)) = self.fd.read_signal() {
                react(signal.ssi_signo as i32);
            }
        });
    }
}
