//! `kiln attach`.

use super::run::{Target, Trouble, exit_code};
use super::start::sound;
use crate::arguments::{self, Globals};
use crate::detach_keys::DetachKeys;
use crate::error::CliError;
use crate::foreground::{self, Foreground};
use crate::session::Session;
use crate::signals::Signals;
use clap::{ArgAction, Parser};
use kiln_engine::{Attached, Container, Containers, EngineError, State};
use std::ffi::OsString;
use std::sync::Arc;

/// Connect to the input and output of a running container.
#[derive(Debug, Parser)]
struct Attach {
    /// Leave the container with these keys [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not connect to the input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the program
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Container to connect to: name or id
    container: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Attach as clap::CommandFactory>::command()
}

/// Connects to a container; returns its exit code, or 0 when the user leaves it.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let attach: Attach = arguments::parse("attach", arguments)?;
    let keys = DetachKeys::parse(attach.detach_keys.as_deref())?;
    let target = Target::listen(Signals::catch()?, attach.sig_proxy);
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = sound(&containers, &attach.container)?;
    let terminal = container.settings.tty;
    let input = !attach.no_stdin && container.settings.interactive;
    let foreground = Foreground { terminal, input, stdout: true, stderr: true, keys };
    foreground.check()?;
    let connection = Arc::new(connect(&containers, &container, input)?);
    target.set(&connection, terminal);
    let (rows, columns) = foreground::own_size();
    if terminal && rows > 0 {
        connection.resize(rows, columns)?;
    }
    let trouble = Trouble::expect(&containers, &container, true);
    exit_code(foreground.run(&connection)?, &connection, &trouble)
}

/// Connects to a running container.
pub(super) fn connect(
    containers: &Containers<'_>,
    container: &Container,
    input: bool,
) -> Result<Attached, CliError> {
    match &container.state {
        State::Running { paused: true, .. } => {
            return Err(CliError::failed("cannot attach to a paused container, unpause it first"));
        }
        State::Restarting { .. } => {
            return Err(CliError::failed(
                "cannot attach to a restarting container, wait until it is running",
            ));
        }
        _ => {}
    }
    let stopped = || {
        CliError::failed("cannot attach to a stopped container, start it first")
            .hint(format!("kiln start -a {}", container.name))
    };
    if container.has_lost_terminal {
        let name = &container.name;
        return Err(CliError::failed(format!(
            "the terminal of container {name} was lost when its monitor was killed"
        ))
        .hint(format!("`kiln restart {name}` starts the program with a new one")));
    }
    let live = containers.live(container).map_err(|error| match error {
        EngineError::NotRunning(_) => stopped(),
        error => error.into(),
    })?;
    let connection = containers.connect(container)?.ok_or_else(|| {
        CliError::failed(format!("the monitor of container {} was killed", container.name))
            .hint("the program still runs, but its output is lost: restart the container")
    })?;
    let connection = connection.with_process(live.pidfd())?;
    connection.attach(input)?;
    Ok(connection)
}
