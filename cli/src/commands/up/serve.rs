//! A project's container in the foreground: its output, its health, and its end.

use super::interrupt::Interrupt;
use crate::commands::logs;
use crate::error::CliError;
use crate::{text, ui};
use kiln_engine::{Attached, Condition, Container, Event, Listed, Records, Waited};
use rustix::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Most characters of a health check's output in a message.
const MOST_OUTPUT: usize = 200;

/// Held while something else than the container's output is drawn on the terminal.
pub(super) type Gate = Arc<Mutex<()>>;

/// A container that is followed.
pub(super) struct Followed {
    pub(super) container: Container,
    /// Connection that reports its end; `None` once it has ended.
    end: Option<Attached>,
    /// Exit code of its last end; `None` while none is reported.
    code: Option<i32>,
    is_out_of_memory: bool,
    log: Option<JoinHandle<()>>,
}

impl Followed {
    /// Shows the output of a container from its first byte on, and its health when it is known.
    ///
    /// # Errors
    ///
    /// Fails when the container's files cannot be used.
    pub(super) fn begin(
        containers: &Records,
        container: Container,
        gate: &Gate,
        interrupt: &Interrupt,
    ) -> Result<Followed, CliError> {
        let end = connected(containers, &container, interrupt)?;
        let log = show_log(containers, &container, gate)?;
        if containers.health(&container).is_some() {
            tell_of_health(containers.clone(), container.clone());
        }
        Ok(Followed { container, end, code: None, is_out_of_memory: false, log: Some(log) })
    }

    /// Descriptor that is readable when there is news of the container's end; `None` when it has ended.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(AsFd::as_fd)
    }

    /// Reads the news; true when the container has ended for good.
    pub(super) fn has_ended(&mut self, containers: &Records, interrupt: &Interrupt) -> bool {
        match self.end.as_ref().map(Attached::next) {
            Some(Event::Exited { code, is_out_of_memory }) => {
                (self.code, self.is_out_of_memory) = (Some(code), is_out_of_memory);
                // The monitor closes the connection. One that starts the program again has others.
                self.end = self.again(containers, interrupt);
            }
            Some(Event::Output(..)) => {}
            Some(Event::Gone) | None => self.end = None,
        }
        self.end.is_none()
    }

    /// Connection to the monitor of a container that is started again by its policy; `None` when it has ended.
    fn again(&self, containers: &Records, interrupt: &Interrupt) -> Option<Attached> {
        match containers.find(&self.container.id) {
            Ok(Listed::Sound(now)) if now.state.is_live() => {
                connected(containers, &now, interrupt).ok().flatten()
            }
            _ => None,
        }
    }

    /// Exit code of the container, and whether the kernel ended it for lack of memory.
    pub(super) fn outcome(&self, containers: &Records) -> (i32, bool) {
        let code = self.code.or_else(|| code_of(containers, &self.container));
        (code.unwrap_or_default(), self.is_out_of_memory)
    }

    /// Waits until the output of a container that has ended is shown.
    pub(super) fn finish(&mut self) {
        self.end = None;
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// Connection that reports the next end of a container, whose process the second signal kills from now on.
fn connected(
    containers: &Records,
    container: &Container,
    interrupt: &Interrupt,
) -> Result<Option<Attached>, CliError> {
    let end = containers.connect(container)?;
    let process = containers.live(container).ok().and_then(|live| live.pidfd().try_clone().ok());
    interrupt.set_process(process);
    Ok(end.filter(|connection| connection.ask_for_end().is_ok()))
}

/// Exit code of a container as its record has it; `None` while it runs, and when it has been removed.
pub(super) fn code_of(containers: &Records, container: &Container) -> Option<i32> {
    match containers.find(&container.id) {
        Ok(Listed::Sound(found)) if !found.state.is_live() => Some(found.state.code()),
        _ => None,
    }
}

fn show_log(containers: &Records, container: &Container, gate: &Gate) -> Result<JoinHandle<()>, CliError> {
    // Connected before the command goes on: an end in between closes the connection.
    let writer = containers.connect(container)?;
    let (containers, container, gate) = (containers.clone(), container.clone(), Arc::clone(gate));
    Ok(std::thread::spawn(move || {
        let shown = logs::follow(&containers, &container, writer.as_ref(), &mut || {
            // The guard is released at once: the gate only holds lines back.
            drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
        });
        if let Err(error) = shown {
            error.report();
        }
    }))
}

fn tell_of_health(containers: Records, container: Container) {
    std::thread::spawn(move || {
        let name = &container.name;
        match containers.wait(&container, Condition::Ready, None) {
            Ok(Waited::Reached) => ui::tell_line(&format!("{name} is healthy")),
            Ok(Waited::BecameUnhealthy(health)) => {
                let output = health.log.last().map(|result| result.output.trim().to_owned());
                let output = output.filter(|output| !output.is_empty());
                let output = output.map(|output| format!(": {}", text::ellipsis(&output, MOST_OUTPUT)));
                ui::tell_line(&format!("{name} is unhealthy{}", output.unwrap_or_default()));
            }
            // Its end is reported by others.
            _ => {}
        }
    });
}
