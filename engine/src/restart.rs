//! Restart policies: whether and when a program whose end was not asked for is started again. Pure.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// First delay before a restart; it doubles with each quick end (moby `restartmanager`).
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest delay before a restart.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A program that ran this long starts with the first delay again.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// Policy of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// The program is not started again.
    #[default]
    No,
    /// It is started again whenever it ends, and at boot.
    Always,
    /// As always, but not at boot when the user has stopped it.
    UnlessStopped,
    /// It is started again when its exit code is not 0, at most `most` times; 0 for any number.
    OnFailure {
        /// Largest number of restarts.
        most: u32,
    },
}

/// Text that is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The name is unknown.
    #[error(
        "invalid restart policy: unknown policy '{0}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    )]
    Unknown(String),
    /// Only `on-failure` has a number of retries.
    #[error("invalid restart policy: maximum retry count can only be used with 'on-failure'")]
    Count,
    /// The number of retries is not a number.
    #[error("invalid restart policy format: maximum retry count must be an integer")]
    Number,
    /// The number of retries is negative.
    #[error("invalid restart policy: maximum retry count cannot be negative")]
    Negative,
}

impl RestartPolicy {
    /// Parses a policy as on the command line: `NAME` or `on-failure:N`.
    ///
    /// # Errors
    /// Fails for unknown names and for counts that are no numbers, or that belong to other policies.
    pub fn parse(text: &str) -> Result<RestartPolicy, PolicyError> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        let count = match count {
            Some(count) => Some(count.parse::<i64>().map_err(|_| PolicyError::Number)?),
            None => None,
        };
        let policy = match name {
            "" | "no" => RestartPolicy::No,
            "always" => RestartPolicy::Always,
            "unless-stopped" => RestartPolicy::UnlessStopped,
            "on-failure" => {
                let count = u64::try_from(count.unwrap_or(0)).map_err(|_| PolicyError::Negative)?;
                // More restarts than this never happen.
                let most = u32::try_from(count).unwrap_or(u32::MAX);
                return Ok(RestartPolicy::OnFailure { most });
            }
            _ => return Err(PolicyError::Unknown(name.to_owned())),
        };
        match count {
            Some(count) if count != 0 => Err(PolicyError::Count),
            _ => Ok(policy),
        }
    }

    /// Name in Docker's output.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
            RestartPolicy::OnFailure { .. } => "on-failure",
        }
    }

    /// True when a container with this policy is started at boot; `is_stopped` when the user has stopped it before.
    pub fn starts_at_boot(self, is_stopped: bool) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !is_stopped,
            RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
        }
    }

    /// Number of restarts that the policy allows; 0 for any number.
    pub fn most(self) -> u32 {
        match self {
            RestartPolicy::OnFailure { most } => most,
            _ => 0,
        }
    }
}

/// Delays between restarts of one container.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// Delay before the program is started again after it ran for `ran` and ended with `code`; `None` when it is not
    /// started again. `count` is the number of restarts so far.
    pub(crate) fn next(
        &mut self,
        policy: RestartPolicy,
        ran: Duration,
        code: i32,
        count: u32,
    ) -> Option<Duration> {
        let is_due = match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { most } => code != 0 && (most == 0 || count < most),
        };
        let delay = match self.last {
            Some(last) if ran < LONG_ENOUGH => (last * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        self.last = Some(delay);
        is_due.then_some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_parsed_as_in_the_reference() {
        let check = |text: &str, expected| assert_eq!(RestartPolicy::parse(text), expected, "{text}");
        check("no", Ok(RestartPolicy::No));
        check("", Ok(RestartPolicy::No));
        check("always", Ok(RestartPolicy::Always));
        check("unless-stopped", Ok(RestartPolicy::UnlessStopped));
        check("on-failure", Ok(RestartPolicy::OnFailure { most: 0 }));
        check("on-failure:3", Ok(RestartPolicy::OnFailure { most: 3 }));
        check("on-failure:x", Err(PolicyError::Number));
        check("on-failure:-1", Err(PolicyError::Negative));
        check("on-failure:99999999999", Ok(RestartPolicy::OnFailure { most: u32::MAX }));
        check("always:2", Err(PolicyError::Count));
        check("sometimes", Err(PolicyError::Unknown("sometimes".to_owned())));
    }

    #[test]
    fn delays_double_and_begin_anew_after_a_long_run() {
        let mut backoff = Backoff::default();
        let mut next = |ran| backoff.next(RestartPolicy::Always, Duration::from_secs(ran), 0, 0).unwrap();
        let delays: Vec<u128> = (0..12).map(|_| next(1).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(next(10).as_millis(), 100);
        assert_eq!(next(9).as_millis(), 200);
    }

    #[test]
    fn policies_decide_about_starts_at_boot() {
        let at_boot = |text| {
            let policy = RestartPolicy::parse(text).unwrap();
            [policy.starts_at_boot(false), policy.starts_at_boot(true)]
        };
        assert_eq!(at_boot("always"), [true, true]);
        assert_eq!(at_boot("unless-stopped"), [true, false]);
        assert_eq!(at_boot("no"), [false, false]);
        assert_eq!(at_boot("on-failure:3"), [false, false]);
    }

    #[test]
    fn only_failures_count_for_on_failure() {
        let policy = RestartPolicy::OnFailure { most: 2 };
        let due = |code, count| Backoff::default().next(policy, Duration::ZERO, code, count).is_some();
        assert_eq!([due(0, 0), due(1, 0), due(1, 1), due(1, 2)], [false, true, true, false]);
        let any = RestartPolicy::OnFailure { most: 0 };
        assert!(Backoff::default().next(any, Duration::ZERO, 1, 1000).is_some());
        assert!(Backoff::default().next(RestartPolicy::No, Duration::ZERO, 1, 0).is_none());
    }
}
