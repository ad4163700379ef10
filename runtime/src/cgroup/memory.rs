//! A watch on the processes that the kernel ends for lack of memory.

use super::Groups;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fd::{AsRawFd, OwnedFd};
use std::fs::File;

/// Watch on the kernel's out-of-memory kills in cgroups.
#[derive(Debug)]
pub struct OutOfMemory(Watch);

#[derive(Debug)]
enum Watch {
    /// File `memory.events`, and the number of kills so far.
    Unified { file: File, kills: u64 },
    /// Event descriptor registered with `memory.oom_control`.
    Legacy { event: OwnedFd, _control: File },
}

impl OutOfMemory {
    /// Begins a watch. `None` where the cgroups have no memory controller.
    pub fn watch(groups: &Groups) -> Option<OutOfMemory> {
        if let Some(dir) = groups.path_of("memory") {
            let control = File::open(dir.join("memory.oom_control")).ok()?;
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
            let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            std::fs::write(dir.join("cgroup.event_control"), line).ok()?;
            return Some(OutOfMemory(Watch::Legacy { event, _control: control }));
        }
        let file = File::open(groups.unified_path()?.join("memory.events")).ok()?;
        let mut watch = OutOfMemory(Watch::Unified { file, kills: 0 });
        watch.happened();
        Some(watch)
    }

    /// Descriptor to wait for, with its events.
    pub fn polled(&self) -> PollFd<'_> {
        match &self.0 {
            Watch::Unified { file, .. } => PollFd::new(file, PollFlags::PRI),
            Watch::Legacy { event, .. } => PollFd::new(event, PollFlags::IN),
        }
    }

    /// True when something happened since the last call. Version 1 reports it before the kill, and also when a cgroup above
    /// has no memory: [`super::stats::out_of_memory_kills`] decides then.
    pub fn happened(&mut self) -> bool {
        match &mut self.0 {
            Watch::Unified { file, kills } => {
                use std::io::{Read, Seek};
                let mut text = String::new();
                let _ = file.rewind();
                let _ = file.read_to_string(&mut text);
                let now =
                    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0);
                now > std::mem::replace(kills, now)
            }
            Watch::Legacy { event, .. } => {
                let mut count = [0u8; 8];
                rustix::io::read(event, &mut count).is_ok()
            }
        }
    }
}
