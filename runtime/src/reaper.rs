//! Init process of a container (`--init`) whose program was not written as one: it runs the program, forwards signals
//! and reaps orphaned processes.
//!
//! The kernel has no default signal actions for pid 1: a program that does not handle SIGTERM would ignore it.

use crate::init::why_not_executable;
use crate::op::describe_errno;
use crate::sys;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Faults of this process, which are not forwarded.
const OWN: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// Runs a program to its end; returns its exit code, or 128 plus the signal that ended it; 127 when it does not exist
/// and 126 when it cannot be run, with a message on standard error.
///
/// Only for a process with a single thread.
pub fn run(arguments: &[OsString]) -> u8 {
    let Some((program, arguments)) = arguments.split_first() else {
        complain("docker-init: no program was named");
        return 127;
    };
    let mut heard = SigSet::all();
    OWN.into_iter().for_each(|own| heard.remove(own));
    let blocked = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&heard), None);
    let listener = blocked.and_then(|()| SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC));
    let listener = match listener {
        Ok(listener) => listener,
        Err(errno) => {
            complain(&format!("docker-init: cannot listen for signals: {}", errno.desc()));
            return 125;
        }
    };
    let child = match sys::fork_in_container() {
        Ok(Some(pid)) => pid,
        Ok(None) => become_program(program, arguments),
        Err(errno) => {
            complain(&format!("docker-init: cannot fork: {}", describe_errno(errno.raw_os_error())));
            return 125;
        }
    };
    loop {
        let Ok(Some(signal)) = listener.read_signal() else { continue };
        let number = signal.ssi_signo as i32;
        if number != Signal::SIGCHLD as i32 {
            // The program may have ended just now.
            let _ = sys::signal_child(child, number);
        } else if let Some(code) = reap(child) {
            return code;
        }
    }
}

/// Replaces this process, a child of the init process, by the program: in a separate process group that owns the
/// terminal, so that keys that send signals do not send them twice, and with the signal actions of a first process.
fn become_program(program: &OsStr, arguments: &[OsString]) -> ! {
    let _ = rustix::process::setpgid(None, None);
    // Fails without a terminal. SIGTTOU, which the call would raise, is still blocked.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    let error = match sys::reset_signals() {
        // Returns only on failure.
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(errno) => errno.into(),
    };
    let not_found = error.kind() == std::io::ErrorKind::NotFound;
    let reason = match error.raw_os_error() {
        Some(errno) if errno == Errno::NOEXEC.raw_os_error() => why_not_executable(program),
        Some(errno) => describe_errno(errno),
        None => error.to_string(),
    };
    complain(&format!("exec: {program:?}: {reason}"));
    sys::exit(if not_found { 127 } else { 126 })
}

/// Reaps all ended children; returns the program's code when it is among them, otherwise `None`.
fn reap(child: i32) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid.as_raw_pid() == child {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            code = Some(status.exit_status().or(signal).unwrap_or(255) as u8);
        }
    }
    code
}

fn complain(message: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{message}");
}
