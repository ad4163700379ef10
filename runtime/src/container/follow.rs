//! Loop over the status messages of a container's first process during set-up.

use crate::init::{Status, word};
use crate::launch::Launched;
use crate::message::receive;
use crate::op::Point;
use crate::process::SpawnError;
use rustix::fd::{AsFd, OwnedFd};

/// Failure of the caller's part of a start; the start fails with it.
pub type CallerError = Box<dyn std::error::Error + Send + Sync>;

/// The caller's part of a start, in the order of its methods. An error ends the start and the process.
pub trait Steps {
    /// Called when the process exists and its set-up begins. Only [`crate::launch::launch`] calls this.
    fn made(&mut self, _launched: &Launched) -> Result<(), CallerError> {
        Ok(())
    }
    /// Returns the program of the system call filter, for plans in which the parent compiles it.
    fn filter(&mut self) -> Result<Vec<u64>, CallerError> {
        Ok(Vec::new())
    }
    /// Called when the process waits at `point`. Returns the message that lets it continue: the container's state at
    /// [`Point::Hooks`], otherwise nothing.
    fn reached(&mut self, _point: Point, _pid: i32) -> Result<Vec<u8>, CallerError> {
        Ok(Vec::new())
    }
    /// Takes the master of the container's terminal.
    fn console(&mut self, _master: OwnedFd) -> Result<(), CallerError> {
        Ok(())
    }
    /// Takes the file descriptor on which the kernel reports calls that match the filter (seccomp_unotify(2)).
    fn listener(&mut self, _listener: OwnedFd, _pid: i32) -> Result<(), CallerError> {
        Ok(())
    }
}

/// Steps of callers that have no part in the start.
#[derive(Clone, Copy, Debug)]
pub struct NoSteps;

impl Steps for NoSteps {}

/// End of a start that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process waits at its gate.
    Created,
    /// The process closed its end of the socket, by exec or by its death.
    Closed,
}

/// Serves a process until its program runs, it waits at its gate, or its set-up fails. `identify` writes the id maps of
/// a new user namespace.
pub(crate) fn follow(
    status: &OwnedFd,
    pid: i32,
    steps: &mut dyn Steps,
    identify: impl Fn(i32) -> Result<(), CallerError>,
) -> Result<Ended, SpawnError> {
    loop {
        let message = receive::<Status>(status.as_fd());
        let Some((message, fds)) = message.map_err(|errno| SpawnError::Helper("hear from", errno))? else {
            return Ok(Ended::Closed);
        };
        match message {
            Status::Created => return Ok(Ended::Created),
            Status::Failed(error) => return Err(SpawnError::Setup(error)),
            Status::Console => {
                fds.into_iter().try_for_each(|master| steps.console(master)).map_err(SpawnError::Caller)?;
            }
            Status::Listener => {
                let mut fds = fds.into_iter();
                fds.try_for_each(|listener| steps.listener(listener, pid)).map_err(SpawnError::Caller)?;
            }
            Status::Waits(point) => {
                if point == Point::IdMaps {
                    identify(pid).map_err(SpawnError::Caller)?;
                }
                let answer = steps.reached(point, pid).map_err(SpawnError::Caller)?;
                word::send(status, &answer).map_err(|errno| SpawnError::Helper("reach", errno))?;
            }
        }
    }
}
