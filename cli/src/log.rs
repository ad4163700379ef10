//! The debug log on standard error, for the maintainers of Kiln and for reports of faults: `KILN_LOG=debug kiln build .`
//!
//! Without the variable no subscriber exists, and an event costs one load of an atomic integer. Events come from the
//! processes of Kiln on the host; the process that sets a container up logs nothing, as its standard error is the
//! container's.

use crate::error::CliError;
use crate::ui;
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::Instant;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Variable with the filter.
pub const VARIABLE: &str = "KILN_LOG";

/// Prefix of the crates of this workspace.
const OWN: &str = "kiln_";

/// Starts the log with the filter in `value`, and logs the host.
///
/// # Errors
///
/// Fails for a filter that is not understood.
pub fn begin(value: &OsStr) -> Result<(), CliError> {
    let text = value.to_string_lossy();
    let filter: Filter = text.parse().map_err(|mistake: FilterError| {
        CliError::failed(format!("{VARIABLE} is {text:?}: {mistake}")).hint(
            "it is a level (error, warn, info, debug, trace, off), or CRATE=LEVEL, or several of these with commas: \
             KILN_LOG=builder=debug,registry=trace",
        )
    })?;
    if filter.rules.is_empty() {
        return Ok(());
    }
    // Fails only when there is a log already.
    let _ = tracing::subscriber::set_global_default(Log { filter, start: Instant::now() });
    kiln_runtime::host::Host::get().log();
    Ok(())
}

/// Levels by target; the longest target that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    rules: Vec<(String, LevelFilter)>,
}

/// Mistake in a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum FilterError {
    #[error("{0:?} is no level")]
    Level(String),
    #[error("there is no crate {0:?}")]
    Crate(String),
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Filter, FilterError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let rules = parts.map(rule).collect::<Result<_, _>>()?;
        Ok(Filter { rules })
    }
}

/// Reads one part of a filter: a level for all crates of Kiln, or a target and its level.
fn rule(text: &str) -> Result<(String, LevelFilter), FilterError> {
    /// Crates with events, under their names in the workspace.
    const CRATES: [&str; 7] = ["builder", "cli", "image", "network", "oci", "registry", "runtime"];
    /// Libraries of other projects with events.
    const OTHERS: [&str; 1] = ["hyper_util"];
    let (target, level) = match text.split_once('=') {
        Some((target, level)) => (Some(target.trim()), level.trim()),
        None => (None, text),
    };
    let level = match level.to_ascii_lowercase().as_str() {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return Err(FilterError::Level(level.to_owned())),
    };
    let Some(target) = target else { return Ok((OWN.to_owned(), level)) };
    let module = target.strip_prefix(OWN).unwrap_or(target);
    let name = module.split("::").next().unwrap_or_default();
    match () {
        () if name == "cli" => Ok((module.replacen("cli", "kiln", 1), level)),
        () if CRATES.contains(&name) => Ok((format!("{OWN}{module}"), level)),
        () if OTHERS.contains(&name) => Ok((module.to_owned(), level)),
        () => Err(FilterError::Crate(name.to_owned())),
    }
}

impl Filter {
    fn level(&self, target: &str) -> LevelFilter {
        // The program's own crate has the name of the program.
        let is_program = target == "kiln" || target.starts_with("kiln::");
        let matches = |rule: &&(String, LevelFilter)| {
            let rest = target.strip_prefix(rule.0.as_str());
            rule.0 == OWN && is_program
                || rest.is_some_and(|rest| rule.0 == OWN || rest.is_empty() || rest.starts_with("::"))
        };
        let rules = self.rules.iter().filter(matches);
        let specific = |target: &str| if target == OWN { 0 } else { target.len() };
        rules.max_by_key(|(target, _)| specific(target)).map_or(LevelFilter::OFF, |(_, level)| *level)
    }
}

/// Subscriber that prints a line for each event.
struct Log {
    filter: Filter,
    start: Instant,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.filter.level(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.filter.rules.iter().map(|(_, level)| *level).max()
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let target = metadata.target();
        let target = target.strip_prefix(OWN).unwrap_or(target);
        let level = metadata.level().as_str().to_ascii_lowercase();
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields } = line;
        let seconds = self.start.elapsed().as_secs_f64();
        ui::tell_line(&format!("{seconds:9.4} {level:5} {target}: {message}{fields}"));
    }

    // There are no spans: events name what they belong to.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Text of an event, on one line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        for text in [&mut self.message, &mut self.fields] {
            if text.contains('\n') {
                *text = text.replace('\n', " ");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(filter: &str, target: &str) -> LevelFilter {
        filter.parse::<Filter>().unwrap().level(target)
    }

    #[test]
    fn the_most_specific_rule_counts() {
        let filter = "info, registry=trace,builder::step=off,builder=debug,cli=error";
        for (target, expected) in [
            ("kiln_image::store", LevelFilter::INFO),
            ("kiln_registry", LevelFilter::TRACE),
            ("kiln_registry::pull", LevelFilter::TRACE),
            ("kiln_builder::step", LevelFilter::OFF),
            ("kiln_builder::steps", LevelFilter::DEBUG),
            ("kiln::images", LevelFilter::ERROR),
            ("hyper_util::client", LevelFilter::OFF),
        ] {
            assert_eq!(level(filter, target), expected, "{target}");
        }
        assert_eq!(level("debug", "kiln::images"), LevelFilter::DEBUG);
        assert_eq!(level("hyper_util=trace", "hyper_util::client"), LevelFilter::TRACE);
        assert_eq!(level("", "kiln_image"), LevelFilter::OFF);
    }

    #[test]
    fn mistakes_are_named() {
        let mistake = |filter: &str| filter.parse::<Filter>().unwrap_err().to_string();
        assert_eq!(mistake("loud"), "\"loud\" is no level");
        assert_eq!(mistake("debug,parser=debug"), "there is no crate \"parser\"");
        assert_eq!(mistake("image=2"), "\"2\" is no level");
    }
}
