//! The first process of a container whose program was not written to be one (`--init`): it runs the program, passes
//! signals on and reaps whatever is orphaned.
//!
//! The kernel gives process 1 no default actions: a program that does not handle SIGTERM would ignore it.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Runs a program to its end and gives its exit code, or 128 plus the signal that ended it; 127 and 126 when it does
/// not exist or cannot be run, with a word on standard error.
pub fn run(words: &[OsString]) -> u8 {
    let Some((program, arguments)) = words.split_first() else {
        complain("docker-init: no program was named");
        return 127;
    };
    let mut heard = SigSet::all();
    // Faults of this program are its own.
    for own in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT] {
        heard.remove(own);
    }
    let blocked = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&heard), None);
    let listener = blocked.and_then(|()| SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC));
    let listener = match listener {
        Ok(listener) => listener,
        Err(errno) => {
            complain(&format!("docker-init: cannot listen for signals: {}", errno.desc()));
            return 125;
        }
    };
    // In a group of its own, which has the terminal: keys that send signals do not send them twice.
    let child = match Command::new(program).args(arguments).process_group(0).spawn() {
        Ok(child) => child,
        Err(error) => {
            complain(&format!("exec: {program:?}: {error}"));
            return if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        }
    };
    let child = child.id() as i32;
    if let Some(group) = rustix::process::Pid::from_raw(child) {
        // Without a terminal there is nothing to give.
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
    }
    loop {
        let Ok(Some(signal)) = listener.read_signal() else { continue };
        if signal.ssi_signo == Signal::SIGCHLD as u32 {
            if let Some(code) = reap(child) {
                return code;
            }
        } else if let Ok(signal) = Signal::try_from(signal.ssi_signo as i32) {
            let _ = nix::sys::signal::kill(Pid::from_raw(child), signal);
        }
    }
}

/// Reaps all that has ended; gives the program's code when it is among them.
fn reap(child: i32) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid.as_raw() == child => code = Some(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                code = Some(128 + signal as u8)
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}

fn complain(message: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{message}");
}
