//! Changes of containers that exist: limits and the restart policy (moby `container/container_unix.go`).
//!
//! A change is checked against the limits that are in force, and then together with them. The record is
//! written first, and the old one again when the cgroups of a running container refuse a value.

use crate::cgroups::block_device;
use crate::container::Records;
use crate::error::EngineError;
use crate::record::Container;
use crate::restart::RestartPolicy;
use crate::settings::{Capacity, LimitError, Limits};
use kiln_runtime::host::Host;

/// Changes of a container that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Limits to change; 0, `None` and empty texts change nothing.
    pub limits: Limits,
    /// New restart policy; `None` to keep the present one.
    pub restart: Option<RestartPolicy>,
}

/// Reason why a container cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A container that is removed at its end is not started again.
    #[error("Restart policy cannot be updated because AutoRemove is enabled for the container")]
    AutoRemove,
    /// A limit of processor time that contradicts one in force.
    #[error("Conflicting options: {new} cannot be updated as {set} has already been set")]
    Processors {
        /// Limit that is to change.
        new: &'static str,
        /// Limit that is in force.
        set: &'static str,
    },
    /// A limit of memory above that of memory and swap.
    #[error(
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
    )]
    AboveSwap,
    /// Limits that are invalid together.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Nothing could enforce a limit.
    #[error("it has no cgroups, because none could be created when it was started")]
    NoCgroups,
}

impl Records {
    /// Changes a container, and the cgroups of one that runs. Returns warnings about limits that the host cannot enforce.
    ///
    /// # Errors
    /// [`EngineError::Limit`] for limits that are invalid on this host, [`EngineError::Update`] for those that contradict
    /// the present ones, [`EngineError::Cgroup`] when the kernel refuses a value, and [`EngineError::NoSuchContainer`]
    /// when it has been removed. The record and the limits in force are those of before then.
    pub fn update(&self, container: &Container, update: &Update) -> Result<Vec<String>, EngineError> {
        let capacity = Capacity::detect();
        let mut outcome = Ok(());
        let mut before = None;
        let changed = self.change(&container.id, |record| {
            let old = (record.settings.limits.clone(), record.restart);
            outcome = update.apply(record, &capacity);
            before = outcome.is_ok().then_some(old);
        })?;
        let changed = changed.ok_or_else(|| EngineError::NoSuchContainer(container.name.clone()))?;
        outcome.map_err(|reason| match reason {
            UpdateError::Limit(error) => EngineError::Limit(error),
            reason => EngineError::Update { id: changed.id.clone(), reason },
        })?;
        let wanted = update.limits.with_related(&changed.settings.limits);
        let enforced = self.enforce(&changed, &wanted, &capacity);
        if let (Err(_), Some((limits, restart))) = (&enforced, before) {
            // The error of the kernel matters more than those of these. It may have accepted other limits before.
            let _ = self.enforce(&changed, &wanted.as_in(&limits), &capacity);
            let _ = self.change(&changed.id, |record| {
                record.settings.limits = limits;
                record.restart = restart;
            });
        }
        enforced?;
        self.event(&changed, "update", &[]);
        Ok(update.limits.check(&capacity).unwrap_or_default())
    }

    /// Sets limits on the cgroups of a container that runs.
    fn enforce(
        &self,
        container: &Container,
        wanted: &Limits,
        capacity: &Capacity,
    ) -> Result<(), EngineError> {
        if *wanted == Limits::default() || !container.state.is_running() {
            return Ok(());
        }
        let live = match self.live(container) {
            Ok(live) => live,
            // It has ended meanwhile: the next start uses the record.
            Err(EngineError::NotRunning(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let groups = live.groups()?;
        if groups.is_none() {
            let reason = UpdateError::NoCgroups;
            return Err(EngineError::Update { id: container.id.clone(), reason });
        }
        let resources = wanted.resources(capacity, block_device)?;
        Ok(groups.apply(Host::get().layout(), Some(&resources))?)
    }
}

impl Update {
    /// Changes a record, or leaves it as it is on failure.
    fn apply(&self, record: &mut Container, capacity: &Capacity) -> Result<(), UpdateError> {
        if self.restart.is_some_and(|policy| policy != RestartPolicy::No) && record.auto_remove {
            return Err(UpdateError::AutoRemove);
        }
        record.settings.limits = record.settings.limits.updated(&self.limits, capacity)?;
        record.restart = self.restart.unwrap_or(record.restart);
        Ok(())
    }
}

impl Limits {
    /// These limits with the changes.
    fn updated(&self, change: &Limits, capacity: &Capacity) -> Result<Limits, UpdateError> {
        self.refuse_contradictions(change)?;
        let number = |new: i64, old: i64| if new == 0 { old } else { new };
        let text = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
        let limits = Limits {
            memory: number(change.memory, self.memory),
            memory_swap: self.updated_swap(change)?,
            memory_reservation: number(change.memory_reservation, self.memory_reservation),
            nano_cpus: number(change.nano_cpus, self.nano_cpus),
            cpu_shares: number(change.cpu_shares, self.cpu_shares),
            cpu_period: number(change.cpu_period, self.cpu_period),
            cpu_quota: number(change.cpu_quota, self.cpu_quota),
            cpu_realtime_period: number(change.cpu_realtime_period, self.cpu_realtime_period),
            cpu_realtime_runtime: number(change.cpu_realtime_runtime, self.cpu_realtime_runtime),
            cpuset_cpus: text(&change.cpuset_cpus, &self.cpuset_cpus),
            cpuset_mems: text(&change.cpuset_mems, &self.cpuset_mems),
            pids: change.pids.or(self.pids),
            block_weight: if change.block_weight == 0 { self.block_weight } else { change.block_weight },
            ..self.clone()
        };
        if *change != Limits::default() {
            limits.check(capacity)?;
        }
        Ok(limits)
    }

    /// Limit of memory and swap after a change: where only that of memory is set, the other one is twice as large, and
    /// stays when memory changes.
    fn updated_swap(&self, change: &Limits) -> Result<i64, UpdateError> {
        if change.memory_swap != 0 {
            return Ok(change.memory_swap);
        }
        let present = if self.memory_swap == 0 { self.memory.saturating_mul(2) } else { self.memory_swap };
        if change.memory == 0 {
            return Ok(self.memory_swap);
        }
        if present > 0 && change.memory > present {
            return Err(UpdateError::AboveSwap);
        }
        Ok(present)
    }

    /// Fails for a number of processors beside a period or quota, one of which is in force.
    fn refuse_contradictions(&self, change: &Limits) -> Result<(), UpdateError> {
        const CPUS: &str = "NanoCPUs";
        for (new, old, names) in [
            (change.nano_cpus, self.cpu_period, ("Nano CPUs", "CPU Period")),
            (change.nano_cpus, self.cpu_quota, ("Nano CPUs", "CPU Quota")),
            (change.cpu_period, self.nano_cpus, ("CPU Period", CPUS)),
            (change.cpu_quota, self.nano_cpus, ("CPU Quota", CPUS)),
        ] {
            if new > 0 && old > 0 {
                return Err(UpdateError::Processors { new: names.0, set: names.1 });
            }
        }
        Ok(())
    }

    /// What these limits were in `old`. One that was not set becomes what the kernel has without it.
    fn as_in(&self, old: &Limits) -> Limits {
        const NONE: i64 = -1;
        const SHARES: i64 = 1024;
        const WEIGHT: u16 = 500;
        let number = |new: i64, old: i64, unset: i64| match (new, old) {
            (0, _) => 0,
            (_, 0) => unset,
            _ => old,
        };
        let text = |new: &String, old: &String| if new.is_empty() { String::new() } else { old.clone() };
        let had_quota = old.nano_cpus != 0 || old.cpu_quota != 0;
        let sets_quota = self.nano_cpus != 0 || self.cpu_quota != 0;
        Limits {
            memory: number(self.memory, old.memory, NONE),
            memory_swap: number(self.memory_swap, old.memory_swap, NONE),
            memory_reservation: number(self.memory_reservation, old.memory_reservation, NONE),
            nano_cpus: number(self.nano_cpus, old.nano_cpus, 0),
            cpu_shares: number(self.cpu_shares, old.cpu_shares, SHARES),
            cpu_period: number(self.cpu_period, old.cpu_period, 0),
            cpu_quota: if sets_quota && !had_quota { NONE } else { number(self.cpu_quota, old.cpu_quota, 0) },
            cpuset_cpus: text(&self.cpuset_cpus, &old.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems, &old.cpuset_mems),
            pids: self.pids.map(|_| old.pids.unwrap_or(NONE)),
            block_weight: if self.block_weight == 0 {
                0
            } else {
                if old.block_weight == 0 { WEIGHT } else { old.block_weight }
            },
            ..Limits::default()
        }
    }

    /// These limits, with those of `all` that the kernel has in one file with one of these.
    fn with_related(&self, all: &Limits) -> Limits {
        let mut limits = self.clone();
        if self.memory != 0 || self.memory_swap != 0 {
            (limits.memory, limits.memory_swap) = (all.memory, all.memory_swap);
        }
        if self.cpu_period != 0 || self.cpu_quota != 0 {
            (limits.cpu_period, limits.cpu_quota) = (all.cpu_period, all.cpu_quota);
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn capacity() -> Capacity {
        Capacity {
            processors: vec![0, 1],
            memory_nodes: vec![0],
            counts_swap: true,
            is_unified: true,
            can_raise_limits: true,
        }
    }

    #[track_caller]
    fn check(old: &Limits, change: &Limits, expected: Result<Limits, &str>) {
        let updated = old.updated(change, &capacity()).map_err(|error| error.to_string());
        match expected {
            Ok(limits) => assert_eq!(updated, Ok(limits)),
            Err(text) => assert!(updated.as_ref().is_err_and(|error| error.contains(text)), "{updated:?}"),
        }
    }

    #[test]
    fn limits_that_are_not_named_stay() {
        let old = Limits { pids: Some(9), cpu_shares: 5, cpuset_cpus: "0".into(), ..Limits::default() };
        check(&old, &Limits::default(), Ok(old.clone()));
        let change =
            Limits { pids: Some(-1), cpuset_cpus: "0-1".into(), block_weight: 20, ..Limits::default() };
        let new = Limits { cpu_shares: 5, ..change.clone() };
        check(&old, &change, Ok(new));
    }

    #[test]
    fn memory_stays_below_memory_and_swap() {
        let none = Limits::default;
        let old = Limits { memory: 100 * MIB, ..none() };
        // The limit of both was twice that of memory, and stays.
        let more = Limits { memory: 150 * MIB, ..none() };
        check(&old, &more, Ok(Limits { memory: 150 * MIB, memory_swap: 200 * MIB, ..none() }));
        let most = Limits { memory: 300 * MIB, ..none() };
        check(&old, &most, Err("already set memoryswap limit, update the memoryswap at the same time"));
        let both = Limits { memory: 300 * MIB, memory_swap: 300 * MIB, ..none() };
        check(&old, &both, Ok(both.clone()));
        check(&both, &Limits { memory_swap: 299 * MIB, ..none() }, Err("Minimum memoryswap limit"));
        check(&none(), &Limits { memory_swap: 299 * MIB, ..none() }, Err("always set the Memory limit"));
        check(&none(), &more, Ok(more.clone()));
        let unlimited = Limits { memory: 100 * MIB, memory_swap: -1, ..none() };
        check(&unlimited, &most, Ok(Limits { memory: 300 * MIB, ..unlimited.clone() }));
        check(
            &Limits { memory_reservation: 50 * MIB, ..none() },
            &Limits { memory: 20 * MIB, ..none() },
            Err("reservation"),
        );
    }

    #[test]
    fn processors_and_their_quota_exclude_each_other() {
        let none = Limits::default;
        let (cpus, quota) =
            (Limits { nano_cpus: 1_000_000_000, ..none() }, Limits { cpu_quota: 50_000, ..none() });
        let period = Limits { cpu_period: 50_000, ..none() };
        for (old, new, text) in [
            (
                &cpus,
                &quota,
                "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
            ),
            (
                &cpus,
                &period,
                "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
            ),
            (
                &quota,
                &cpus,
                "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
            ),
            (
                &period,
                &cpus,
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
            ),
        ] {
            check(old, new, Err(text));
        }
        check(&quota, &period, Ok(Limits { cpu_quota: 50_000, cpu_period: 50_000, ..none() }));
    }

    #[test]
    fn limits_of_one_file_are_written_together() {
        let none = Limits::default;
        let all =
            Limits { memory: 9 * MIB, memory_swap: 18 * MIB, cpu_quota: 5000, cpu_period: 9000, ..none() };
        assert_eq!(none().with_related(&all), none());
        let memory = Limits { memory_swap: 18 * MIB, ..none() }.with_related(&all);
        assert_eq!((memory.memory, memory.memory_swap, memory.cpu_quota), (9 * MIB, 18 * MIB, 0));
        let quota = Limits { cpu_quota: 5000, ..none() }.with_related(&all);
        assert_eq!((quota.cpu_period, quota.cpu_quota, quota.memory), (9000, 5000, 0));
    }
}
