//! Waiting for a container in the foreground: signals are forwarded, output of its terminal is relayed, orphans are
//! reaped.

use crate::error::OciError;
use crate::readiness::Readiness;
use kiln_runtime::container::terminal::{self, RawOutput, RawTerminal};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};
use std::io::Write;
use std::mem::ManuallyDrop;

/// Signals that are blocked and read from a descriptor until this process exits. Created before the container, so that
/// none is missed.
pub(crate) struct Signals {
    fd: ManuallyDrop<SignalFd>,
}

impl Signals {
    pub(crate) fn block() -> Result<Signals, OciError> {
        let mut all = SigSet::all();
        // Signals of faults in this process are not forwarded.
        for own in
            [NixSignal::SIGSEGV, NixSignal::SIGBUS, NixSignal::SIGFPE, NixSignal::SIGILL, NixSignal::SIGABRT]
        {
            all.remove(own);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None).map_err(OciError::Signals)?;
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(OciError::Signals)?;
        Ok(Signals { fd: ManuallyDrop::new(fd) })
    }
}

/// Connections on which a container sends output and reports.
pub(crate) struct Streams {
    /// Master of its terminal; `None` without one.
    pub(crate) console: Option<OwnedFd>,
    /// Service manager that waits for readiness, and the socket on which the container reports it; `None` without a
    /// manager.
    pub(crate) ready: Option<(Readiness, OwnedFd)>,
}

/// Waits for the end of `pid`; returns its exit code, or 128 plus the signal number.
pub(crate) fn stay(
    signals: &Signals,
    pid: i32,
    pidfd: &OwnedFd,
    Streams { console, ready }: Streams,
) -> Result<u8, OciError> {
    let raw = console.as_ref().and_then(|_| RawTerminal::new(RawOutput::Translated).ok());
    if let Some(console) = &console {
        terminal::copy_size(console);
        let _ = rustix::io::ioctl_fionbio(console, true);
    }
    let mut stay = Stay { pid, pidfd, console, ready, reads_input: true, to_container: Vec::new() };
    let code = loop {
        if let Some(code) = stay.turn(signals)? {
            break code;
        }
    };
    stay.drain();
    drop(raw);
    Ok(code)
}

struct Stay<'a> {
    pid: i32,
    pidfd: &'a OwnedFd,
    console: Option<OwnedFd>,
    ready: Option<(Readiness, OwnedFd)>,
    reads_input: bool,
    to_container: Vec<u8>,
}

impl Stay<'_> {
    fn turn(&mut self, signals: &Signals) -> Result<Option<u8>, OciError> {
        let stdin = rustix::stdio::stdin();
        let mut polled = vec![PollFd::new(&*signals.fd, PollFlags::IN)];
        if let Some(console) = &self.console {
            let writes = if self.to_container.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            polled.push(PollFd::new(console, PollFlags::IN | writes));
            if self.reads_input && self.to_container.is_empty() {
                polled.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            }
        }
        // Appended last, so that the other entries keep their indices.
        polled.extend(self.ready.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)));
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(OciError::Wait { what: "the container", errno }),
        }
        let mut ready: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        drop(polled);
        if let Some((readiness, socket)) = &self.ready
            && ready.pop().is_some_and(|flags| !flags.is_empty())
            && readiness.hear(socket)
        {
            self.ready = None;
        }
        if ready.get(1).is_some_and(|flags| !flags.is_empty()) {
            self.pass_output();
        }
        self.pass_input(ready.get(2).is_some_and(|flags| !flags.is_empty()));
        while let Ok(Some(signal)) = signals.fd.read_signal() {
            match signal.ssi_signo as i32 {
                libc_signal::CHLD => {
                    if let Some(code) = self.reap() {
                        return Ok(Some(code));
                    }
                }
                libc_signal::WINCH => {
                    if let Some(console) = &self.console {
                        terminal::copy_size(console);
                    }
                }
                // Language runtimes send this signal to themselves.
                libc_signal::URG => {}
                number => {
                    // An ended process needs no signals.
                    let _ = kiln_runtime::launch::signal(self.pidfd.as_fd(), number);
                }
            }
        }
        Ok(None)
    }

    /// Reaps ended processes, orphans included, up to the container's first process. Exit code of that; `None` while it
    /// runs.
    fn reap(&self) -> Option<u8> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid) == Pid::from_raw(self.pid) {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return Some(status.exit_status().or(signal).unwrap_or(255) as u8);
            }
        }
        None
    }

    fn pass_output(&mut self) {
        let Some(console) = &self.console else { return };
        let mut buffer = [0u8; 16 * 1024];
        match rustix::io::read(console, &mut buffer) {
            Ok(length @ 1..) => {
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(&buffer[..length]).and_then(|()| out.flush());
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The other end is closed.
            _ => self.console = None,
        }
    }

    fn pass_input(&mut self, ready: bool) {
        if ready {
            let mut buffer = [0u8; 4096];
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(length @ 1..) => self.to_container.extend(&buffer[..length]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                _ => self.reads_input = false,
            }
        }
        if let (Some(console), false) = (&self.console, self.to_container.is_empty())
            && let Ok(length) = rustix::io::write(console, &self.to_container)
        {
            self.to_container.drain(..length);
        }
    }

    /// Relays the last output, which is still in the terminal's buffer.
    fn drain(&mut self) {
        while self.console.as_ref().is_some_and(|console| {
            let mut polled = [PollFd::new(console, PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1..))
        }) {
            self.pass_output();
        }
    }
}

/// Signal numbers that are the same on all relevant architectures of Linux (signal(7)).
mod libc_signal {
    pub(super) const CHLD: i32 = 17;
    pub(super) const URG: i32 = 23;
    pub(super) const WINCH: i32 = 28;
}

/// Makes this process the parent of the container's orphans.
pub(crate) fn become_subreaper() {
    // Any non-zero value enables it.
    let _ = rustix::process::set_child_subreaper(Some(Pid::INIT));
}
