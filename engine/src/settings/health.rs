//! Health checks of a container: those of its image, changed by its user.

use kiln_image::config::Healthcheck;

/// Least time between two checks, in nanoseconds.
const LEAST: i64 = 1_000_000;

/// Changes to the image's health check; times in nanoseconds, 0 and empty for the image's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthOptions {
    /// True when the container has no health check.
    pub none: bool,
    /// Command for the shell.
    pub command: String,
    /// Time between two checks.
    pub interval: i64,
    /// Longest time of a check.
    pub timeout: i64,
    /// Time after the start in which failures do not count.
    pub start_period: i64,
    /// Time between checks in that time.
    pub start_interval: i64,
    /// Number of failures after which the container is unhealthy.
    pub retries: i64,
}

/// A health check that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthError {
    /// Options of a health check that is switched off.
    #[error("--no-healthcheck conflicts with --health-* options")]
    Conflict,
    /// A negative time or number.
    #[error("--health-{0} cannot be negative")]
    Negative(&'static str),
    /// A time that is too short.
    #[error("{0} in Healthcheck cannot be less than 1ms")]
    Short(&'static str),
}

impl HealthOptions {
    /// Checks the times and the number.
    ///
    /// # Errors
    /// Fails for negative and for very short times, and for options of a health check that is switched off.
    pub fn check(&self) -> Result<(), HealthError> {
        if self.none && *self != (HealthOptions { none: true, ..HealthOptions::default() }) {
            return Err(HealthError::Conflict);
        }
        for (time, flag, name) in [
            (self.interval, "interval", "Interval"),
            (self.timeout, "timeout", "Timeout"),
            (self.start_period, "start-period", "StartPeriod"),
            (self.start_interval, "start-interval", "StartInterval"),
        ] {
            if time < 0 {
                return Err(HealthError::Negative(flag));
            }
            if time != 0 && time < LEAST {
                return Err(HealthError::Short(name));
            }
        }
        if self.retries < 0 { Err(HealthError::Negative("retries")) } else { Ok(()) }
    }

    /// Health check of a container; `None` when neither the image nor the user specifies one.
    pub(crate) fn merged(&self, image: Option<&Healthcheck>) -> Option<Healthcheck> {
        if self.none {
            return Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
        }
        if *self == HealthOptions::default() {
            return image.cloned();
        }
        let image = image.cloned().unwrap_or_default();
        let own = |own: i64, image: i64| if own == 0 { image } else { own };
        let test = match self.command.as_str() {
            "" => image.test,
            command => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        };
        Some(Healthcheck {
            test,
            interval: own(self.interval, image.interval),
            timeout: own(self.timeout, image.timeout),
            start_period: own(self.start_period, image.start_period),
            start_interval: own(self.start_interval, image.start_interval),
            retries: own(self.retries, image.retries),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_options_replace_single_fields_of_the_images() {
        let image = Healthcheck {
            test: vec!["CMD".into(), "x".into()],
            interval: 5 * LEAST,
            retries: 3,
            ..Healthcheck::default()
        };
        let own = HealthOptions { retries: 1, timeout: LEAST, ..HealthOptions::default() };
        let merged = own.merged(Some(&image)).unwrap();
        assert_eq!(
            (merged.test, merged.interval, merged.timeout, merged.retries),
            (image.test.clone(), 5 * LEAST, LEAST, 1)
        );
        assert_eq!(HealthOptions::default().merged(Some(&image)), Some(image.clone()));
        assert_eq!(HealthOptions::default().merged(None), None);
        let none = HealthOptions { none: true, ..HealthOptions::default() };
        assert_eq!(none.merged(Some(&image)).unwrap().test, ["NONE"]);
        let command = HealthOptions { command: "curl x".into(), ..HealthOptions::default() };
        assert_eq!(command.merged(None).unwrap().test, ["CMD-SHELL", "curl x"]);
    }

    #[test]
    fn contradictions_and_short_times_are_refused() {
        let options = |options: HealthOptions| options.check().unwrap_err().to_string();
        let none = HealthOptions { none: true, retries: 1, ..HealthOptions::default() };
        assert!(options(none).contains("conflicts with --health-* options"));
        let short = HealthOptions { interval: 1, ..HealthOptions::default() };
        assert!(options(short).contains("cannot be less than 1ms"));
        let negative = HealthOptions { retries: -1, ..HealthOptions::default() };
        assert!(options(negative).contains("--health-retries cannot be negative"));
    }
}
