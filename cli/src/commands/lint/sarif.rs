//! Findings as a SARIF log, for tools that show them beside the code (OASIS SARIF 2.1.0).

use super::severity;
use kiln_parser::Source;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::lint::RULES;
use serde_json::{Value, json};

/// The log of one run over all files.
pub(super) fn log(files: &[(Source, Vec<Diagnostic>)]) -> Value {
    let rules = RULES.iter().map(|rule| {
        let mut described = json!({"id": rule.name, "shortDescription": {"text": rule.summary}});
        if let Some(url) = rule.url() {
            described["helpUri"] = Value::String(url);
        }
        described
    });
    let results = files
        .iter()
        .flat_map(|(source, findings)| findings.iter().map(move |finding| result(source, finding)));
    json!({
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{
            "tool": {"driver": {
                "name": "kiln",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

fn result(source: &Source, finding: &Diagnostic) -> Value {
    let start = source.position(finding.span.start as usize);
    let end = source.position(finding.span.end as usize);
    let advice: Vec<String> = finding.hints.iter().map(|hint| format!("\nhint: {hint}")).collect();
    json!({
        "ruleId": finding.code,
        "level": severity(finding),
        "message": {"text": format!("{}{}", finding.message, advice.concat())},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": source.name()},
            "region": {
                "startLine": start.line,
                "startColumn": start.column,
                "endLine": end.line,
                "endColumn": end.column,
            },
        }}],
    })
}
