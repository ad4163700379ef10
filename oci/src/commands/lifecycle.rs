//! Commands `start`, `kill` and `delete`.

use super::Agent;
use crate::arguments::Arguments;
use crate::error::{OciError, StateError};
use crate::readiness::Readiness;
use crate::state::{Container, Record, Status};
use crate::{Globals, hooks};
use kiln_runtime::cgroup::Groups;
use kiln_runtime::container::{CallerError, Steps};
use kiln_runtime::host::Host;
use kiln_runtime::{SpawnError, launch, namespaces, signal};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};

const KILL: i32 = 9;

pub(super) fn start(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let container = globals.store.open(arguments.id("start")?)?;
    let id = &container.record.id;
    match container.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(StateError::StartStopped(id.clone()).into());
        }
        Status::Creating | Status::Running | Status::Paused => {
            return Err(StateError::StartRunning(id.clone()).into());
        }
    }
    let spec = container.config()?;
    if spec.process().is_none() {
        return Err(StateError::NoProcess(id.clone()).into());
    }
    let agent = Agent::of(&spec)?;
    let Some(gate) = container.dir.connect() else {
        return Err(StateError::StartEnded(id.clone()).into());
    };
    let readiness = Readiness::wanted(container.dir.path());
    let ready = readiness.as_ref().map(Readiness::listen).transpose()?.flatten();
    let state = container.record.state(Status::Created);
    let mut steps = Opening { agent, record: &container.record };
    let opened = launch::open_gate(&gate, &state, container.record.pid, &mut steps);
    if let Err(error) = opened {
        return Err(match error {
            SpawnError::Helper(..) | SpawnError::HelperGone => StateError::StartEnded(id.clone()).into(),
            error => OciError::Start(error),
        });
    }
    container.dir.remove_gate();
    if let Err(error) = hooks::after_start(&spec, &container.record) {
        // A failed hook stops and deletes the container (runtime specification, "Lifecycle", step 10).
        if let Err(left) = delete_one(globals, id, true) {
            globals.log.warn(&left.to_string());
        }
        return Err(error);
    }
    if let (Some(readiness), Some(socket), Some(pidfd)) = (readiness, ready, container.pidfd()) {
        readiness.wait(&socket, &pidfd);
    }
    Ok(0)
}

/// Sends the seccomp listener to the agent that answers its notifications.
struct Opening<'a> {
    agent: Option<Agent>,
    record: &'a Record,
}

impl Steps for Opening<'_> {
    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<(), CallerError> {
        Ok(self.agent.as_ref().map_or(Ok(()), |agent| agent.send(self.record, &listener, pid))?)
    }
}

fn has_own_numbers(container: &Container) -> bool {
    container.config().is_ok_and(|spec| namespaces::has_own_pids(&spec))
}

pub(super) fn kill(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let (id, text) = match arguments.words.as_slice() {
        [id] => (id, "TERM"),
        [id, signal] => (id, signal.as_str()),
        _ => return Err(OciError::usage("kill: the container's id is needed, and at most one signal")),
    };
    let number = match text {
        // Signal 0 only checks that the process exists.
        "0" => 0,
        text => signal::parse(text).ok_or_else(|| OciError::usage(format!("unknown signal {text:?}")))?,
    };
    let container = globals.store.open(id)?;
    if arguments.has("all") {
        container.record.groups.signal(number)?;
        // Without a cgroup only the first process is signalled: its end ends its pid namespace.
        if container.record.groups.unified_path().is_some() || container.record.groups.needs_attach() {
            return Ok(0);
        }
    }
    let gone = || OciError::from(StateError::NotRunning(id.to_owned()));
    // Without a pid namespace for the first process, the other processes outlive it.
    let groups = &container.record.groups;
    let others = number == KILL && !groups.is_empty() && !has_own_numbers(&container);
    if others {
        groups.signal(KILL)?;
    }
    let Some(pidfd) = container.pidfd() else { return if others { Ok(0) } else { Err(gone()) } };
    launch::signal(pidfd.as_fd(), number)
        .or_else(|errno| match errno {
            rustix::io::Errno::SRCH if others => Ok(()),
            errno => Err(errno),
        })
        .map_err(|errno| match errno {
            rustix::io::Errno::SRCH => gone(),
            errno => OciError::Signal { id: id.to_owned(), errno },
        })?;
    if number == KILL && container.record.groups.is_frozen() {
        // A killed process does not end while its cgroup is frozen.
        container.record.groups.freeze(false)?;
    }
    Ok(0)
}

pub(super) fn delete(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let force = arguments.has("force");
    for word in &arguments.words {
        if !arguments.has("regex") {
            delete_one(globals, word, force)?;
            continue;
        }
        let pattern = regex::Regex::new(word).map_err(|error| {
            OciError::usage(format!("invalid regular expression {word:?}: {}", gist(&error)))
        })?;
        for container in globals.store.list()? {
            if pattern.is_match(&container.record.id) {
                delete_one(globals, &container.record.id, force)?;
            }
        }
    }
    if arguments.words.is_empty() {
        return Err(OciError::usage("delete: the container's id is missing"));
    }
    Ok(0)
}

/// Last line of an error message, which repeats the expression before it.
fn gist(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn delete_one(globals: &Globals, id: &str, force: bool) -> Result<(), OciError> {
    let container = match globals.store.open(id) {
        Ok(container) => container,
        Err(OciError::NotFound(_)) if force => return Ok(()),
        // Its creation was interrupted: only the directory exists.
        Err(OciError::State(_)) if force => return globals.store.dir(id)?.remove(),
        Err(error) => return Err(error),
    };
    match container.status() {
        Status::Stopped => {}
        Status::Created => end(&container)?,
        _ if force => end(&container)?,
        status => {
            return Err(StateError::NotStopped(id.to_owned(), status).into());
        }
    }
    let groups = &container.record.groups;
    if groups.are_reused() && has_own_numbers(&container) {
        // The container's processes have ended with the first; the remaining ones belong to the cgroup's other users.
        groups.leave();
        container.record.leave_class()?;
    } else {
        if !groups.is_empty() {
            groups.signal(KILL)?;
        }
        container.record.release()?;
    }
    let spec = container.config();
    container.dir.remove()?;
    if let Ok(spec) = spec {
        hooks::after_stop(&spec, &container.record, &globals.log);
    }
    Ok(())
}

/// Kills the first process, which ends all others, and waits for its end.
fn end(container: &Container) -> Result<(), OciError> {
    let Some(pidfd) = container.pidfd() else { return Ok(()) };
    let _ = launch::signal(pidfd.as_fd(), KILL);
    if container.record.groups.is_frozen() {
        container.record.groups.freeze(false)?;
    }
    // A process in a frozen cgroup of another program could not end.
    Groups::thaw_process(Host::get().layout(), container.record.pid);
    if wait_for(&pidfd, 10) {
        return Ok(());
    }
    Err(StateError::Unkillable(container.record.id.clone()).into())
}

fn wait_for(pidfd: &OwnedFd, seconds: i64) -> bool {
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}
