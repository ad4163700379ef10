//! `kiln start`.

use super::run::{Target, Trouble, exit_code, start_error};
use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::detach_keys::DetachKeys;
use crate::error::{CliError, code};
use crate::foreground::{self, Foreground};
use crate::missing;
use crate::session::{self, Session};
use crate::signals::Signals;
use crate::ui;
use clap::Parser;
use kiln_engine::{Attach, Attached, Containers, EngineError, Listed, Monitor, StartOptions};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// Start containers that do not run.
#[derive(Debug, Parser)]
struct Start {
    /// Attach to the output of the container, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to the input of the container
    #[arg(short, long)]
    interactive: bool,
    /// Leave the container with these keys [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Containers to start: names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Start as clap::CommandFactory>::command()
}

/// Starts each container; continues after a failure, and returns exit code 1 then. With `-a`, returns the exit code of
/// the one container.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let start: Start = arguments::parse("start", arguments)?;
    let keys = DetachKeys::parse(start.detach_keys.as_deref())?;
    if start.attach || start.interactive {
        if start.containers.len() > 1 {
            return Err(CliError::failed("you cannot start and attach multiple containers at once"));
        }
        return start.attached(globals, keys);
    }
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut failed = Vec::new();
    for name in &start.containers {
        let started =
            session::start_monitor().and_then(|monitor| start_one(&containers, name, monitor, None));
        match started {
            Ok(_) => ui::line(name),
            Err(error) => {
                error.report();
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Ok(not_started(&failed.join(", ")))
}

/// Reports which containers did not start, after the reason for each.
fn not_started(names: &str) -> u8 {
    CliError::failed(format!("failed to start containers: {names}")).report()
}

/// Starts a container that does not run. `None` when it runs.
pub(super) fn start_one(
    containers: &Containers<'_>,
    name: &str,
    monitor: Monitor,
    attach: Option<Attach>,
) -> Result<Option<Attached>, CliError> {
    let missing = |error| missing::container(containers, error);
    let container = sound(containers, name)?;
    if matches!(container.state, kiln_engine::State::Running { paused: true, .. }) {
        return Err(CliError::failed("cannot start a paused container, try unpause instead"));
    }
    let Some(owned) = containers.take(&container).map_err(missing)? else { return Ok(None) };
    let options = StartOptions { state: Path::new(STATE), size: foreground::own_size(), attach };
    let started = monitor.start(containers, owned, &options);
    started.map(Some).map_err(|failure| start_error(&failure).with_code(code::FAILURE))
}

/// The container that a user means, if its record can be read. One whose monitor was killed has a new one then.
pub(super) fn sound(containers: &Containers<'_>, name: &str) -> Result<kiln_engine::Container, CliError> {
    match containers.find(name).map_err(|error: EngineError| missing::container(containers, error))? {
        // The new monitor may have changed the record.
        Listed::Sound(container) if session::adopt(containers, &container) => {
            sound(containers, &container.id)
        }
        Listed::Sound(container) => Ok(*container),
        Listed::Damaged(damaged) => Err(CliError::failed(format!("container {name} is damaged"))
            .hint(format!("`kiln rm {}` removes it", damaged.id))),
    }
}

impl Start {
    fn attached(&self, globals: &Globals, keys: DetachKeys) -> Result<u8, CliError> {
        let monitor = session::start_monitor()?;
        let target = Target::listen(Signals::catch()?, true);
        let session = Session::open(globals)?;
        let containers = Containers::open(&session.store)?;
        let name = &self.containers[0];
        let container = sound(&containers, name)?;
        let terminal = container.settings.tty;
        let input = self.interactive && container.settings.interactive;
        let foreground = Foreground { terminal, input, stdout: true, stderr: true, keys };
        foreground.check()?;
        target.expect();
        let attach = Some(Attach { input });
        let started = match start_one(&containers, name, monitor, attach) {
            Ok(started) => started,
            Err(error) => {
                error.report();
                return Ok(not_started(name));
            }
        };
        let connection = match started {
            Some(connection) => connection,
            None => super::attach::connect(&containers, &container, input)?,
        };
        let connection = Arc::new(connection);
        target.set(&connection, terminal);
        let trouble = Trouble::expect(&containers, &container, true);
        exit_code(foreground.run(&connection)?, &connection, &trouble)
    }
}
