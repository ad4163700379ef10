//! Flags for health checks, the end of a container, and notes about it; and flags that are refused.

use super::{read_env_file, refused};
use crate::error::{CliError, code};
use crate::times;
use clap::Args;
use kiln_engine::RunOptions;
use kiln_engine::settings::HealthOptions;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Health check, end and notes.
#[derive(Debug, Default, Args)]
pub(super) struct LifeFlags {
    /// Check the health of the container by this command of its shell
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Wait this time between two checks, such as 30s
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_interval: Option<String>,
    /// Fail a check after this time
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_timeout: Option<String>,
    /// Report the container as unhealthy after this number of failures
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    health_retries: Option<i64>,
    /// Ignore failures in this time after the start
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_period: Option<String>,
    /// Wait this time between two checks after the start
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_interval: Option<String>,
    /// Run no health check, also not the image's
    #[arg(long)]
    no_healthcheck: bool,
    /// Stop the container by this signal [default: the image's, or TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Kill the container after this time to stop; -1 for never [default: 10]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// Set an annotation of the container; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Read labels from FILE, one per line; may be repeated
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set the time zone, such as Europe/Paris, or local for this host's
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    runtime: Option<String>,
    #[arg(long, hide = true)]
    rootfs: bool,
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    isolation: Option<String>,
    #[arg(long, value_name = "NAME=VALUE", hide = true)]
    storage_opt: Vec<String>,
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(long, value_name = "NUMBER", hide = true)]
    cpu_count: Option<String>,
    #[arg(long, value_name = "NUMBER", hide = true)]
    cpu_percent: Option<String>,
    #[arg(long, value_name = "BYTES", hide = true)]
    io_maxbandwidth: Option<String>,
    #[arg(long, value_name = "NUMBER", hide = true)]
    io_maxiops: Option<String>,
}

impl LifeFlags {
    /// Adds the settings to the options.
    pub(super) fn add_to(&self, options: &mut RunOptions) -> Result<(), CliError> {
        self.refuse()?;
        let time =
            |flag: &str, text: &Option<String>| text.as_ref().map_or(Ok(0), |text| nanoseconds(flag, text));
        options.health = HealthOptions {
            none: self.no_healthcheck,
            command: self.health_cmd.clone().unwrap_or_default(),
            interval: time("health-interval", &self.health_interval)?,
            timeout: time("health-timeout", &self.health_timeout)?,
            start_period: time("health-start-period", &self.health_start_period)?,
            start_interval: time("health-start-interval", &self.health_start_interval)?,
            retries: self.health_retries.unwrap_or(0),
        };
        options.stop_signal.clone_from(&self.stop_signal);
        options.stop_timeout = self.stop_timeout;
        options.annotations = self.annotations()?;
        options.time_zone.clone_from(&self.tz);
        Ok(())
    }

    /// Labels of all files; those of flags have precedence.
    pub(super) fn labels(&self) -> Result<BTreeMap<String, String>, CliError> {
        let mut labels = BTreeMap::new();
        for path in &self.label_file {
            for line in read_env_file(path)? {
                let (name, value) = line.split_once('=').unwrap_or((&line, ""));
                labels.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(labels)
    }

    fn annotations(&self) -> Result<BTreeMap<String, String>, CliError> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            None if !text.is_empty() => Ok((text.clone(), String::new())),
            _ => Err(refused(format!(
                "invalid argument {text:?} for \"--annotation\" flag: expected NAME=VALUE"
            ))),
        };
        self.annotation.iter().map(pair).collect()
    }

    /// Refuses flags of Docker that Kiln does not carry out.
    fn refuse(&self) -> Result<(), CliError> {
        let own = self.runtime.as_deref().filter(|name| !matches!(*name, "" | "kiln"));
        let isolation = self.isolation.as_deref().filter(|name| !matches!(*name, "" | "default"));
        if self.rootfs {
            return Err(refused("--rootfs is not supported: a container is made of an image").hint(
                "make an image of the directory: printf 'FROM scratch\\nCOPY . /\\n' | kiln build -f - -t NAME DIR",
            ));
        }
        const WINDOWS: &str = "it is for containers of Windows";
        for (is_given, flag, reason) in [
            (
                own.is_some(),
                "--runtime",
                "unknown or invalid runtime name: containers run in Kiln's own runtime",
            ),
            (isolation.is_some(), "--isolation", WINDOWS),
            (
                !self.storage_opt.is_empty(),
                "--storage-opt",
                "the size of the container's layer cannot be limited",
            ),
            (self.kernel_memory.is_some(), "--kernel-memory", "Linux has no such limit any more"),
            (self.use_api_socket, "--use-api-socket", "there is no API socket"),
            (self.cpu_count.is_some(), "--cpu-count", WINDOWS),
            (self.cpu_percent.is_some(), "--cpu-percent", WINDOWS),
            (self.io_maxbandwidth.is_some(), "--io-maxbandwidth", WINDOWS),
            (self.io_maxiops.is_some(), "--io-maxiops", WINDOWS),
        ] {
            if is_given {
                let error = CliError::failed(format!("{flag} is not supported: {reason}"));
                return Err(error.hint(format!("leave {flag} out")).with_code(code::USAGE));
            }
        }
        Ok(())
    }
}

/// Reads a duration as Go writes it, such as `1m30s`.
fn nanoseconds(flag: &str, written: &str) -> Result<i64, CliError> {
    let read = times::duration(written).and_then(|time| i64::try_from(time.as_nanos()).ok());
    read.ok_or_else(|| {
        refused(format!(
            "invalid argument {written:?} for \"--{flag}\" flag: time: invalid duration {written:?}"
        ))
    })
}
