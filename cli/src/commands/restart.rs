//! `kiln restart`.

use super::kill::number;
use super::start::{sound, start_one};
use super::stop::{Patience, stop_one};
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::session::{self, Session};
use crate::ui;
use clap::Parser;
use kiln_engine::Containers;
use std::ffi::OsString;

/// Stop containers and start them again.
#[derive(Debug, Parser)]
struct Restart {
    /// Kill a container that has not ended after this many seconds; -1 waits for ever [default: the container's, or 10]
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Send this signal first [default: the image's STOPSIGNAL, or TERM]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Containers to restart: names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Restart as clap::CommandFactory>::command()
}

/// Restarts each container; continues after a failure, and returns exit code 1 then.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let restart: Restart = arguments::parse("restart", arguments)?;
    let signal = restart.signal.as_deref().map(number).transpose()?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut result = 0;
    for name in &restart.containers {
        let restarted = sound(&containers, name).and_then(|container| {
            let monitor = session::start_monitor()?;
            containers.keep_for_start(&container)?;
            stop_one(&containers, &container, signal, &Patience::of(restart.timeout))?;
            start_one(&containers, &container.id, monitor, None)?;
            containers.event(&container, "restart", &[]);
            Ok(())
        });
        match restarted {
            Ok(()) => ui::line(name),
            Err(error) => {
                error.report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}
