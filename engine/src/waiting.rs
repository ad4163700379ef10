//! Waiting for a state of a container: `kiln wait --condition`, `kiln run --wait`.
//!
//! Records and health are files that are replaced by a rename, so a watch on the container's directory shows each change;
//! its monitor sends the exit code of an end that leaves no record.

use crate::attached::{Attached, Event};
use crate::container::Records;
use crate::error::EngineError;
use crate::health::{Health, HealthStatus};
use crate::record::{Container, Listed, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::time::Instant;

/// State that is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// The program does not run.
    #[default]
    NotRunning,
    /// The program ends after the wait has begun.
    NextExit,
    /// The container does not exist any more.
    Removed,
    /// The program of the container runs.
    Running,
    /// All processes are frozen.
    Paused,
    /// The last health check succeeded.
    Healthy,
    /// Many health checks in a row have failed.
    Unhealthy,
    /// The container is healthy, or runs where it has no health check. It is not waited for after it has become unhealthy.
    Ready,
}

/// End of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The program has ended: exit code, or 128 plus the signal.
    Ended(i32),
    /// The container is in the state.
    Reached,
    /// The program has ended, with this exit code, before the state was reached.
    EndedBefore(i32),
    /// The container has become unhealthy instead.
    BecameUnhealthy(Health),
    /// The container was removed before the state was reached.
    Removed,
    /// The time for the wait is over.
    TimedOut,
}

/// What is known about a container while it is waited for.
#[derive(Clone, Copy)]
struct Seen<'a> {
    /// State when the wait began.
    first: &'a State,
    /// `None` once it has been removed.
    now: Option<&'a State>,
    health: Option<&'a Health>,
    /// Exit code of the last end since the wait has begun.
    ended: Option<i32>,
    /// True when the program ran since the wait has begun.
    has_run: bool,
}

impl Condition {
    /// The end of the wait; `None` while it goes on. Pure.
    fn decide(self, seen: &Seen<'_>) -> Option<Waited> {
        let gone = || Some(seen.ended.map_or(Waited::Removed, Waited::Ended));
        let Some(now) = seen.now else {
            return match self {
                Condition::Removed => Some(Waited::Ended(seen.ended.unwrap_or(seen.first.code()))),
                Condition::NotRunning | Condition::NextExit => gone(),
                _ => Some(seen.ended.map_or(Waited::Removed, Waited::EndedBefore)),
            };
        };
        let reached = |holds: bool| holds.then_some(Waited::Reached);
        let status = seen.health.map(|health| health.status).filter(|_| now.is_running());
        // One that is created is waited for: another command may start it.
        let missed = || match now {
            State::Exited { code, .. } => Some(Waited::EndedBefore(seen.ended.unwrap_or(*code))),
            _ => None,
        };
        match self {
            // As in the reference, an end before a restart counts.
            Condition::NotRunning | Condition::NextExit if seen.ended.is_some() => gone(),
            Condition::NotRunning => (!now.is_live()).then(|| Waited::Ended(now.code())),
            Condition::NextExit => {
                let end = finished(now).filter(|end| Some(*end) != finished(seen.first));
                end.map(|_| Waited::Ended(now.code()))
            }
            Condition::Removed => None,
            Condition::Running => reached(now.is_running()),
            Condition::Paused => {
                let is_paused = matches!(now, State::Running { paused: true, .. });
                reached(is_paused).or_else(|| missed().filter(|_| seen.has_run))
            }
            Condition::Healthy => reached(status == Some(HealthStatus::Healthy)).or_else(missed),
            Condition::Unhealthy => reached(status == Some(HealthStatus::Unhealthy)).or_else(missed),
            Condition::Ready => match (status, seen.health) {
                (Some(HealthStatus::Healthy), _) => Some(Waited::Reached),
                (Some(HealthStatus::Unhealthy), Some(health)) => {
                    Some(Waited::BecameUnhealthy(health.clone()))
                }
                (None, None) if now.is_running() => Some(Waited::Reached),
                _ => missed(),
            },
        }
    }

    /// True for conditions that a container without a health check never meets.
    fn needs_check(self) -> bool {
        matches!(self, Condition::Healthy | Condition::Unhealthy)
    }
}

/// Time of the last end.
fn finished(state: &State) -> Option<&str> {
    match state {
        State::Restarting { finished, .. } | State::Exited { finished, .. } => Some(finished),
        State::Created { .. } | State::Running { .. } => None,
    }
}

impl Records {
    /// Waits for a state of a container, at most until `deadline`.
    ///
    /// # Errors
    /// [`EngineError::NoHealthCheck`] when the condition is about its health, and failures to watch its directory.
    pub fn wait(
        &self,
        container: &Container,
        condition: Condition,
        deadline: Option<Instant>,
    ) -> Result<Waited, EngineError> {
        if condition.needs_check() && container.settings.check_arguments().is_none() {
            return Err(EngineError::NoHealthCheck(container.name.clone()));
        }
        let watch = self.watch(container)?;
        let (mut ended, mut has_run) = (None, false);
        let mut connection: Option<Attached> = None;
        loop {
            // Connected before the record is read: no end in between is missed.
            if connection.is_none() && watch.is_some() {
                let connected = self.connect(container)?;
                connection = connected.filter(|connection| connection.ask_for_end().is_ok());
            }
            let now = match self.look_at(&container.id) {
                Some(Listed::Sound(now)) => Some(now),
                Some(Listed::Damaged(damaged)) => return Err(damaged.reason.into()),
                None => None,
            };
            // A monitor removes the container before it reports the end.
            if let Some(socket) = connection.take_if(|_| now.is_none()) {
                ended = socket.wait().or(ended);
            }
            has_run |= now.as_ref().is_some_and(|now| now.state.is_live());
            let health = now.as_ref().and_then(|now| self.health(now));
            let now = now.as_deref();
            let state = now.map(|now| &now.state);
            let seen = Seen { first: &container.state, now: state, health: health.as_ref(), ended, has_run };
            if let Some(waited) = condition.decide(&seen) {
                return Ok(waited);
            }
            let live = now.and_then(|now| self.live(now).ok());
            let pidfd = live.as_ref().map(|live| live.pidfd().as_fd());
            // Without its monitor the program's own end is all there is.
            let pidfd = pidfd.filter(|_| connection.is_none());
            let mut polled: Vec<PollFd<'_>> = Vec::new();
            polled.extend(connection.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
            polled.extend(watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)));
            polled.extend(pidfd.map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN)));
            if !wait(&mut polled, deadline)? {
                return Ok(Waited::TimedOut);
            }
            let has_news = connection.is_some() && !polled[0].revents().is_empty();
            drop(polled);
            watch.iter().for_each(drain);
            if let Some(socket) = connection.as_ref().filter(|_| has_news) {
                match socket.next() {
                    Event::Exited { code, .. } => (ended, connection) = (Some(code), None),
                    Event::Gone => connection = None,
                    Event::Output(..) => {}
                }
            }
        }
    }

    /// A watch on the directory of a container; `None` when it has been removed.
    fn watch(&self, container: &Container) -> Result<Option<OwnedFd>, EngineError> {
        let failed = EngineError::Watch;
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let changes =
            WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        match inotify::add_watch(&watch, self.dir_of(container), changes) {
            Ok(_) => Ok(Some(watch)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// Waits for one of the descriptors; false when the time is over.
fn wait(polled: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, EngineError> {
    let left = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
    });
    match poll(polled, left.as_ref()) {
        Ok(0) => Ok(false),
        Ok(_) | Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(EngineError::Watch(errno)),
    }
}

fn drain(watch: &OwnedFd) {
    let mut buffer = [0u8; 4096];
    while rustix::io::read(watch, &mut buffer).is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::CheckResult;

    const CREATED: State = State::Created { error: None, code: 0 };

    fn running(paused: bool) -> State {
        State::Running {
            pid: 1,
            started: "1".into(),
            ticks: String::new(),
            boot: String::new(),
            paused,
            is_out_of_memory: false,
        }
    }

    fn exited(code: i32, finished: &str) -> State {
        let finished = finished.to_owned();
        State::Exited { code, started: "1".into(), finished, error: String::new(), is_out_of_memory: false }
    }

    fn restarting(code: i32) -> State {
        State::Restarting { code, started: "1".into(), finished: "2".into() }
    }

    fn seen<'a>(first: &'a State, now: Option<&'a State>) -> Seen<'a> {
        Seen { first, now, health: None, ended: None, has_run: true }
    }

    #[test]
    fn ends_are_those_of_the_record_or_of_the_monitor() {
        use Condition::{NextExit, NotRunning, Removed, Running};
        let (live, old, new) = (running(false), exited(3, "2"), exited(4, "9"));
        assert_eq!(NotRunning.decide(&seen(&live, Some(&live))), None);
        assert_eq!(NotRunning.decide(&seen(&CREATED, Some(&CREATED))), Some(Waited::Ended(0)));
        assert_eq!(NotRunning.decide(&seen(&live, Some(&old))), Some(Waited::Ended(3)));
        assert_eq!(NotRunning.decide(&seen(&live, Some(&restarting(5)))), None);
        let told = Seen { ended: Some(5), ..seen(&live, Some(&live)) };
        assert_eq!(
            [NotRunning, NextExit].map(|one| one.decide(&told)),
            [Some(Waited::Ended(5)), Some(Waited::Ended(5))]
        );
        assert_eq!(NextExit.decide(&seen(&old, Some(&old))), None);
        assert_eq!(NextExit.decide(&seen(&old, Some(&live))), None);
        assert_eq!(NextExit.decide(&seen(&old, Some(&new))), Some(Waited::Ended(4)));
        assert_eq!(Removed.decide(&seen(&old, Some(&old))), None);
        assert_eq!(Removed.decide(&seen(&old, None)), Some(Waited::Ended(3)));
        assert_eq!(NotRunning.decide(&seen(&live, None)), Some(Waited::Removed));
        assert_eq!(
            Running.decide(&Seen { ended: Some(1), ..seen(&live, None) }),
            Some(Waited::EndedBefore(1))
        );
    }

    #[test]
    fn states_of_a_running_container_are_reached_or_missed() {
        use Condition::{Healthy, Paused, Ready, Running, Unhealthy};
        let (live, ended) = (running(false), exited(3, "2"));
        let with = |status| Health { status, log: vec![CheckResult::default()], ..Health::default() };
        let (starting, good, ill) =
            (with(HealthStatus::Starting), with(HealthStatus::Healthy), with(HealthStatus::Unhealthy));
        let check = |condition: Condition, now: &State, health: Option<&Health>, expected: Option<Waited>| {
            let seen = Seen { health, ..seen(&CREATED, Some(now)) };
            assert_eq!(condition.decide(&seen), expected, "{condition:?} {now:?} {health:?}");
        };
        check(Running, &CREATED, None, None);
        check(Running, &live, None, Some(Waited::Reached));
        check(Running, &ended, None, None);
        check(Paused, &live, None, None);
        check(Paused, &running(true), None, Some(Waited::Reached));
        check(Paused, &ended, None, Some(Waited::EndedBefore(3)));
        check(Healthy, &live, Some(&starting), None);
        check(Healthy, &live, Some(&ill), None);
        check(Healthy, &live, Some(&good), Some(Waited::Reached));
        check(Healthy, &ended, Some(&good), Some(Waited::EndedBefore(3)));
        check(Unhealthy, &live, Some(&ill), Some(Waited::Reached));
        check(Ready, &live, None, Some(Waited::Reached));
        check(Ready, &live, Some(&starting), None);
        check(Ready, &live, Some(&good), Some(Waited::Reached));
        check(Ready, &live, Some(&ill), Some(Waited::BecameUnhealthy(ill.clone())));
        check(Ready, &restarting(1), Some(&ill), None);
        check(Ready, &ended, Some(&ill), Some(Waited::EndedBefore(3)));
    }
}
