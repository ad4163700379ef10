//! `kiln lint`.

mod answer;
mod sarif;

use crate::arguments::{self, Globals};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::ui;
use clap::Parser;
use kiln_image::json;
use kiln_parser::Source;
use kiln_parser::diagnostic::{Diagnostic, Severity, render};
use kiln_parser::lint::{self, Choice, Facts, Level};
use kiln_parser::suggest;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Check Dockerfiles for problems. Exits with 1 when there are findings.
#[derive(Debug, Parser)]
struct Lint {
    /// Show findings as text, json (as `build --call=check` does) or sarif
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: String,
    /// Check only for errors and with the reference builder's rules
    #[arg(long)]
    reference: bool,
    /// Set the level of a rule: off, warning or error; may be repeated
    #[arg(long, value_name = "RULE=LEVEL")]
    rule: Vec<String>,
    /// Fail on findings of this level or above: warning, error or never
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    fail_on: String,
    /// Check these Dockerfiles; `-` reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Sarif,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Lint as clap::CommandFactory>::command()
}

/// Checks each file; syntax errors count as findings.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let lint: Lint = arguments::parse("lint", arguments)?;
    let format = chosen(
        "--format",
        &lint.format,
        &[("text", Format::Text), ("json", Format::Json), ("sarif", Format::Sarif)],
    )?;
    let fail_on = chosen(
        "--fail-on",
        &lint.fail_on,
        &[("warning", Some(Severity::Warning)), ("error", Some(Severity::Error)), ("never", None)],
    )?;
    let mut choice = Choice { own: !lint.reference, levels: Config::read(globals)?.lint };
    choice.levels.extend(levels(lint.rule.iter().map(String::as_str))?);
    let mut all: Vec<(Source, Vec<Diagnostic>)> = Vec::new();
    for path in &lint.files {
        let source = read(path)?;
        let findings = findings(&source, &choice);
        if format == Format::Text {
            show(&source, &findings);
        }
        all.push((source, findings));
    }
    match format {
        Format::Text => {}
        Format::Json => print_json(&answer::answer(&all)),
        Format::Sarif => print_json(&sarif::log(&all)),
    }
    let number = all.iter().map(|(_, findings)| findings.len()).sum();
    if format == Format::Text {
        ui::tell_line(&format!("{} in {}", plural(number, "finding"), plural(all.len(), "file")));
    }
    let fails = |finding: &Diagnostic| fail_on.is_some_and(|least| finding.severity >= least);
    let failed = all.iter().flat_map(|(_, findings)| findings).any(fails);
    Ok(if failed { code::FAILURE } else { 0 })
}

fn plural(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

fn chosen<T: Copy>(flag: &str, text: &str, choices: &[(&str, T)]) -> Result<T, CliError> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    found.ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let hint = format!("one of {}", names.join(", "));
        CliError::Usage(format!("invalid value {text:?} for {flag}"), vec![hint])
    })
}

/// Reads `RULE=LEVEL` texts; the names of rules are returned in lower case.
pub fn levels<'a>(texts: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, Level>, CliError> {
    let mut levels = BTreeMap::new();
    for text in texts {
        let (name, level) = text.split_once('=').unwrap_or((text, ""));
        let level = chosen(
            "--rule",
            level,
            &[("off", Level::Off), ("warning", Level::Warning), ("error", Level::Error)],
        );
        let level = level.map_err(|_| {
            let hint = "write RULE=off, RULE=warning or RULE=error".to_owned();
            CliError::Usage(format!("invalid value {text:?} for --rule"), vec![hint])
        })?;
        if lint::rule(name).is_none() {
            let near = suggest::nearest(name, lint::RULES.iter().map(|rule| rule.name));
            let hint = near.map_or_else(
                || "kiln lint --format sarif lists the rules".to_owned(),
                |near| format!("did you mean {near}?"),
            );
            return Err(CliError::Usage(format!("there is no rule {name:?}"), vec![hint]));
        }
        levels.insert(name.to_lowercase(), level);
    }
    Ok(levels)
}

fn findings(source: &Source, choice: &Choice) -> Vec<Diagnostic> {
    let parse = kiln_parser::parse(source);
    let mut findings: Vec<Diagnostic> = parse.errors().cloned().collect();
    findings.extend(lint::lint(&parse, source, &Facts::default(), choice).findings);
    findings.sort_by_key(|finding| finding.span);
    findings
}

fn show(source: &Source, findings: &[Diagnostic]) {
    for finding in findings {
        let color = ui::color_of_answers();
        ui::print_rendered(&format!("{}\n\n", render(source, finding, color)), color);
    }
}

fn print_json(answer: &impl Serialize) {
    ui::data(&(String::from_utf8_lossy(&json::to_vec_narrow(answer)) + "\n"));
}

fn severity(finding: &Diagnostic) -> &'static str {
    match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// Reads the Dockerfile at a path; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Source, CliError> {
    const MAX_SIZE: u64 = 16 << 20;
    let failed = |reason: &dyn std::fmt::Display| {
        CliError::failed(format!("cannot read `{}`: {reason}", path.display()))
            .hint("name one or more Dockerfiles")
    };
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let mut input = std::io::Read::take(std::io::stdin(), MAX_SIZE + 1);
        std::io::Read::read_to_end(&mut input, &mut bytes).map_err(|error| failed(&error))?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(failed(&"larger than 16 MiB"));
        }
        return Ok(Source::new("-", bytes));
    }
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if metadata.len() > MAX_SIZE {
        return Err(failed(&"larger than 16 MiB"));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    Ok(Source::new(path.display().to_string(), bytes))
}
