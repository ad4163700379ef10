//! Signals of `kiln up`: the first ends it in order, the second kills its container, the third ends it at once.

use crate::commands::build::{SIGWINCH, Stopper};
use crate::error::CliError;
use crate::signals::Signals;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Signal, pidfd_send_signal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests of the user to end the command; readable once there is one.
#[derive(Clone)]
pub(super) struct Interrupt {
    woken: Arc<OwnedFd>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Signals so far.
    asked: Vec<i32>,
    is_building: bool,
    /// First process of the container that runs.
    process: Option<OwnedFd>,
}

impl Interrupt {
    /// Requests without any so far.
    ///
    /// # Errors
    ///
    /// Fails when descriptors run out.
    pub(super) fn new() -> Result<Interrupt, CliError> {
        let woken = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| CliError::failed(format!("cannot wait for signals: {errno}")))?;
        Ok(Interrupt { woken: Arc::new(woken), state: Arc::default() })
    }

    /// Receives signals from now on.
    pub(super) fn listen(&self, signals: Signals, stopper: Stopper) {
        let hearing = self.clone();
        signals.listen(move |signal| hearing.hear(signal, &stopper));
    }

    /// The first signal that asked for the end; `None` before.
    pub(super) fn signal(&self) -> Option<i32> {
        self.lock().asked.first().copied()
    }

    /// Sets whether a build runs, which the first signal stops.
    pub(super) fn set_building(&self, is_building: bool) {
        self.lock().is_building = is_building;
    }

    /// Sets the process that the second signal kills.
    pub(super) fn set_process(&self, process: Option<OwnedFd>) {
        self.lock().process = process;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, signal: i32, stopper: &Stopper) {
        match signal {
            SIGWINCH => stopper.redraw(),
            1 | 2 | 3 | 15 => {}
            _ => return,
        }
        if signal == SIGWINCH {
            return;
        }
        let mut state = self.lock();
        state.asked.push(signal);
        match (state.asked.len(), &state.process) {
            (1, _) => {
                if state.is_building {
                    stopper.stop();
                }
                // It is readable for good.
                let _ = rustix::io::write(&*self.woken, &1u64.to_ne_bytes());
            }
            (2, Some(process)) => {
                // One that has ended needs no signal.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
            _ if state.is_building => stopper.end_at_once(),
            _ => std::process::exit(128 + signal),
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}
