//! Health of a container: the results of its checks, and the times of the next ones (moby `daemon/health.go`).
//!
//! The monitor writes `health.json` in the directory of the container after each check. It runs a check as another
//! process, which enters the container as `kiln exec` does ([`Records::check`]): a check that hangs, on its way into the
//! container or in it, keeps no output of the program waiting.

use crate::container::Records;
use crate::error::EngineError;
use crate::exec::ExecOptions;
use crate::record::{Container, State};
use crate::settings::Settings;
use crate::start::Stdio;
use kiln_image::config::Healthcheck;
use kiln_image::sys::{CallError, Named};
use kiln_runtime::Spawner;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// First argument of a program that runs one check: the root of the store and the id of the container follow.
pub const CHECK: &str = "container-check";
/// Name of the file in a container's directory.
pub(crate) const FILE: &str = "health.json";
/// Number of results that are kept.
const MOST_RESULTS: usize = 5;
/// Most bytes of a check's output that are kept.
pub(crate) const MOST_OUTPUT: usize = 4096;
/// Time between two checks, and the longest time of one, unless the container has others.
const USUAL: Duration = Duration::from_secs(30);
/// Time between two checks in the start period.
const USUAL_AT_START: Duration = Duration::from_secs(5);
/// Number of failures after which a container is unhealthy.
const USUAL_RETRIES: u32 = 3;

/// Summary of the checks of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has succeeded since the start, and few have failed.
    #[default]
    Starting,
    /// The last check succeeded, or few have failed since the last success.
    Healthy,
    /// Many checks in a row have failed, or the program does not run.
    Unhealthy,
}

impl HealthStatus {
    /// Name in Docker's output.
    pub fn name(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// Health of a container, in Docker's JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// Summary of the checks.
    pub status: HealthStatus,
    /// Number of failures since the last success.
    pub failing_streak: u32,
    /// The last results, the oldest first.
    pub log: Vec<CheckResult>,
}

/// Result of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CheckResult {
    /// Time of its start, RFC 3339.
    pub start: String,
    /// Time of its end, RFC 3339.
    pub end: String,
    /// Exit code: 0 for healthy, -1 for a check that was not carried out, or not in time.
    pub exit_code: i32,
    /// What it printed, or why it was not carried out.
    pub output: String,
}

/// Times and numbers of a container's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    interval: Duration,
    pub(crate) timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Schedule {
    pub(crate) fn new(check: &Healthcheck) -> Schedule {
        let time = |nanos: i64, usual| match u64::try_from(nanos) {
            Ok(0) | Err(_) => usual,
            Ok(nanos) => Duration::from_nanos(nanos),
        };
        Schedule {
            interval: time(check.interval, USUAL),
            timeout: time(check.timeout, USUAL),
            start_period: time(check.start_period, Duration::ZERO),
            start_interval: time(check.start_interval, USUAL_AT_START),
            retries: u32::try_from(check.retries).ok().filter(|n| *n > 0).unwrap_or(USUAL_RETRIES),
        }
    }

    /// Time until the next check of a program that has run for `ran`.
    pub(crate) fn delay(&self, status: HealthStatus, ran: Duration) -> Duration {
        let is_early = ran < self.start_period && status == HealthStatus::Starting;
        if is_early { self.start_interval } else { self.interval }
    }
}

impl Health {
    /// Health at a new start of the program: earlier results stay.
    pub(crate) fn begin(dir: &Path) -> Health {
        let log = Health::read(dir).unwrap_or_default().log;
        Health { log, ..Health::default() }
    }

    /// Adds the result of a check that began when the program had run for `ran`.
    pub(crate) fn add(&mut self, result: CheckResult, schedule: &Schedule, ran: Duration) {
        let has_failed = result.exit_code != 0;
        self.log.push(result);
        let old = self.log.len().saturating_sub(MOST_RESULTS);
        self.log.drain(..old);
        if !has_failed {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting || ran >= schedule.start_period {
            self.failing_streak += 1;
            if self.failing_streak >= schedule.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
    }

    /// Writes the file in a container's directory. One that cannot be written is removed: an old one would be wrong.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), CallError> {
        let (new, path) = (dir.join(format!("{FILE}.new")), dir.join(FILE));
        let bytes = serde_json::to_vec(self).expect("health is made of texts and numbers");
        let written = fs::write(&new, bytes).call("write", &new);
        let written = written.and_then(|()| fs::rename(&new, &path).call("rename", &path));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Reads the file in a container's directory. `None` when there is none, or a damaged one.
    fn read(dir: &Path) -> Option<Health> {
        serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
    }
}

impl Settings {
    /// Times and numbers of the health check; `None` without one.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        self.check_arguments()?;
        self.health.as_ref().map(Schedule::new)
    }

    /// Program of the health check and its arguments; `None` without one.
    pub(crate) fn check_arguments(&self) -> Option<Vec<String>> {
        let (kind, arguments) = self.health.as_ref()?.test.split_first()?;
        match kind.as_str() {
            "CMD" => Some(arguments.to_vec()).filter(|arguments| !arguments.is_empty()),
            "CMD-SHELL" => {
                let usual = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = if self.shell.is_empty() { usual() } else { self.shell.clone() };
                Some(shell.into_iter().chain(arguments.iter().cloned()).collect())
            }
            _ => None,
        }
    }
}

impl Records {
    /// Health of a container; `None` without a health check, and before its first start. That of a container that does
    /// not run is unhealthy, as in the reference.
    pub fn health(&self, container: &Container) -> Option<Health> {
        container.settings.check_arguments()?;
        let read = Health::read(&self.dir_of(container));
        match container.state {
            State::Running { .. } => Some(read.unwrap_or_default()),
            _ => read.map(|health| Health { status: HealthStatus::Unhealthy, ..health }),
        }
    }

    /// Runs the health check of a container once; returns its exit code.
    ///
    /// The caller's own file must be sealed (`kiln_runtime::seal`): until the check runs, processes of the container see it.
    ///
    /// # Errors
    /// Fails when the container does not run, is paused or has no check, and when the check cannot be started.
    pub fn check(&self, id: &str, spawner: &Spawner, stdio: &Stdio<'_>) -> Result<i32, EngineError> {
        let missing = || EngineError::NoSuchContainer(id.to_owned());
        let container = self.read(id)?.ok_or_else(missing)?;
        let arguments = container.settings.check_arguments().ok_or_else(missing)?;
        let options = ExecOptions { arguments, ..ExecOptions::default() };
        let mut process = self.live(&container)?.exec(&options, spawner, stdio)?;
        Ok(process.wait()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn schedule(start_period: i64, retries: i64) -> Schedule {
        Schedule::new(&Healthcheck { start_period: start_period * SECOND, retries, ..Healthcheck::default() })
    }

    fn result(exit_code: i32) -> CheckResult {
        CheckResult { exit_code, ..CheckResult::default() }
    }

    /// Status and streak after checks that begin a second apart, the first one second after the start.
    fn after(schedule: &Schedule, codes: &[i32]) -> (HealthStatus, u32) {
        let mut health = Health::default();
        for (second, code) in (1..).zip(codes) {
            health.add(result(*code), schedule, Duration::from_secs(second));
        }
        (health.status, health.failing_streak)
    }

    #[test]
    fn failures_in_a_row_make_a_container_unhealthy() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let usual = schedule(0, 0);
        assert_eq!(after(&usual, &[]), (Starting, 0));
        assert_eq!(after(&usual, &[1, 1]), (Starting, 2));
        assert_eq!(after(&usual, &[1, 1, -1]), (Unhealthy, 3));
        assert_eq!(after(&usual, &[1, 1, 0, 1, 1]), (Healthy, 2));
        assert_eq!(after(&usual, &[1, 1, 1, 1, 0]), (Healthy, 0));
        assert_eq!(after(&schedule(0, 1), &[0, 2]), (Unhealthy, 1));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let patient = schedule(4, 2);
        assert_eq!(after(&patient, &[1, 1, 1]), (Starting, 0));
        assert_eq!(after(&patient, &[1, 1, 1, 1]), (Starting, 1));
        assert_eq!(after(&patient, &[1, 1, 1, 1, 1]), (Unhealthy, 2));
        // After the first success they do.
        assert_eq!(after(&patient, &[0, 1]), (Healthy, 1));
        assert_eq!(after(&patient, &[0, 1, 1]), (Unhealthy, 2));
    }

    #[test]
    fn checks_are_frequent_until_the_first_success_in_the_start_period() {
        let check = Healthcheck {
            interval: 10 * SECOND,
            start_period: 4 * SECOND,
            start_interval: SECOND,
            ..Healthcheck::default()
        };
        let schedule = Schedule::new(&check);
        let delay = |status, second| schedule.delay(status, Duration::from_secs(second)).as_secs();
        assert_eq!(delay(HealthStatus::Starting, 0), 1);
        assert_eq!(delay(HealthStatus::Healthy, 1), 10);
        assert_eq!(delay(HealthStatus::Starting, 4), 10);
        let usual = Schedule::new(&Healthcheck::default());
        assert_eq!((usual.interval, usual.timeout, usual.retries), (USUAL, USUAL, 3));
    }

    #[test]
    fn the_last_five_results_are_kept_over_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut health = Health::begin(dir.path());
        let usual = schedule(0, 0);
        for code in 0..7 {
            health.add(result(code), &usual, Duration::ZERO);
        }
        health.write(dir.path()).unwrap();
        assert_eq!(Health::read(dir.path()), Some(health));
        let next = Health::begin(dir.path());
        assert_eq!((next.status, next.failing_streak), (HealthStatus::Starting, 0));
        assert_eq!(next.log.iter().map(|result| result.exit_code).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Health::read(dir.path()), None);
    }
}
