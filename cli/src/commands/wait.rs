//! `kiln wait`.

use super::start::sound;
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Condition, Container, Containers, EngineError, Waited};
use std::ffi::OsString;
use std::time::Instant;

/// Wait until containers have ended, and print their exit codes.
#[derive(Debug, Parser)]
struct Wait {
    /// Wait for this state: stopped, next-exit, removed, running, paused, healthy or unhealthy
    #[arg(long, value_name = "STATE", default_value = "stopped")]
    condition: String,
    /// Containers to wait for: names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Wait as clap::CommandFactory>::command()
}

/// Waits for each container in turn; continues after a failure, and returns exit code 1 then.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let wait: Wait = arguments::parse("wait", arguments)?;
    let condition = condition(&wait.condition)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut result = 0;
    for name in &wait.containers {
        match sound(&containers, name).and_then(|one| wait_for(&containers, &one, condition)) {
            Ok(code) => ui::line(&code.to_string()),
            Err(error) => {
                error.report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}

/// Reads a state by the names that Docker's API and podman have for it.
fn condition(text: &str) -> Result<Condition, CliError> {
    Ok(match text {
        "stopped" | "exited" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        "running" => Condition::Running,
        "paused" => Condition::Paused,
        "healthy" => Condition::Healthy,
        "unhealthy" => Condition::Unhealthy,
        _ => {
            let message = format!("invalid argument {text:?} for \"--condition\" flag");
            let states = "one of stopped, next-exit, removed, running, paused, healthy, unhealthy";
            return Err(CliError::Flags(message, vec![states.to_owned()]));
        }
    })
}

/// Waits for one container; returns its exit code, and as podman does -1 for a state in which it runs.
fn wait_for(
    containers: &Containers<'_>,
    container: &Container,
    condition: Condition,
) -> Result<i32, CliError> {
    let waited = containers.wait(container, condition, None).map_err(|error| match error {
        EngineError::NoHealthCheck(_) => {
            CliError::from(error).hint("run it with --health-cmd, or build its image with HEALTHCHECK")
        }
        error => error.into(),
    })?;
    match waited {
        Waited::Ended(code) => Ok(code),
        Waited::Reached => Ok(-1),
        other => Err(missed(container, &other)),
    }
}

/// Waits until a container that was started is ready: healthy, or running without a health check.
///
/// # Errors
///
/// Fails when it ends or becomes unhealthy before, and when the time is over.
pub(super) fn until_ready(
    containers: &Containers<'_>,
    container: &Container,
    deadline: Option<Instant>,
) -> Result<(), CliError> {
    match containers.wait(container, Condition::Ready, deadline)? {
        Waited::Reached | Waited::Ended(_) => Ok(()),
        other => Err(missed(container, &other)),
    }
}

/// Error for a container that did not reach a state, with what happened instead.
fn missed(container: &Container, waited: &Waited) -> CliError {
    let name = &container.name;
    let logs = format!("`kiln logs {name}` shows what it wrote");
    match waited {
        Waited::EndedBefore(code) => {
            let failed =
                CliError::failed(format!("container {name} ended with exit code {code} before that"));
            if container.auto_remove { failed } else { failed.hint(logs) }
        }
        Waited::BecameUnhealthy(health) => {
            let last = health.log.last().map_or_else(String::new, |result| {
                let output = text::ellipsis(result.output.trim(), MOST_OUTPUT);
                let colon = if output.is_empty() { "" } else { ": " };
                format!(": its last check ended with exit code {}{colon}{output}", result.exit_code)
            });
            CliError::failed(format!("container {name} is unhealthy{last}")).hint(logs)
        }
        Waited::TimedOut => CliError::failed(format!("container {name} is not ready yet")).hint(format!(
            "`kiln inspect -f '{{{{json .State}}}}' {name}` shows its state, `kiln wait` waits for longer"
        )),
        Waited::Removed | Waited::Ended(_) | Waited::Reached => {
            CliError::failed(format!("container {name} was removed"))
        }
    }
}

/// Most characters of a check's output in an error.
const MOST_OUTPUT: usize = 200;
