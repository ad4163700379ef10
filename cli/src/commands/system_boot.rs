//! `kiln system boot`.

use super::start::start_one;
use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::error::{CliError, code};
use crate::session::{self, Session};
use crate::ui;
use clap::Parser;
use kiln_engine::{Container, Containers, EngineError, Listed};
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// Start the containers that should run after a boot: `--restart always`, and `unless-stopped` that the user did not stop
#[derive(Debug, Parser)]
struct Boot {
    /// Stop all containers that run, as for a shutdown: a later `kiln system boot` starts them again
    #[arg(long)]
    stop: bool,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Boot as clap::CommandFactory>::command()
}

/// Starts what should run, and prints a line for each container that it changed; continues after a failure, and returns
/// exit code 1 then.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let boot: Boot = arguments::parse("system boot", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let listed = containers.list()?;
    session::warn_of_damage(&listed);
    let sound = listed.into_iter().filter_map(|one| match one {
        Listed::Sound(container) => Some(*container),
        Listed::Damaged(_) => None,
    });
    // In the order of their creation: later ones may need earlier ones.
    let mut sound: Vec<Container> = sound.collect();
    sound.reverse();
    if boot.stop { stop_all(&session, &containers, &sound) } else { Ok(start_all(&containers, &sound)) }
}

fn start_all(containers: &Containers<'_>, all: &[Container]) -> u8 {
    let mut result = 0;
    for container in all {
        match start(containers, container) {
            Ok(None) => {}
            Ok(Some(done)) => ui::line(&format!("{done} {}", container.name)),
            Err(error) => {
                ui::tell_line(&format!("container {} does not start:", container.name));
                error.report();
                result = code::FAILURE;
            }
        }
    }
    result
}

/// Brings a container into the state that it should have; returns what was done, `None` for nothing.
fn start(containers: &Containers<'_>, container: &Container) -> Result<Option<&'static str>, CliError> {
    if container.state.is_live() {
        return adopt(containers, container);
    }
    if !container.starts_at_boot() {
        return Ok(None);
    }
    let monitor = session::start_monitor()?;
    let started = start_one(containers, &container.id, monitor, None)?;
    Ok(started.map(|_| "started"))
}

/// Makes a new monitor for a container whose own was killed.
fn adopt(containers: &Containers<'_>, container: &Container) -> Result<Option<&'static str>, CliError> {
    if !containers.has_lost_monitor(container) {
        return Ok(None);
    }
    let monitor = session::start_monitor()?;
    let Some(owned) = containers.take_orphan(container)? else { return Ok(None) };
    let adopted = monitor.adopt(containers, owned, Path::new(STATE));
    adopted.map(|_| Some("adopted")).map_err(|failure| CliError::failed(failure.to_string()))
}

/// Stops all that run at once, each within its own time, and forgets that they were stopped.
fn stop_all(session: &Session, containers: &Containers<'_>, all: &[Container]) -> Result<u8, CliError> {
    let live: Vec<&Container> = all.iter().filter(|container| container.state.is_live()).collect();
    let stops = live.iter().map(|container| {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(&session.config.root).args(["stop", &container.id]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        spawned.map_err(|error| CliError::failed(format!("cannot start `kiln stop`: {error}")))
    });
    // All are begun before the first is waited for.
    let stops: Vec<_> = stops.collect();
    let mut result = 0;
    for (container, stop) in live.into_iter().zip(stops) {
        let ended = stop?.wait().is_ok_and(|status| status.success());
        match containers.change(&container.id, |record| record.is_stopped = container.is_stopped) {
            _ if !ended => result = code::FAILURE,
            Ok(_) | Err(EngineError::NoSuchContainer(_)) => ui::line(&format!("stopped {}", container.name)),
            Err(error) => {
                CliError::from(error).report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}
