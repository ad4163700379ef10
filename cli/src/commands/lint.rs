//! `kiln lint`.

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::ui;
use clap::Parser;
use kiln_image::json;
use kiln_parser::Source;
use kiln_parser::diagnostic::{Diagnostic, Severity, render};
use kiln_parser::lint;
use serde::Serialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Say what Dockerfiles can say better. Ends with 1 when something was found.
#[derive(Debug, Parser)]
struct Lint {
    /// How findings are shown: text or json (one object a line)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: String,
    /// Only errors and the reference builder's rules
    #[arg(long)]
    reference: bool,
    /// Dockerfiles
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A finding for tools.
#[derive(Serialize)]
struct Finding<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    severity: &'static str,
    code: &'a str,
    message: &'a str,
    hints: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// Looks at each file; errors of the language count as findings.
pub fn run(_globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let lint: Lint = arguments::parse("lint", arguments)?;
    let as_json = match lint.format.as_str() {
        "text" => false,
        "json" => true,
        other => {
            return Err(CliError::Flags(
                format!("invalid value {other:?} for --format"),
                vec!["one of text, json".to_owned()],
            ));
        }
    };
    let mut number = 0;
    for path in &lint.files {
        let source = read(path)?;
        let findings = lint.findings(&source);
        number += findings.len();
        for finding in &findings {
            if as_json {
                ui::line(&String::from_utf8_lossy(&json::to_vec(&for_tools(&source, finding))));
            } else {
                ui::print(&format!("{}\n\n", render(&source, finding, ui::color_of_answers())));
            }
        }
    }
    if !as_json {
        let files = lint.files.len();
        let plural =
            |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        ui::tell_line(&format!("{} in {}", plural(number, "finding"), plural(files, "file")));
    }
    Ok(if number == 0 { 0 } else { code::FAILURE })
}

impl Lint {
    fn findings(&self, source: &Source) -> Vec<Diagnostic> {
        let parse = kiln_parser::parse(source);
        let mut findings: Vec<Diagnostic> = parse.errors().cloned().collect();
        findings.extend(lint::lint(&parse, source, None, !self.reference).findings);
        findings.sort_by_key(|finding| finding.span);
        findings
    }
}

fn for_tools<'a>(source: &'a Source, finding: &'a Diagnostic) -> Finding<'a> {
    let at = source.position(finding.span.start as usize);
    Finding {
        file: source.name(),
        line: at.line,
        column: at.column,
        severity: if finding.severity == Severity::Error { "error" } else { "warning" },
        code: finding.code,
        message: &finding.message,
        hints: &finding.hints,
        url: lint::rule(finding.code).and_then(lint::Rule::url),
    }
}

fn read(path: &Path) -> Result<Source, CliError> {
    const MAX_SIZE: u64 = 16 << 20;
    let failed = |reason: &dyn std::fmt::Display| {
        CliError::failed(format!("cannot read `{}`: {reason}", path.display()))
            .hint("name one or more Dockerfiles")
    };
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if metadata.len() > MAX_SIZE {
        return Err(failed(&"larger than 16 MiB"));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    Ok(Source::new(path.display().to_string(), bytes))
}
