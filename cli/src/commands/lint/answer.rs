//! Findings as JSON, with the fields of the reference builder's `--call=check`, and columns, levels and hints besides.

use super::severity;
use kiln_parser::Source;
use kiln_parser::diagnostic::{Diagnostic, Severity};
use kiln_parser::lint;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    warnings: Vec<Warning<'a>>,
    sources: Vec<SourceFile<'a>>,
    /// First syntax error; `None` when the file can be built.
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<Failed<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: &'a str,
    level: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    hints: &'a [String],
    location: Location,
}

#[derive(Serialize)]
struct SourceFile<'a> {
    filename: &'a str,
    language: &'static str,
    data: String,
}

#[derive(Serialize)]
struct Failed<'a> {
    message: &'a str,
    location: Location,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    source_index: usize,
    ranges: [Range; 1],
}

#[derive(Serialize)]
struct Range {
    start: Place,
    end: Place,
}

/// Line and column, both counted from 1.
#[derive(Serialize)]
struct Place {
    line: usize,
    character: usize,
}

/// Findings in all files, syntax errors among them.
pub(super) fn answer(files: &[(Source, Vec<Diagnostic>)]) -> Answer<'_> {
    let findings = || {
        let files = files.iter().enumerate();
        files.flat_map(|(index, (source, list))| list.iter().map(move |finding| (index, source, finding)))
    };
    let warnings = findings().map(|(index, source, finding)| {
        let rule = lint::rule(finding.code);
        Warning {
            rule_name: finding.code,
            description: rule.map_or("", |rule| rule.summary),
            url: rule.and_then(lint::Rule::url),
            detail: &finding.message,
            level: severity(finding),
            hints: &finding.hints,
            location: location(index, source, finding),
        }
    });
    // Findings of lints may be errors as well; syntax errors have no rule.
    let is_mistake =
        |finding: &Diagnostic| finding.severity == Severity::Error && lint::rule(finding.code).is_none();
    let failed = findings().find(|(_, _, finding)| is_mistake(finding));
    Answer {
        warnings: warnings.collect(),
        sources: files.iter().map(|(source, _)| source_file(source)).collect(),
        build_error: failed.map(|(index, source, finding)| Failed {
            message: &finding.message,
            location: location(index, source, finding),
        }),
    }
}

fn source_file(source: &Source) -> SourceFile<'_> {
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, source.bytes());
    SourceFile { filename: source.name(), language: "Dockerfile", data }
}

fn location(source_index: usize, source: &Source, finding: &Diagnostic) -> Location {
    let place = |offset: u32| {
        let at = source.position(offset as usize);
        Place { line: at.line, character: at.column }
    };
    let range = Range { start: place(finding.span.start), end: place(finding.span.end) };
    Location { source_index, ranges: [range] }
}
