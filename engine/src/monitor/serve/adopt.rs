//! Containers whose monitor was killed: this one takes its part.
//!
//! The program is no child of this process: its end is noticed by its pidfd, and its exit code is read from the kernel. The
//! pipes of its streams are opened again through the descriptors of the container's processes. A terminal is lost: its
//! master cannot be opened again, and the kernel has hung up on the program.

use super::memory::MemoryWatch;
use super::{Program, Serving, failure, launch, refuse};
use crate::container::{UNKNOWN_CODE, UNKNOWN_END};
use crate::error::EngineError;
use crate::monitor::checks::Checks;
use crate::monitor::streams::Streams;
use crate::record::State;
use crate::start::Resources;
use crate::wire::{self, Answer};
use jiff::Timestamp;
use kiln_network::Proxy;
use kiln_runtime::cgroup::Groups;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::time::{Duration, Instant};

impl Serving {
    /// Looks after a program that runs, to its last end; answers `command` when commands can connect.
    pub(super) fn adopt(mut self, command: &OwnedFd) {
        // The user may have begun to end it when its monitor was killed.
        self.is_stopped = self.owned.container.is_stopped;
        match self.open().and_then(|()| self.find_program()) {
            Ok(program) => {
                // A command that has ended needs no answer.
                let pidfd = program.process.pidfd.as_fd();
                let _ = wire::send(command.as_fd(), &wire::json(&Answer::Started), &[pidfd]);
                self.keep(program);
            }
            Err(error) => refuse(command, failure(&error)),
        }
    }

    fn find_program(&mut self) -> Result<Program, EngineError> {
        let container = &self.owned.container;
        let ended = || EngineError::NotRunning(container.id.clone());
        let State::Running { pid, ticks, started, .. } = &container.state else { return Err(ended()) };
        let handle = Pid::from_raw(*pid).ok_or_else(ended)?;
        let pidfd = pidfd_open(handle, PidfdFlags::empty()).map_err(|_| ended())?;
        // The pidfd may be that of a later process of this pid.
        if !container.state.is_alive() {
            return Err(ended());
        }
        let groups = container.groups.as_ref();
        let pids = groups.and_then(|groups: &Groups| groups.processes().ok()).unwrap_or_default();
        let pids: Vec<i32> = std::iter::once(*pid).chain(pids).collect();
        // Before the pipes are open: an open copy of one in the process would keep its readers from seeing the end.
        let proxy = container.settings.publishes().then(Proxy::fork).transpose()?;
        let dirs = (self.request.store.as_path(), self.request.state.as_path());
        let resources = Resources::of_orphan(container, *pid, dirs, proxy.as_ref());
        let streams = container.pipes.map(|pipes| Streams::reopen(&pipes, &pids)).unwrap_or_default();
        let since = instant_of(started);
        let mut checks = Checks::of(&self.owned);
        checks.iter_mut().for_each(|checks| checks.begin(&self.owned, since));
        let program = Program {
            process: launch::Launched { pid: *pid, pidfd, group: None },
            streams,
            memory: MemoryWatch::of(&resources),
            resources,
            started: started.clone(),
            since,
            code: None,
            checks,
            adopted: Some(ticks.clone()),
            note: "",
        };
        if container.settings.tty && !container.has_lost_terminal {
            self.owned.container.has_lost_terminal = true;
            self.owned.records.change(&self.request.id, |record| record.has_lost_terminal = true)?;
        }
        Ok(program)
    }
}

impl Program {
    /// Reads the exit code of the process, which has ended.
    pub(super) fn reap(&mut self) {
        let pidfd = &self.process.pidfd;
        let code = match &self.adopted {
            None => Some(launch::wait(pidfd)),
            Some(ticks) => launch::ended_code(self.process.pid, ticks, pidfd.as_fd()),
        };
        if code.is_none() {
            self.note = UNKNOWN_END;
        }
        self.code = Some(code.unwrap_or(UNKNOWN_CODE));
    }
}

/// Moment of a time in a record; now for one that cannot be.
fn instant_of(time: &str) -> Instant {
    let now = Instant::now();
    let ago = time.parse::<Timestamp>().map(|time| Timestamp::now().duration_since(time));
    let ago = ago.ok().and_then(|ago| Duration::try_from(ago).ok());
    ago.and_then(|ago| now.checked_sub(ago)).unwrap_or(now)
}
