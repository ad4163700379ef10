//! Processes of a container, as /proc describes them (proc(5)).

use crate::error::EngineError;
use crate::exec::Live;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Ticks of the kernel's clock in a second, as programs see them (`USER_HZ`).
const TICKS: u64 = 100;
/// Size of a page in bytes.
const PAGE: u64 = 4096;

/// A process of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Pid in the host's pid namespace.
    pub pid: i32,
    /// Pid of its parent; 0 for none.
    pub parent: i32,
    /// Process group by its id.
    pub group: i32,
    /// Session of the process.
    pub session: i32,
    /// Effective uid, in the host's user namespace.
    pub uid: u32,
    /// Effective gid, in the host's user namespace.
    pub gid: u32,
    /// State as a letter, such as `S`.
    pub state: char,
    /// Number of its controlling terminal; 0 for none.
    pub terminal: u32,
    /// Used processor time in seconds.
    pub cpu: u64,
    /// Start in hundredths of a second since boot.
    pub started: u64,
    /// Nice value of the process.
    pub nice: i32,
    /// Number of its threads.
    pub threads: u32,
    /// Virtual memory in bytes.
    pub memory: u64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Name of its program, cut by the kernel.
    pub name: String,
    /// Arguments with blanks between; the name in brackets when there are none.
    pub command: String,
}

/// Boot time and uptime of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BootClock {
    /// Boot in seconds since 1970.
    pub boot: i64,
    /// Time since boot in seconds.
    pub uptime: f64,
    /// Memory of the host in bytes.
    pub memory: u64,
}

impl BootClock {
    /// Reads the clock and the size of the memory.
    pub fn read() -> BootClock {
        let line = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next().map(str::to_owned))
        };
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        BootClock {
            boot: line("/proc/stat", "btime ").and_then(|word| word.parse().ok()).unwrap_or_default(),
            uptime: uptime.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default(),
            memory: line("/proc/meminfo", "MemTotal:").and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
                * 1024,
        }
    }
}

impl Live {
    /// All processes of the container, sorted by pid. Those that end meanwhile are left out.
    ///
    /// # Errors
    /// [`EngineError::UnknownCgroups`] for a container that an older version started.
    pub fn processes(&self) -> Result<Vec<ProcessInfo>, EngineError> {
        let groups = self.groups()?;
        let pids = if groups.is_none() { vec![self.pid] } else { groups.processes()? };
        Ok(pids.into_iter().filter_map(ProcessInfo::read).collect())
    }
}

impl ProcessInfo {
    /// Reads the description of a process; `None` when it has ended.
    pub fn read(pid: i32) -> Option<ProcessInfo> {
        let dir = format!("/proc/{pid}");
        let owner = fs::metadata(&dir).ok()?;
        let stat = fs::read(format!("{dir}/stat")).ok()?;
        let command = fs::read(format!("{dir}/cmdline")).unwrap_or_default();
        let mut info = ProcessInfo::parse(&String::from_utf8_lossy(&stat))?;
        (info.uid, info.gid) = (owner.uid(), owner.gid());
        let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
        info.command = if command.is_empty() { format!("[{}]", info.name) } else { command };
        Some(info)
    }

    /// Parses the text of `/proc/PID/stat`.
    fn parse(stat: &str) -> Option<ProcessInfo> {
        // The name may contain blanks and parentheses.
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
        let positive = |field: usize| u64::try_from(number(field)?).ok();
        Some(ProcessInfo {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: number(4)? as i32,
            group: number(5)? as i32,
            session: number(6)? as i32,
            terminal: number(7)? as u32,
            cpu: (positive(14)? + positive(15)?) / TICKS,
            nice: number(19)? as i32,
            threads: positive(20)? as u32,
            started: positive(22)?,
            memory: positive(23)?,
            resident: positive(24)? * PAGE,
            ..ProcessInfo::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_parentheses() {
        let stat = "42 (a) (b c) S 1 42 42 34816 42 4194304 100 0 0 0 250 150 0 0 20 -5 3 0 1234 8192 2 x";
        let info = ProcessInfo::parse(stat).unwrap();
        assert_eq!((info.pid, info.name.as_str(), info.state, info.parent), (42, "a) (b c", 'S', 1));
        assert_eq!((info.cpu, info.nice, info.threads, info.started), (4, -5, 3, 1234));
        assert_eq!((info.memory, info.resident, info.terminal), (8192, 8192, 34816));
        assert_eq!(ProcessInfo::parse("42 (a"), None);
    }

    #[test]
    fn this_process_is_described() {
        let own = ProcessInfo::read(std::process::id() as i32).unwrap();
        assert!(own.resident > 0 && !own.command.is_empty());
        assert!(BootClock::read().boot > 0 && BootClock::read().memory > 0);
    }
}
