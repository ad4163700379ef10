//! Columns of `kiln top`, with the names and forms of ps(1).

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kiln_engine::{BootClock, ProcessInfo};
use std::collections::BTreeMap;
use std::fs;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    User,
    Uid,
    Gid,
    Pid,
    Parent,
    Group,
    Session,
    Cpu,
    CpuPercent,
    MemoryPercent,
    Virtual,
    Resident,
    Terminal,
    State,
    StateLetter,
    Started,
    Time,
    Elapsed,
    Nice,
    Threads,
    Program,
    Command,
}

/// Names of columns, and the heads that differ from the name in capitals.
const NAMES: [(&str, Column, &str); 37] = [
    ("user", Column::User, ""),
    ("euser", Column::User, ""),
    ("ruser", Column::User, ""),
    ("uname", Column::User, "USER"),
    ("uid", Column::Uid, ""),
    ("euid", Column::Uid, ""),
    ("gid", Column::Gid, ""),
    ("egid", Column::Gid, ""),
    ("pid", Column::Pid, ""),
    ("tgid", Column::Pid, ""),
    ("ppid", Column::Parent, ""),
    ("pgid", Column::Group, ""),
    ("pgrp", Column::Group, ""),
    ("sid", Column::Session, ""),
    ("c", Column::Cpu, ""),
    ("pcpu", Column::CpuPercent, "%CPU"),
    ("%cpu", Column::CpuPercent, ""),
    ("pmem", Column::MemoryPercent, "%MEM"),
    ("%mem", Column::MemoryPercent, ""),
    ("vsz", Column::Virtual, ""),
    ("vsize", Column::Virtual, "VSZ"),
    ("rss", Column::Resident, ""),
    ("tty", Column::Terminal, "TT"),
    ("tt", Column::Terminal, ""),
    ("tname", Column::Terminal, "TTY"),
    ("stat", Column::State, ""),
    ("s", Column::StateLetter, ""),
    ("state", Column::StateLetter, "S"),
    ("start", Column::Started, "STARTED"),
    ("stime", Column::Started, ""),
    ("time", Column::Time, ""),
    ("etime", Column::Elapsed, "ELAPSED"),
    ("ni", Column::Nice, ""),
    ("nlwp", Column::Threads, ""),
    ("comm", Column::Program, "COMMAND"),
    ("cmd", Column::Command, ""),
    ("args", Column::Command, "COMMAND"),
];

/// What columns need to know of the host.
pub(super) struct Host {
    clock: BootClock,
    now: Timestamp,
    zone: TimeZone,
    users: BTreeMap<u32, String>,
}

impl Host {
    pub(super) fn read() -> Host {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        let local = fs::read("/etc/localtime").ok().and_then(|bytes| TimeZone::tzif("local", &bytes).ok());
        Host {
            clock: BootClock::read(),
            now: Timestamp::now(),
            zone: local.unwrap_or(TimeZone::UTC),
            users: passwd.lines().filter_map(user).collect(),
        }
    }
}

impl Column {
    /// Column of a name in lower case; `None` when there is none.
    pub(super) fn named(name: &str) -> Option<Column> {
        let name = if name == "command" { "args" } else { name };
        NAMES.iter().find(|(known, _, _)| *known == name).map(|(_, column, _)| *column)
    }

    /// Names that users may write.
    pub(super) fn names() -> String {
        NAMES.map(|(name, _, _)| name).join(",")
    }

    /// Head of the column under the name that was asked for; a name in capitals is one.
    pub(super) fn head(self, name: &str) -> String {
        if name.chars().any(char::is_uppercase) {
            return name.to_owned();
        }
        let known = NAMES.iter().find(|(known, _, _)| *known == name).map_or("", |(_, _, head)| head);
        if known.is_empty() { name.to_uppercase() } else { known.to_owned() }
    }

    /// Cell of a process.
    pub(super) fn show(self, process: &ProcessInfo, host: &Host) -> String {
        let elapsed = (host.clock.uptime - process.started as f64 / 100.0).max(0.0);
        let percent = |part: f64, whole: f64| if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
        let used = percent(process.cpu as f64, elapsed);
        match self {
            Column::User => host.users.get(&process.uid).cloned().unwrap_or_else(|| process.uid.to_string()),
            Column::Uid => process.uid.to_string(),
            Column::Gid => process.gid.to_string(),
            Column::Pid => process.pid.to_string(),
            Column::Parent => process.parent.to_string(),
            Column::Group => process.group.to_string(),
            Column::Session => process.session.to_string(),
            Column::Cpu => format!("{}", used.min(99.0) as u64),
            Column::CpuPercent => format!("{used:.1}"),
            Column::MemoryPercent => {
                format!("{:.1}", percent(process.resident as f64, host.clock.memory as f64))
            }
            Column::Virtual => (process.memory / 1024).to_string(),
            Column::Resident => (process.resident / 1024).to_string(),
            Column::Terminal => terminal(process.terminal),
            Column::State => state(process),
            Column::StateLetter => process.state.to_string(),
            Column::Started => started(process, host),
            Column::Time => clock(process.cpu, true),
            Column::Elapsed => clock(elapsed as u64, elapsed >= 3600.0),
            Column::Nice => process.nice.to_string(),
            Column::Threads => process.threads.to_string(),
            Column::Program => process.name.clone(),
            Column::Command => process.command.clone(),
        }
    }
}

/// Letter of the state, with those of ps for priority, session and threads.
fn state(process: &ProcessInfo) -> String {
    let more = [
        (process.nice < 0, '<'),
        (process.nice > 0, 'N'),
        (process.session == process.pid, 's'),
        (process.threads > 1, 'l'),
    ];
    std::iter::once(process.state)
        .chain(more.into_iter().filter_map(|(is, letter)| is.then_some(letter)))
        .collect()
}

/// Name of a terminal by its device number (`include/linux/kdev_t.h`).
fn terminal(device: u32) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        0 => "?".to_owned(),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        5 if minor == 1 => "console".to_owned(),
        136..144 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    }
}

/// Hour and minute of a start today, else the day.
fn started(process: &ProcessInfo, host: &Host) -> String {
    let seconds = host.clock.boot.saturating_add((process.started / 100) as i64);
    let Ok(start) = Timestamp::from_second(seconds) else { return "?".to_owned() };
    let (start, now) = (start.to_zoned(host.zone.clone()), host.now.to_zoned(host.zone.clone()));
    let form = match (start.date() == now.date(), start.year() == now.year()) {
        (true, _) => "%H:%M",
        (false, true) => "%b%d",
        (false, false) => "%Y",
    };
    start.strftime(form).to_string()
}

/// `[DAYS-]HH:MM:SS`; without `hours`, `MM:SS`.
fn clock(seconds: u64, hours: bool) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    if hours {
        format!("{days}{hour:02}:{minute:02}:{second:02}")
    } else {
        format!("{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            clock: BootClock { boot: 1000, uptime: 500.0, memory: 1 << 20 },
            now: Timestamp::from_second(1500).unwrap(),
            zone: TimeZone::UTC,
            users: BTreeMap::from([(0, "root".to_owned())]),
        }
    }

    #[test]
    fn cells_have_the_forms_of_ps() {
        let process = ProcessInfo {
            pid: 7,
            session: 7,
            state: 'S',
            terminal: 136 << 8 | 3,
            cpu: 90_061,
            started: 10_000,
            threads: 2,
            resident: 1 << 19,
            ..ProcessInfo::default()
        };
        let show = |column: Column| column.show(&process, &host());
        for (column, expected) in [
            (Column::User, "root"),
            (Column::Terminal, "pts/3"),
            (Column::State, "Ssl"),
            (Column::Time, "1-01:01:01"),
            (Column::Elapsed, "06:40"),
            (Column::Started, "00:18"),
            (Column::MemoryPercent, "50.0"),
            (Column::Cpu, "99"),
        ] {
            assert_eq!(show(column), expected, "{column:?}");
        }
        assert_eq!((terminal(0), terminal(4 << 8 | 1)), ("?".to_owned(), "tty1".to_owned()));
    }

    #[test]
    fn heads_are_those_of_ps() {
        for (name, head) in
            [("UID", "UID"), ("pid", "PID"), ("pcpu", "%CPU"), ("command", "COMMAND"), ("cmd", "CMD")]
        {
            assert_eq!(Column::named(&name.to_lowercase()).unwrap().head(name), head);
        }
    }
}
