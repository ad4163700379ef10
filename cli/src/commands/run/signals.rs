//! Signals of a command in the foreground, which are for its container.

use crate::foreground;
use crate::signals::Signals;
use crate::ui;
use kiln_engine::Attached;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Recipient of signals, which changes with the state of the start.
#[derive(Clone)]
pub(in crate::commands) struct Target {
    shared: Arc<Mutex<Reached>>,
    /// True when signals are passed on to the program.
    proxy: bool,
}

/// State of the start, as far as signals need it.
#[derive(Default)]
enum Reached {
    /// No container exists: signals end the command.
    #[default]
    Nothing,
    /// The container is starting; these signals are sent to it afterwards.
    Starting(Vec<i32>),
    /// The program of the container runs.
    Running {
        process: OwnedFd,
        connection: Arc<Attached>,
        has_terminal: bool,
        /// Number of SIGINT and SIGTERM so far.
        asked: u32,
    },
}

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGWINCH: i32 = 28;
/// Number of requests to end after which the container is killed.
const PATIENCE: u32 = 3;
/// Time for a program to end before the user is shown how to kill it.
const MOMENT: Duration = Duration::from_secs(1);
/// Time for a program to end after its terminal was closed.
const HANG_UP_GRACE: Duration = Duration::from_secs(5);

impl Target {
    /// Receives signals from now on. Without `proxy` they are the command's own once the program runs.
    pub(in crate::commands) fn listen(signals: Signals, proxy: bool) -> Target {
        let target = Target { shared: Arc::default(), proxy };
        let hearing = target.clone();
        signals.listen(move |signal| hearing.hear(signal));
        target
    }

    /// Directs signals to the container that is being started.
    pub(in crate::commands) fn expect(&self) {
        *self.lock() = Reached::Starting(Vec::new());
    }

    /// Directs signals to the container of a connection, which has a pidfd.
    pub(in crate::commands) fn set(&self, connection: &Arc<Attached>, has_terminal: bool) {
        let process = connection.pidfd().map(|process| process.try_clone_to_owned());
        let Some(Ok(process)) = process else { return };
        let connection = Arc::clone(connection);
        let running = Reached::Running { process, connection, has_terminal, asked: 0 };
        let before = std::mem::replace(&mut *self.lock(), running);
        if let Reached::Starting(signals) = before {
            signals.into_iter().for_each(|signal| self.hear(signal));
        }
    }

    /// Lets signals end the command from now on, those that have come during the start as well.
    pub(in crate::commands) fn leave(&self) {
        // Unlocked first: the reaction to a signal locks again.
        let before = std::mem::take(&mut *self.lock());
        if let Reached::Starting(signals) = before {
            signals.into_iter().for_each(|signal| self.hear(signal));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reached> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, signal: i32) {
        match &mut *self.lock() {
            Reached::Nothing if matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM) => {
                std::process::exit(128 + signal);
            }
            Reached::Nothing => {}
            Reached::Starting(signals) => signals.push(signal),
            Reached::Running { connection, has_terminal: true, .. } if signal == SIGWINCH => {
                let (rows, columns) = foreground::own_size();
                // A container that has ended has no terminal.
                let _ = connection.resize(rows, columns);
            }
            Reached::Running { .. } if !self.proxy => {
                if matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM) {
                    std::process::exit(128 + signal);
                }
            }
            Reached::Running { process, asked, has_terminal, .. } => {
                *asked += u32::from(matches!(signal, SIGINT | SIGTERM));
                let signal = if *asked >= PATIENCE { SIGKILL } else { signal };
                send(process, signal);
                if let Ok(process) = process.try_clone() {
                    match signal {
                        SIGINT => after(process, MOMENT, told_to_press(PATIENCE - *asked)),
                        // Without its terminal the user can neither see nor end the program.
                        SIGHUP if *has_terminal => {
                            after(process, HANG_UP_GRACE, |process| send(process, SIGKILL))
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

fn send(process: &OwnedFd, signal: i32) {
    if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
        // An ended container needs no signal.
        let _ = rustix::process::pidfd_send_signal(process, signal);
    }
}

/// Calls `act` on a new thread if the process has not ended after `time`.
fn after(process: OwnedFd, time: Duration, act: impl FnOnce(&OwnedFd) + Send + 'static) {
    std::thread::spawn(move || {
        let mut polled = [PollFd::new(&process, PollFlags::IN)];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        // A pidfd is readable when its process has ended.
        if matches!(poll(&mut polled, Some(&time)), Ok(0)) {
            act(&process);
        }
    });
}

/// Shows how often Ctrl-C has to be pressed to kill the container.
fn told_to_press(left: u32) -> impl FnOnce(&OwnedFd) + Send + 'static {
    move |_| {
        let times = if left == 1 { "once".to_owned() } else { format!("{left} times") };
        ui::tell_line(&format!(
            "the program goes on after Ctrl-C: press Ctrl-C {times} more to kill the container"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_the_start_are_heard_when_the_container_is_left() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let target = Target { shared: Arc::default(), proxy: true };
            target.expect();
            target.hear(SIGWINCH);
            target.leave();
            let is_left = matches!(*target.lock(), Reached::Nothing);
            done.send(is_left)
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(true));
    }
}
