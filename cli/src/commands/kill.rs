//! `kiln kill`.

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::missing;
use crate::session::{self, Session};
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError, Listed, Live};
use std::ffi::OsString;

/// Send a signal to running containers.
#[derive(Debug, Parser)]
struct Kill {
    /// Send this signal: a name or a number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Containers to send it to: names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Kill as clap::CommandFactory>::command()
}

/// Sends the signal to each container, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let kill: Kill = arguments::parse("kill", arguments)?;
    let signal = number(&kill.signal)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut result = 0;
    for name in &kill.containers {
        match live(&containers, name) {
            Ok(live) => {
                say_that_the_user_ends_it(&containers, &live, signal);
                containers.event(&live.container, "kill", &[("signal", signal.to_string())]);
                live.signal(signal);
                containers.record_freezing(&live)?;
                ui::line(name);
            }
            Err(EngineError::NotRunning(id)) => {
                CliError::failed(format!("cannot kill container: {name}: container {id} is not running"))
                    .report();
                result = code::FAILURE;
            }
            Err(error) => {
                missing::container(&containers, error).report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}

/// Informs the monitor that the program is not to be started again, for signals that are meant to end it.
fn say_that_the_user_ends_it(containers: &Containers<'_>, live: &Live, signal: i32) {
    const SIGKILL: i32 = 9;
    let own = live.container.settings.stop_signal.as_deref().and_then(kiln_runtime::signal::parse);
    if (signal == SIGKILL || own.is_none_or(|own| own == signal))
        && let Ok(Some(connection)) = containers.connect(&live.container)
    {
        // A monitor that has ended does not start it again.
        let _ = connection.stop();
    }
}

/// The number of a signal.
pub(super) fn number(text: &str) -> Result<i32, CliError> {
    kiln_runtime::signal::parse(text).filter(|number| *number > 0).ok_or_else(|| {
        CliError::failed(format!("invalid signal: {text}"))
            .hint("write a name such as TERM, or a number from 1 to 64")
    })
}

/// The running container that a user means.
pub(super) fn live(containers: &Containers<'_>, name: &str) -> Result<Live, EngineError> {
    match containers.find(name)? {
        Listed::Sound(container) => {
            session::adopt(containers, &container);
            containers.live(&container)
        }
        Listed::Damaged(damaged) => Err(EngineError::NotRunning(damaged.id)),
    }
}
