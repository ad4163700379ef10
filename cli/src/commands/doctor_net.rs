//! Command `kiln doctor net`: reports what of this host keeps containers from their networks.

use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::error::{CliError, code};
use crate::ui;
use clap::Parser;
use kiln_network::doctor::{Check, Facts, Level, checks};
use std::ffi::OsString;
use std::path::Path;

/// Check this host's settings for networks of containers. A line for each check shows ok, warn or fail, and how to change what is
/// wrong. Nothing is changed. The exit code is 1 when a check fails.
#[derive(Debug, Parser)]
struct Net {
    /// Print the checks as text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Net as clap::CommandFactory>::command()
}

/// Prints all checks; exit code 1 when one fails.
pub fn run(_: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let net: Net = arguments::parse("doctor net", arguments)?;
    let found = || checks(&Facts::read(Path::new(STATE)));
    let found = match net.format.as_str() {
        "text" => {
            let found = found();
            found.iter().for_each(|check| ui::line(&line(check)));
            found
        }
        "json" => {
            let found = found();
            ui::data_line(&serde_json::to_string_pretty(&found).expect("checks are texts"));
            found
        }
        other => {
            let message = format!("invalid value {other:?} for --format");
            return Err(CliError::Flags(message, vec!["one of text, json".to_owned()]));
        }
    };
    Ok(if found.iter().any(|check| check.level == Level::Fail) { code::FAILURE } else { 0 })
}

fn line(check: &Check) -> String {
    let level = match check.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "fail",
    };
    let fix = check.fix.as_ref().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
    format!("{level:<4} {:<13} {}{fix}", check.name, check.text)
}
