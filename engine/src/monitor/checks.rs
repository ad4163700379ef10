//! Health checks, on the monitor's side: starts each as a process, reads its output, and kills it when it takes too long.

use crate::container::Owned;
use crate::health::{CHECK, CheckResult, Health, HealthStatus, MOST_OUTPUT, Schedule};
use crate::record::now;
use kiln_runtime::cgroup::Groups;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Most reads of a check's output before other events are looked at.
const READS: usize = 16;
/// Longest time in which a check that was killed ends, unless a system call holds it.
const MOMENT: Duration = Duration::from_secs(1);

/// Checks of a container whose program runs.
pub(super) struct Checks {
    schedule: Schedule,
    /// Arguments of the program that runs a check.
    arguments: [OsString; 3],
    /// Directory of the container.
    dir: PathBuf,
    groups: Option<Groups>,
    health: Health,
    started: Instant,
    due: Instant,
    running: Option<Check>,
}

/// A check that runs.
struct Check {
    child: Child,
    pidfd: OwnedFd,
    /// `None` when all writers have closed it.
    output: Option<OwnedFd>,
    kept: Vec<u8>,
    /// True when more was written than is kept.
    is_cut: bool,
    began: Instant,
    start: String,
    is_late: bool,
}

impl Checks {
    /// The checks of a program that is about to start; `None` for a container without a health check.
    pub(super) fn of(owned: &Owned) -> Option<Checks> {
        let schedule = owned.container.settings.schedule()?;
        let health = Health::begin(&owned.dir());
        // Without the file the container counts as starting.
        let _ = health.write(&owned.dir());
        let arguments = [CHECK.into(), owned.records.root.clone().into(), owned.container.id.clone().into()];
        let now = Instant::now();
        Some(Checks {
            schedule,
            arguments,
            dir: owned.dir(),
            groups: None,
            health,
            started: now,
            due: now,
            running: None,
        })
    }

    /// Begins: the program has started at `since`.
    pub(super) fn begin(&mut self, owned: &Owned, since: Instant) {
        self.groups.clone_from(&owned.container.groups);
        self.started = since;
        self.put_off(since);
    }

    fn put_off(&mut self, now: Instant) {
        self.due = now + self.schedule.delay(self.health.status, now - self.started);
    }

    fn is_frozen(&self) -> bool {
        self.groups.as_ref().is_some_and(Groups::is_frozen)
    }

    /// Descriptors that are readable when [`Checks::act`] has something to do.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let running = self.running.iter();
        running
            .flat_map(|check| [Some(check.pidfd.as_fd()), check.output.as_ref().map(AsFd::as_fd)])
            .flatten()
    }

    /// Time until [`Checks::act`] has something to do; `None` when a descriptor shows it.
    pub(super) fn patience(&self) -> Option<Duration> {
        let at = match &self.running {
            None => self.due,
            Some(check) if check.is_late => return None,
            Some(check) => check.began + self.schedule.timeout,
        };
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// Starts a check that is due, or goes on with the one that runs. Returns the new status when it has changed.
    pub(super) fn act(&mut self) -> Option<HealthStatus> {
        let now = Instant::now();
        let Some(check) = &mut self.running else {
            return if now < self.due { None } else { self.start(now) };
        };
        check.read();
        if check.has_ended(Duration::ZERO) {
            let check = self.running.take()?;
            let began = check.began;
            let result = check.result(self.schedule.timeout);
            // A check that failed because it was frozen shows nothing about the program.
            let counts = result.exit_code == 0 || !self.is_frozen();
            self.put_off(Instant::now());
            return if counts { self.add(result, began) } else { None };
        }
        if !check.is_late && now >= check.began + self.schedule.timeout {
            check.is_late = true;
            let _ = check.child.kill();
        }
        None
    }

    fn start(&mut self, now: Instant) -> Option<HealthStatus> {
        if self.is_frozen() {
            self.put_off(now);
            return None;
        }
        match Check::start(&self.arguments, now) {
            Ok(check) => {
                self.running = Some(check);
                None
            }
            Err(error) => {
                self.put_off(now);
                let time = crate::record::now();
                let output = format!("cannot start the check: {error}");
                self.add(CheckResult { start: time.clone(), end: time, exit_code: -1, output }, now)
            }
        }
    }

    fn add(&mut self, result: CheckResult, began: Instant) -> Option<HealthStatus> {
        let before = self.health.status;
        self.health.add(result, &self.schedule, began - self.started);
        // If this write fails (the disk is full), the file is gone, and the next check writes it again.
        let _ = self.health.write(&self.dir);
        Some(self.health.status).filter(|status| *status != before)
    }
}

impl Check {
    fn start(arguments: &[OsString], now_here: Instant) -> io::Result<Check> {
        let (output, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(arguments).stdin(Stdio::null()).stdout(theirs.try_clone()?).stderr(theirs);
        let start = now();
        let mut child = command.spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Check {
                child,
                pidfd,
                output: Some(output),
                kept: Vec::new(),
                is_cut: false,
                began: now_here,
                start,
                is_late: false,
            }),
            Err(errno) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(errno.into())
            }
        }
    }

    /// Reads output that is there: the first part is kept.
    fn read(&mut self) {
        let mut buffer = [0u8; MOST_OUTPUT];
        for _ in 0..READS {
            let Some(output) = &self.output else { return };
            match rustix::io::read(output, &mut buffer) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(0) | Err(_) => self.output = None,
                Ok(length) => {
                    let room = MOST_OUTPUT - self.kept.len();
                    self.kept.extend_from_slice(&buffer[..length.min(room)]);
                    self.is_cut |= length > room;
                }
            }
        }
    }

    /// True when the process has ended, within `patience`.
    fn has_ended(&self, patience: Duration) -> bool {
        let time = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        matches!(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&time)), Ok(1..))
    }

    /// The result of a check that has ended.
    fn result(mut self, timeout: Duration) -> CheckResult {
        self.read();
        let code = self.child.wait().ok().and_then(|status| status.code()).filter(|_| !self.is_late);
        let mut output = String::from_utf8_lossy(&self.kept).into_owned();
        if self.is_cut {
            output.push_str("...");
        }
        if self.is_late {
            let colon = if output.is_empty() { "" } else { ": " };
            output = format!("Health check exceeded timeout ({}){colon}{output}", in_go(timeout));
        }
        CheckResult { start: self.start.clone(), end: now(), exit_code: code.unwrap_or(-1), output }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        // After the program's end its check is of no interest.
        let _ = self.child.kill();
        if self.has_ended(MOMENT) {
            let _ = self.child.wait();
        }
    }
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `20ms`.
fn in_go(time: Duration) -> String {
    let trimmed = |number: f64| {
        let text = format!("{number:.9}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if time < Duration::from_secs(1) {
        return format!("{}ms", trimmed(time.as_secs_f64() * 1000.0));
    }
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs_f64() % 60.0);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{}s", trimmed(seconds)),
        (0, minutes) => format!("{minutes}m{}s", trimmed(seconds)),
        (hours, minutes) => format!("{hours}h{minutes}m{}s", trimmed(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        let check = |millis, expected: &str| assert_eq!(in_go(Duration::from_millis(millis)), expected);
        check(20, "20ms");
        check(1500, "1.5s");
        check(3000, "3s");
        check(90_000, "1m30s");
        check(3_600_000, "1h0m0s");
    }
}
