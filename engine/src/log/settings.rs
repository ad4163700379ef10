//! `--log-driver` and `--log-opt`: way in which a container's output is logged.

use super::LogOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where output is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Files of JSON in the container's directory.
    #[default]
    JsonFile,
    /// The journal of systemd.
    Journald,
    /// Nowhere: the output is not kept.
    None,
}

/// Log of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// Where output is logged.
    pub driver: LogDriver,
    /// Options as written by the user.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Another socket than the journal's own, for tests.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

/// Text that is no way to log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogSettingsError {
    /// The driver is unknown, or needs a service that Kiln does not talk to.
    #[error("the log driver {0:?} is not supported: --log-driver takes json-file, local, journald and none")]
    Driver(String),
    /// The option is unknown for the driver.
    #[error("unknown log opt '{option}' for {driver} log driver")]
    Option {
        /// Name of the option.
        option: String,
        /// Name of the driver.
        driver: &'static str,
    },
    /// The host has no journal.
    #[error("--log-driver journald needs the journal of systemd, and this host has none: {0} does not exist")]
    NoJournal(String),
    /// The option has no value, or one that cannot be used.
    #[error("invalid log opt {0:?}: write {1}")]
    Value(String, &'static str),
}

impl LogSettings {
    /// Parses a driver's name and its options `NAME=VALUE`. The driver `local` has the same files as `json-file`.
    ///
    /// # Errors
    /// Fails for unknown drivers and options, and for values that are not sizes or numbers.
    pub fn parse(driver: &str, options: &[String]) -> Result<LogSettings, LogSettingsError> {
        let driver = match driver {
            "" | "json-file" | "local" => LogDriver::JsonFile,
            "journald" => LogDriver::Journald,
            "none" => LogDriver::None,
            other => return Err(LogSettingsError::Driver(other.to_owned())),
        };
        let mut settings = LogSettings { driver, options: BTreeMap::new(), socket: None };
        for option in options {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            settings.check(option, name, value)?;
            settings.options.insert(name.to_owned(), value.to_owned());
        }
        Ok(settings)
    }

    fn check(&self, option: &str, name: &str, value: &str) -> Result<(), LogSettingsError> {
        let invalid = |form| Err(LogSettingsError::Value(option.to_owned(), form));
        match (self.driver, name) {
            (LogDriver::JsonFile, "max-size") if size(value).is_none() => {
                invalid("max-size=SIZE, as 10m, or -1 for no limit")
            }
            (LogDriver::JsonFile, "max-file") if !value.parse().is_ok_and(|count: u32| count > 0) => {
                invalid("max-file=NUMBER, 1 or more")
            }
            (LogDriver::JsonFile, "max-size" | "max-file") => Ok(()),
            (LogDriver::Journald, "tag")
                if expand(value, |name| is_tag_field(name).then(String::new)).is_none() =>
            {
                invalid(
                    "tag=TEXT, in which {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageName}}, {{.ImageID}} and {{.ImageFullID}} are replaced",
                )
            }
            (LogDriver::Journald, "tag" | "labels" | "env") => Ok(()),
            // How output is passed on does not depend on these two: it is never lost, and never blocks for long.
            (_, "mode") if matches!(value, "blocking" | "non-blocking") => Ok(()),
            (_, "mode") => invalid("mode=blocking or mode=non-blocking"),
            _ => Err(LogSettingsError::Option { option: name.to_owned(), driver: self.name() }),
        }
    }

    /// Path of the journal's socket.
    pub(super) fn journal(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(super::journal::SOCKET))
    }

    /// Fails when the host lacks what the driver needs.
    ///
    /// # Errors
    /// [`LogSettingsError::NoJournal`].
    pub fn check_host(&self) -> Result<(), LogSettingsError> {
        let path = self.journal();
        match self.driver == LogDriver::Journald && !path.exists() {
            true => Err(LogSettingsError::NoJournal(path.display().to_string())),
            false => Ok(()),
        }
    }

    /// Name of the driver in Docker's output.
    pub fn name(&self) -> &'static str {
        match self.driver {
            LogDriver::JsonFile => "json-file",
            LogDriver::Journald => "journald",
            LogDriver::None => "none",
        }
    }

    /// Limits of the log's files.
    pub fn files(&self) -> LogOptions {
        let mut options = LogOptions::default();
        if let Some(limit) = self.options.get("max-size").and_then(|text| size(text)) {
            options.max_size = limit;
        }
        if let Some(count) = self.options.get("max-file").and_then(|text| text.parse().ok()) {
            options.max_files = count;
        }
        options
    }
}

/// True for the fields that the option `tag` may name.
fn is_tag_field(name: &str) -> bool {
    matches!(name, "ID" | "FullID" | "Name" | "ImageName" | "ImageID" | "ImageFullID")
}

/// Replaces `{{.NAME}}` in a template by the field of that name. `None` when `field` knows one of them not, and for other
/// actions.
pub(super) fn expand(template: &str, field: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}")?;
        out.push_str(before);
        out.push_str(&field(action.trim().strip_prefix('.')?)?);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// Size in bytes, with the units k, m and g of 1024 (docker/go-units `RAMInBytes`, which Docker uses here); the inner
/// `None` for no limit.
fn size(text: &str) -> Option<Option<u64>> {
    if text == "-1" {
        return Some(None);
    }
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, unit) = match number.as_bytes().last()? {
        b'k' => (&number[..number.len() - 1], 1 << 10),
        b'm' => (&number[..number.len() - 1], 1 << 20),
        b'g' => (&number[..number.len() - 1], 1 << 30),
        _ => (number, 1),
    };
    let number: u64 = number.parse().ok()?;
    (number > 0).then_some(Some(number.checked_mul(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let check = |text: &str, expected| assert_eq!(size(text), expected, "{text}");
        check("10m", Some(Some(10 << 20)));
        check("10MiB", Some(Some(10 << 20)));
        check("512", Some(Some(512)));
        check("1g", Some(Some(1 << 30)));
        check("-1", Some(None));
        for bad in ["", "0", "x", "10q", "-2", "99999999999999g"] {
            check(bad, None);
        }
    }

    #[test]
    fn tags_name_fields() {
        let field = |name: &str| is_tag_field(name).then(|| name.to_lowercase());
        let check =
            |template: &str, expected| assert_eq!(expand(template, field).as_deref(), expected, "{template}");
        check("web", Some("web"));
        check("{{.Name}}/{{ .ID }}!", Some("name/id!"));
        check("{{.Nothing}}", None);
        check("{{.ID", None);
        check("{{ID}}", None);
        let parse = |option: &str| LogSettings::parse("journald", &[option.to_owned()]);
        assert_eq!(parse("tag={{.Name}}").unwrap().name(), "journald");
        assert!(matches!(parse("tag={{.X}}"), Err(LogSettingsError::Value(..))));
        assert!(matches!(parse("max-size=1k"), Err(LogSettingsError::Option { .. })));
    }

    #[test]
    fn drivers_refuse_options_that_are_not_theirs() {
        let parse = |driver: &str, option: &str| LogSettings::parse(driver, &[option.to_owned()]);
        let settings = parse("json-file", "max-size=1k").unwrap();
        assert_eq!(settings.files().max_size, Some(1024));
        assert_eq!(parse("", "max-file=5").unwrap().files().max_files, 5);
        assert!(matches!(parse("none", "max-size=1k"), Err(LogSettingsError::Option { .. })));
        assert!(matches!(parse("syslog", ""), Err(LogSettingsError::Driver(_))));
        assert!(matches!(parse("json-file", "max-file=0"), Err(LogSettingsError::Value(..))));
        assert!(matches!(parse("json-file", "colour=red"), Err(LogSettingsError::Option { .. })));
    }
}
