//! `kiln build --call`: questions about a Dockerfile that need no build, answered in the reference builder's
//! words.

use crate::error::{BuildFailure, CliError, code};
use crate::ui;
use kiln_builder::BuildError;
use kiln_builder::context::Context;
use kiln_image::json;
use kiln_parser::ast::Kind;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::lint::{self, Report};
use kiln_parser::span::Span;
use kiln_parser::{Parse, Source};
use serde::Serialize;
use std::path::Path;

/// Lines of the file that are shown around a finding.
const AROUND: usize = 2;
const RULER: &str = "--------------------";

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    question: Question,
    json: bool,
    /// Findings do not make the command fail.
    ignore_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Check,
    Targets,
}

impl Call {
    /// Reads `check[,format=json][,ignorestatus=true]`; `None` for `build`, which is no question.
    pub fn parse(text: &str) -> Result<Option<Call>, CliError> {
        let mut parts = text.split(',');
        let question = match parts.next().unwrap_or_default() {
            "build" | "" => return Ok(None),
            "check" | "lint" => Question::Check,
            "targets" => Question::Targets,
            other => {
                return Err(CliError::failed(format!("--call={other} is not supported yet"))
                    .hint("one of check, targets"));
            }
        };
        let mut call = Call { question, json: false, ignore_status: false };
        for part in parts {
            match part.split_once('=') {
                Some(("format", "json")) => call.json = true,
                Some(("format", "text")) => call.json = false,
                Some(("ignorestatus", value)) => call.ignore_status = value == "true",
                _ => {
                    return Err(CliError::Flags(
                        format!("invalid value {part:?} for --call"),
                        vec!["write format=json, format=text or ignorestatus=true".to_owned()],
                    ));
                }
            }
        }
        Ok(Some(call))
    }

    /// Answers; `shown` is the Dockerfile's path.
    pub fn answer(self, context: &Context, shown: &Path) -> Result<u8, CliError> {
        let parse = kiln_parser::parse(&context.source);
        match self.question {
            Question::Targets => self.targets(context, &parse),
            Question::Check => self.check(context, parse, &shown.display().to_string()),
        }
    }

    fn check(self, context: &Context, parse: Parse, shown: &str) -> Result<u8, CliError> {
        let source = &context.source;
        let report = lint::lint(&parse, source, Some(&context.ignore), false);
        let errors: Vec<Diagnostic> = parse.errors().cloned().collect();
        if self.json {
            let answer = Checked::new(source, shown, &report, errors.first());
            ui::print(&(String::from_utf8_lossy(&json::to_vec_pretty(&answer)) + "\n"));
        } else {
            ui::print(&text(source, shown, &report));
        }
        if !errors.is_empty() {
            let (error, source) = (BuildError::Syntax(errors), Some(source.clone()));
            return Err(CliError::Build(Box::new(BuildFailure { error, source })));
        }
        let failed = !report.findings.is_empty() && !self.ignore_status;
        Ok(if failed { code::FAILURE } else { 0 })
    }

    fn targets(self, context: &Context, parse: &Parse) -> Result<u8, CliError> {
        let errors: Vec<Diagnostic> = parse.errors().cloned().collect();
        if !errors.is_empty() {
            let (error, source) = (BuildError::Syntax(errors), Some(context.source.clone()));
            return Err(CliError::Build(Box::new(BuildFailure { error, source })));
        }
        let stages = parse.file.instructions.iter().filter_map(|instruction| match &instruction.kind {
            Kind::From(from) => Some((instruction, from)),
            _ => None,
        });
        let mut targets: Vec<Target> = stages
            .map(|(instruction, from)| {
                let name = from.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default();
                let comment = instruction.comments.last().map(|comment| comment.value.as_str());
                let described = comment.and_then(|comment| comment.split_once(' '));
                let described =
                    described.filter(|(first, _)| !name.is_empty() && first.eq_ignore_ascii_case(&name));
                Target {
                    description: described.map(|(_, words)| words.trim().to_owned()),
                    base: from.image.as_str().to_owned(),
                    platform: from.platform.as_ref().map(|platform| platform.as_str().to_owned()),
                    location: Location::of(&context.source, instruction.span),
                    default: false,
                    name,
                }
            })
            .collect();
        if let Some(last) = targets.last_mut() {
            last.default = true;
        }
        if self.json {
            let answer = Targets { targets };
            ui::print(&(String::from_utf8_lossy(&json::to_vec_pretty(&answer)) + "\n"));
            return Ok(0);
        }
        let cells = |target: &Target| {
            let name = match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            vec![name, target.description.clone().unwrap_or_default()]
        };
        let rows: Vec<Vec<String>> = targets.iter().map(cells).collect();
        ui::print(&crate::text::narrow_table(&["TARGET", "DESCRIPTION"], &rows));
        Ok(0)
    }
}

/// The findings as the reference builder prints them.
fn text(source: &Source, shown: &str, report: &Report) -> String {
    let mut text = match report.findings.len() {
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        number => format!("Check complete, {number} warnings have been found!\n"),
    };
    let lines: Vec<&str> = source.text().lines().collect();
    for finding in &report.findings {
        let page = lint::rule(finding.code).and_then(lint::Rule::url);
        let page = page.map(|page| format!(" - {page}")).unwrap_or_default();
        let (first, last) = place(source, finding.span);
        text.push_str(&format!(
            "\nWARNING: {}{page}\n{}\n{shown}:{first}\n{RULER}\n",
            finding.code, finding.message
        ));
        let end = (last + AROUND).min(lines.len());
        for number in first.saturating_sub(AROUND).max(1)..=end {
            let mark = if (first..=last).contains(&number) { ">>> " } else { "    " };
            text.push_str(&format!("{number:4} | {mark}{}\n", lines.get(number - 1).unwrap_or(&"")));
        }
        text.push_str(&format!("{RULER}\n"));
    }
    text.push('\n');
    text
}

/// First and last line of a place, counted from 1.
fn place(source: &Source, span: Span) -> (usize, usize) {
    let line = |offset: u32| source.position(offset as usize).line;
    (line(span.start), line(span.end.saturating_sub(1).max(span.start)))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    warnings: Vec<Warning>,
    sources: Vec<SourceFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<Failed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct SourceFile {
    filename: String,
    language: &'static str,
    data: String,
}

#[derive(Serialize)]
struct Failed {
    message: String,
    location: Location,
}

#[derive(Serialize)]
struct Location {
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Line,
    end: Line,
}

#[derive(Serialize)]
struct Line {
    line: usize,
}

#[derive(Serialize)]
struct Targets {
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    base: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    location: Location,
}

impl Location {
    fn of(source: &Source, span: Span) -> Location {
        let (first, last) = place(source, span);
        Location { ranges: vec![Range { start: Line { line: first }, end: Line { line: last } }] }
    }
}

impl Checked {
    fn new(source: &Source, shown: &str, report: &Report, error: Option<&Diagnostic>) -> Checked {
        let warnings = report.findings.iter().filter_map(|finding| {
            let rule = lint::rule(finding.code)?;
            Some(Warning {
                rule_name: rule.name,
                description: rule.summary,
                url: rule.url(),
                detail: finding.message.clone(),
                location: Location::of(source, finding.span),
            })
        });
        let file = SourceFile {
            filename: shown.to_owned(),
            language: "Dockerfile",
            data: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, source.bytes()),
        };
        Checked {
            warnings: warnings.collect(),
            sources: vec![file],
            build_error: error.map(|error| Failed {
                message: error.message.clone(),
                location: Location::of(source, error.span),
            }),
        }
    }
}
