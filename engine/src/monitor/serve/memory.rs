//! Processes that the kernel ends for lack of memory while the container runs.

use super::{Program, Serving};
use crate::record::State;
use crate::start::Resources;
use kiln_runtime::cgroup::OutOfMemory;
use rustix::event::PollFd;
use std::time::Duration;

/// Interval between looks at the kernel's counter: cgroups of version 1 report the lack of memory before the kill.
const PAUSE: Duration = Duration::from_millis(20);
/// Looks after which a report without a kill was about a cgroup above.
const LOOKS: u32 = 50;

/// Watch on the memory of a container, until the first kill.
pub(super) struct MemoryWatch {
    watch: Option<OutOfMemory>,
    /// True when the kernel has reported something that was not looked at.
    pub(super) has_news: bool,
    /// Number of looks at the counter that are still to come.
    looks: u32,
}

impl MemoryWatch {
    pub(super) fn of(resources: &Resources) -> MemoryWatch {
        MemoryWatch { watch: resources.watch_memory(), has_news: false, looks: 0 }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Descriptor to wait for.
    pub(super) fn polled(&self) -> Option<PollFd<'_>> {
        self.watch.as_ref().map(OutOfMemory::polled)
    }

    /// Longest wait for an event; `None` without a limit.
    pub(super) fn patience(&self) -> Option<Duration> {
        (self.looks > 0).then_some(PAUSE)
    }
}

impl Serving {
    /// Records a kill for lack of memory, once.
    pub(super) fn look_at_memory(&mut self, program: &mut Program) {
        let memory = &mut program.memory;
        if std::mem::take(&mut memory.has_news) && memory.watch.as_mut().is_some_and(OutOfMemory::happened) {
            memory.looks = LOOKS;
        }
        if memory.looks == 0 {
            return;
        }
        memory.looks -= 1;
        if !program.resources.was_out_of_memory() {
            return;
        }
        (memory.looks, memory.watch) = (0, None);
        // What is not recorded now (the disk is full) is recorded with the end.
        let _ = self.owned.records.change(&self.request.id, |record| {
            if let State::Running { is_out_of_memory, .. } = &mut record.state {
                *is_out_of_memory = true;
            }
        });
    }
}
