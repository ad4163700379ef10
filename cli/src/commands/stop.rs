//! `kiln stop`.

use super::kill::{live, number};
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::missing;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError, Live};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::ffi::OsString;
use std::time::{Duration, Instant};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Stop running containers.
#[derive(Debug, Parser)]
struct Stop {
    /// Kill a container that has not ended after this many seconds; -1 waits for ever
    #[arg(
        short,
        long,
        visible_alias = "time",
        value_name = "SECONDS",
        default_value = "10",
        allow_negative_numbers = true
    )]
    timeout: i64,
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
    let patience = u64::try_from(stop.timeout).ok().map(Duration::from_secs);
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut result = 0;
    for name in &stop.containers {
        match live(&containers, name) {
            Ok(live) => {
                end(&live, signal, patience);
                ui::line(name);
            }
            Err(EngineError::NotRunning(_)) => ui::line(name),
            Err(error) => {
                missing::container(&containers, error).report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}

/// Asks a container to end, and kills it when that takes longer than `patience`; `None` waits for ever.
fn end(live: &Live, signal: Option<i32>, patience: Option<Duration>) {
    let own = live.container.settings.stop_signal.as_deref().and_then(kiln_runtime::signal::parse);
    live.signal(signal.or(own).unwrap_or(SIGTERM));
    if !has_ended(live, patience) {
        live.signal(SIGKILL);
        has_ended(live, None);
    }
}

/// Waits for the end of the init process; false when it has not come in time.
fn has_ended(live: &Live, patience: Option<Duration>) -> bool {
    let deadline = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut polled = [PollFd::new(live.pidfd(), PollFlags::IN)];
        match poll(&mut polled, left.as_ref()) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            _ => return true,
        }
    }
}
