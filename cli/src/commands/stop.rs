//! `kiln stop`.

use super::kill::number;
use super::start::sound;
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Attached, Container, Containers, EngineError, Live};
use std::ffi::OsString;
use std::time::Duration;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// Time for a program to end, when neither the user nor the container sets another.
const USUAL: Duration = Duration::from_secs(10);

/// Stop running containers.
#[derive(Debug, Parser)]
struct Stop {
    /// Kill a container that has not ended after this many seconds; -1 waits for ever [default: the container's, or 10]
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Send this signal first [default: the image's STOPSIGNAL, or TERM]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Containers to stop: names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Stop as clap::CommandFactory>::command()
}

/// Stops each container, continues after a failure, and then returns exit code 1. One that has ended is stopped.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let stop: Stop = arguments::parse("stop", arguments)?;
    let signal = stop.signal.as_deref().map(number).transpose()?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut result = 0;
    for name in &stop.containers {
        let stopped = sound(&containers, name)
            .and_then(|container| stop_one(&containers, &container, signal, &Patience::of(stop.timeout)));
        match stopped {
            Ok(()) => ui::line(name),
            Err(error) => {
                error.report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}

/// Time that a program may take to end before it is killed.
pub(super) enum Patience {
    /// As long as the container's settings say.
    OfContainer,
    /// A number of seconds.
    Seconds(u64),
    /// For ever.
    Endless,
}

impl Patience {
    /// Reads the flag `--timeout`.
    pub(super) fn of(timeout: Option<i64>) -> Patience {
        match timeout.map(u64::try_from) {
            None => Patience::OfContainer,
            Some(Ok(seconds)) => Patience::Seconds(seconds),
            Some(Err(_)) => Patience::Endless,
        }
    }

    /// The longest wait; `None` for ever.
    fn time(&self, container: &Container) -> Option<Duration> {
        match self {
            Patience::OfContainer => match container.settings.stop_timeout.map(u64::try_from) {
                None => Some(USUAL),
                Some(Ok(seconds)) => Some(Duration::from_secs(seconds)),
                Some(Err(_)) => None,
            },
            Patience::Seconds(seconds) => Some(Duration::from_secs(*seconds)),
            Patience::Endless => None,
        }
    }
}

/// Ends a container: asks its program to end, and kills it when that takes too long. One that does not run is stopped.
/// Returns when the end is recorded.
pub(super) fn stop_one(
    containers: &Containers<'_>,
    container: &Container,
    signal: Option<i32>,
    patience: &Patience,
) -> Result<(), CliError> {
    let connection = containers.connect(container)?;
    if let Some(connection) = &connection {
        // The monitor may have ended just now, with the program.
        let _ = connection.stop().and_then(|()| connection.ask_for_end());
    }
    let live = match containers.live(container) {
        Ok(live) => live,
        Err(EngineError::NotRunning(_)) => {
            // One that waits for its restart is stopped by the word to its monitor.
            if let Some(connection) = connection.filter(|_| container.state.is_live()) {
                connection.wait();
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let own = container.settings.stop_signal.as_deref().and_then(kiln_runtime::signal::parse);
    let send = |signal: i32| {
        containers.event(container, "kill", &[("signal", signal.to_string())]);
        live.signal(signal);
    };
    send(signal.or(own).unwrap_or(SIGTERM));
    if !has_ended(connection.as_ref(), &live, patience.time(container)) {
        send(SIGKILL);
        has_ended(connection.as_ref(), &live, None);
    }
    containers.event(container, "stop", &[]);
    Ok(())
}

/// Waits until the end is recorded; false when it has not come in time. `None` waits for ever.
fn has_ended(connection: Option<&Attached>, live: &Live, patience: Option<Duration>) -> bool {
    let monitor = match (connection, patience) {
        (Some(connection), Some(patience)) => connection.wait_for(patience),
        (Some(connection), None) => Some(connection.wait()),
        (None, _) => Some(None),
    };
    match monitor {
        None => false,
        Some(Some(_)) => true,
        // Without its monitor the program's own end is all there is.
        Some(None) => live.wait_for(patience),
    }
}
