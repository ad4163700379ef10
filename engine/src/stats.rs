//! Measurements of a running container: processor time, memory, network, block devices, processes.

use crate::error::EngineError;
use crate::exec::Live;
use crate::processes::BootClock;
use kiln_runtime::cgroup::stats;
use std::fs;
use std::time::Instant;

/// Measurement of a container at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Time of the measurement.
    pub at: Instant,
    /// Processor time used since the start, in nanoseconds.
    pub cpu: u64,
    /// Memory in use without the page cache that can be dropped, in bytes.
    pub memory: u64,
    /// Limit of the memory, or the memory of the host, in bytes.
    pub limit: u64,
    /// Bytes received from networks.
    pub received: u64,
    /// Bytes sent to networks.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to block devices.
    pub written: u64,
    /// Number of processes and threads.
    pub pids: u64,
}

impl Live {
    /// Measures the container.
    ///
    /// # Errors
    /// [`EngineError::UnknownCgroups`] for a container that an older version started.
    pub fn sample(&self) -> Result<Sample, EngineError> {
        let groups = self.groups()?;
        let stats = stats::read(groups);
        let (received, sent) =
            traffic(&fs::read_to_string(format!("/proc/{}/net/dev", self.pid)).unwrap_or_default());
        let moved = |op: &str| {
            let entries = stats.blkio.io_service_bytes_recursive.iter();
            entries.filter(|entry| entry.op.eq_ignore_ascii_case(op)).map(|entry| entry.value).sum()
        };
        // As in the reference: pages that were not used for long count as free.
        let raw = &stats.memory.raw;
        let inactive =
            raw.get("total_inactive_file").or_else(|| raw.get("inactive_file")).copied().unwrap_or(0);
        let host = BootClock::read().memory;
        let limit = stats.memory.usage.limit;
        let pids = match stats.pids.current {
            0 => self.processes()?.len() as u64,
            counted => counted,
        };
        Ok(Sample {
            at: Instant::now(),
            cpu: stats.cpu.usage.total,
            memory: stats.memory.usage.usage.saturating_sub(inactive),
            limit: if limit == 0 { host } else { limit.min(host) },
            received,
            sent,
            read: moved("read"),
            written: moved("write"),
            pids,
        })
    }
}

impl Sample {
    /// Used processors since an earlier measurement, in percent of one.
    pub fn cpu_since(&self, earlier: &Sample) -> f64 {
        let time = self.at.saturating_duration_since(earlier.at).as_nanos() as f64;
        let used = self.cpu.saturating_sub(earlier.cpu) as f64;
        if time > 0.0 { used / time * 100.0 } else { 0.0 }
    }

    /// Memory in use in percent of its limit.
    pub fn memory_percent(&self) -> f64 {
        if self.limit > 0 { self.memory as f64 / self.limit as f64 * 100.0 } else { 0.0 }
    }
}

/// Bytes received and sent by all interfaces but the loopback, in the format of `/proc/net/dev`.
fn traffic(table: &str) -> (u64, u64) {
    let (mut received, mut sent) = (0, 0);
    for line in table.lines() {
        let Some((_, counts)) = line.split_once(':').filter(|(name, _)| name.trim() != "lo") else {
            continue;
        };
        let counts: Vec<u64> = counts.split_whitespace().map_while(|word| word.parse().ok()).collect();
        received += counts.first().copied().unwrap_or(0);
        sent += counts.get(8).copied().unwrap_or(0);
    }
    (received, sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn traffic_is_that_of_all_interfaces_but_the_loopback() {
        let table = "Inter-|   Receive\n face |bytes packets\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
                     eth0: 100 2 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n  eth1:1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n";
        assert_eq!(traffic(table), (101, 52));
        assert_eq!(traffic(""), (0, 0));
    }

    #[test]
    fn percentages() {
        let at = Instant::now();
        let first =
            Sample { at, cpu: 0, memory: 1, limit: 4, received: 0, sent: 0, read: 0, written: 0, pids: 1 };
        let second = Sample { at: at + Duration::from_millis(500), cpu: 1_000_000_000, ..first.clone() };
        assert_eq!((second.cpu_since(&first), first.cpu_since(&first)), (200.0, 0.0));
        assert_eq!(second.memory_percent(), 25.0);
    }
}
