//! `--call=check`: warnings about a Dockerfile, and mistakes in it.

use super::{Call, ConfigSource, Location, Subject, base64_of, print_json};
use crate::error::{BuildFailure, CliError, code, mistake_message};
use crate::images::ConfigFinder;
use crate::ui;
use kiln_builder::Mistake;
use kiln_builder::check::{Checked, check};
use kiln_parser::ast::Dockerfile;
use kiln_parser::lint;
use kiln_parser::{Source, parse};
use serde::Serialize;

/// Lines of context that are shown around a finding in one line.
const AROUND: usize = 2;
/// Lines of context around a finding in several lines.
const AROUND_MANY: usize = 1;
const RULER: &str = "--------------------";

pub(super) fn answer(call: Call, subject: &Subject<'_>) -> Result<u8, CliError> {
    let source = ConfigSource::open(subject.globals)?;
    let images = source.finder();
    let checked = check(subject.context, subject.options, &ConfigFinder(&images));
    let source = &subject.context.source;
    let file = parse(source).file;
    if call.json {
        print_json(&answer_for_tools(source, &file, subject.path, &checked));
    } else {
        ui::print(&text(source, &file, subject.path, &checked));
    }
    let has_findings = !checked.report.findings.is_empty();
    match checked.error {
        None => Ok(if has_findings && !call.ignore_status { code::FAILURE } else { 0 }),
        Some(_) if call.ignore_status => Ok(0),
        Some(_) if call.json => Ok(code::FAILURE),
        Some(Mistake::Violations(names)) => {
            ui::tell_line(&format!("ERROR: lint violation found for rules: {}", names.join(", ")));
            Ok(code::FAILURE)
        }
        Some(error) => Err(CliError::Build(Box::new(BuildFailure {
            error: error.into(),
            source: Some(source.clone()),
            is_shown: false,
        }))),
    }
}

/// Findings in the format of the reference builder.
fn text(source: &Source, file: &Dockerfile, shown: &str, checked: &Checked) -> String {
    let findings = &checked.report.findings;
    let mut text = match (findings.len(), &checked.error) {
        (0, None) => return "Check complete, no warnings found.\n".to_owned(),
        (0, Some(_)) => return "\n".to_owned(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (number, _) => format!("Check complete, {number} warnings have been found!\n"),
    };
    let lines: Vec<&str> = source.text().split('\n').map(|line| line.trim_end_matches('\r')).collect();
    for finding in findings {
        let page = lint::rule(finding.code).and_then(lint::Rule::url);
        let page = page.map(|page| format!(" - {page}")).unwrap_or_default();
        let (first, last) = finding.lines(file, source);
        text.push_str(&format!(
            "\nWARNING: {}{page}\n{}\n{shown}:{first}\n{RULER}\n",
            finding.code, finding.message
        ));
        let around = if first == last { AROUND } else { AROUND_MANY };
        let end = (last + around).min(lines.len());
        for number in first.saturating_sub(around).max(1)..=end {
            let mark = if (first..=last).contains(&number) { ">>> " } else { "    " };
            text.push_str(&format!("{number:4} | {mark}{}\n", lines.get(number - 1).unwrap_or(&"")));
        }
        text.push_str(&format!("{RULER}\n"));
    }
    if checked.error.is_some() {
        text.push('\n');
    }
    text
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

fn answer_for_tools(source: &Source, file: &Dockerfile, shown: &str, checked: &Checked) -> Answer {
    let warnings = checked.report.findings.iter().filter_map(|finding| {
        let rule = lint::rule(finding.code)?;
        Some(Warning {
            rule_name: rule.name,
            description: rule.summary,
            url: rule.url(),
            detail: finding.message.clone(),
            location: Location::between(finding.lines(file, source)),
        })
    });
    let file = SourceFile { filename: shown.to_owned(), language: "Dockerfile", data: base64_of(source) };
    Answer {
        warnings: warnings.collect(),
        sources: vec![file],
        build_error: checked.error.as_ref().map(|error| Failed {
            message: mistake_message(error, Some(source)),
            location: error.span().map(|span| Location::of(source, span)),
        }),
    }
}
