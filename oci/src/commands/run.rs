//! Commands `create` and `run`.

use crate::arguments::Arguments;
use crate::create::{self, Made, Then};
use crate::error::OciError;
use crate::foreground::{self, Signals, Streams};
use crate::{Globals, hooks};
use kiln_runtime::{launch, namespaces};
use rustix::fd::AsFd;

pub(super) fn create(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    create::create(globals, arguments, arguments.id("create")?, Then::Wait)?;
    Ok(0)
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let id = arguments.id("run")?;
    let then = if arguments.has("detach") { Then::Detach } else { Then::Stay };
    // Signals are blocked before the container exists, so that an early end is not missed.
    let signals = match then {
        Then::Stay => Some(Signals::block()?),
        _ => None,
    };
    let mut made = create::create(globals, arguments, id, then)?;
    if let Err(error) = hooks::after_start(&made.spec, &made.record) {
        let _ = launch::signal(made.launched.pidfd.as_fd(), 9);
        launch::wait(&made.launched.pidfd);
        finish(globals, &made)?;
        return Err(error);
    }
    let Some(signals) = signals else {
        if let Some((readiness, socket)) = &made.ready {
            readiness.wait(socket, &made.launched.pidfd);
        }
        return Ok(0);
    };
    let streams = Streams { console: made.console.take(), ready: made.ready.take() };
    let code = foreground::stay(&signals, made.launched.pid, &made.launched.pidfd, streams)?;
    if !arguments.has("keep") {
        finish(globals, &made)?;
    }
    // This process exits now, which frees all its memory at once.
    std::mem::forget(made);
    Ok(code)
}

/// Removes the remains of a container that has ended.
fn finish(globals: &Globals, made: &Made) -> Result<(), OciError> {
    let groups = &made.record.groups;
    let removed = groups.remove_if_empty();
    if !removed && groups.are_reused() && namespaces::has_own_pids(&made.spec) {
        // The remaining processes belong to the cgroup's other users.
        groups.leave();
    } else if !removed {
        // Processes in a shared pid namespace outlive the first process.
        groups.signal(9)?;
        groups.remove()?;
    }
    made.record.leave_class()?;
    made.dir.remove()?;
    hooks::after_stop(&made.spec, &made.record, &globals.log);
    Ok(())
}
