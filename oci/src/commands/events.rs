//! `events`: periodic statistics of a container, and reports of out-of-memory kills.

use crate::arguments::Arguments;
use crate::error::{OciError, StateError};
use crate::state::Status;
use crate::{Globals, print};
use kiln_runtime::cgroup::OutOfMemory;
use kiln_runtime::cgroup::stats::{self, Stats};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

fn tell(kind: &str, id: &str, data: Option<Stats>) -> Result<u8, OciError> {
    let event = Event { kind, id, data };
    print(&format!("{}\n", serde_json::to_string(&event).unwrap_or_default()))
}

pub(super) fn events(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let id = arguments.id("events")?;
    let container = globals.store.open(id)?;
    let interval = duration(arguments.get("interval").unwrap_or("5s"))?;
    let pidfd = match (container.status(), container.pidfd()) {
        (Status::Stopped, _) | (_, None) => {
            return Err(StateError::NoEvents(id.to_owned()).into());
        }
        (_, Some(pidfd)) => pidfd,
    };
    if arguments.has("stats") {
        return tell("stats", id, Some(stats::read(&container.record.groups)));
    }
    let mut memory = OutOfMemory::watch(&container.record.groups);
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            tell("stats", id, Some(stats::read(&container.record.groups)))?;
            next = Instant::now() + interval;
        }
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut polled = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if let Some(memory) = &memory {
            polled.push(memory.polled());
        }
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(OciError::Wait { what: "events of the container", errno }),
        }
        let ended = !polled[0].revents().is_empty();
        let told = polled.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(polled);
        if (told || ended) && memory.as_mut().is_some_and(OutOfMemory::happened) {
            tell("oom", id, None)?;
        }
        if ended {
            return Ok(0);
        }
    }
}

/// Parses a duration such as `5s`, `100ms` or `1m`.
fn duration(text: &str) -> Result<Duration, OciError> {
    let bad = || {
        OciError::usage(format!(
            "invalid duration {text:?}: it is a number with ms, s, m or h, greater than 0"
        ))
    };
    let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = number
        * match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero()).ok_or_else(bad)
}
