//! Progress for programs: one JSON object per line, with the fields of BuildKit's status stream.

use kiln_builder::event::{Event, Finding, Row};
use kiln_image::digest::Digest;
use kiln_image::json;
use serde::Serialize;
use std::collections::BTreeMap;

/// Converts events to lines.
#[derive(Default)]
pub(super) struct Raw {
    rows: BTreeMap<Row, Vertex>,
}

#[derive(Clone, Default, Serialize)]
struct Vertex {
    digest: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Default, Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct Status {
    id: String,
    vertex: String,
    total: u64,
    current: u64,
    timestamp: String,
}

#[derive(Serialize)]
struct Log {
    vertex: String,
    stream: u32,
    data: String,
    timestamp: String,
}

#[derive(Default, Serialize)]
struct Warning {
    vertex: String,
    level: u32,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

#[derive(Clone, Serialize)]
struct SourceInfo {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

impl Raw {
    /// Returns the line for an event, without its end; empty when the format has none.
    pub(super) fn show(&mut self, event: &Event) -> String {
        let mut line = Line::default();
        match event {
            Event::Started { row, name } => {
                line.vertexes.push(self.change(*row, Some(name), |vertex| vertex.started = Some(now())));
            }
            Event::Cached { row, name } => {
                line.vertexes.push(self.change(*row, Some(name), |vertex| {
                    (vertex.started, vertex.completed, vertex.cached) = (Some(now()), Some(now()), true);
                }));
            }
            Event::Done { row } => {
                line.vertexes.push(self.change(*row, None, |vertex| vertex.completed = Some(now())));
            }
            Event::Failed { row, message } => {
                line.vertexes.push(self.change(*row, None, |vertex| {
                    vertex.completed = Some(now());
                    vertex.error.clone_from(message);
                }));
            }
            Event::Output { row, bytes } => {
                let (vertex, data) = (self.digest(*row), base64(bytes));
                line.logs.push(Log { vertex, stream: 1, data, timestamp: now() });
            }
            Event::Progress { row, part, current, total } => line.statuses.push(Status {
                id: part.clone(),
                vertex: self.digest(*row),
                total: *total,
                current: *current,
                timestamp: now(),
            }),
            Event::Note { row, text } | Event::Explained { row, reason: text } => {
                let vertex = self.digest(*row);
                line.statuses.push(Status {
                    id: text.clone(),
                    vertex,
                    total: 0,
                    current: 0,
                    timestamp: now(),
                });
            }
            // Clients count vertexes.
            Event::Planned { .. } => {}
            Event::Findings { list, name, bytes } => {
                let source =
                    SourceInfo { filename: name.clone(), data: base64(bytes), language: "Dockerfile" };
                let findings = list.iter().map(|finding| self.warning(finding, &source));
                line.warnings.extend(findings);
            }
            Event::Warning { message } => {
                line.warnings.push(Warning {
                    vertex: self.definition(),
                    level: 1,
                    short: base64(message.as_bytes()),
                    ..Warning::default()
                });
            }
        }
        String::from_utf8_lossy(&json::to_vec(&line)).into_owned()
    }

    fn warning(&self, finding: &Finding, source: &SourceInfo) -> Warning {
        let text = format!("{}: {} (line {})", finding.rule, finding.message, finding.line);
        let position = |line| Position { line };
        Warning {
            vertex: self.definition(),
            level: 1,
            short: base64(text.as_bytes()),
            detail: vec![base64(finding.description.as_bytes())],
            url: finding.url.clone(),
            source_info: Some(source.clone()),
            range: vec![Range { start: position(finding.line), end: position(finding.last_line) }],
        }
    }

    /// Digest of the step that reads the Dockerfile, which is always the first: warnings refer to it.
    fn definition(&self) -> String {
        self.rows.values().next().map(|vertex| vertex.digest.clone()).unwrap_or_default()
    }

    fn change(&mut self, row: Row, name: Option<&String>, change: impl FnOnce(&mut Vertex)) -> Vertex {
        let vertex = self.rows.entry(row).or_default();
        if let Some(name) = name {
            vertex.name.clone_from(name);
            vertex.digest = Digest::of(format!("{} {name}", row.0).as_bytes()).to_string();
        }
        change(vertex);
        vertex.clone()
    }

    fn digest(&self, row: Row) -> String {
        self.rows.get(&row).map(|vertex| vertex.digest.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json() {
        let mut raw = Raw::default();
        let row = Row(1);
        let started = raw.show(&Event::Started { row, name: "[1/1] RUN x".to_owned() });
        let started: serde_json::Value = serde_json::from_str(&started).unwrap();
        assert_eq!(started["vertexes"][0]["name"], "[1/1] RUN x");
        let output = raw.show(&Event::Output { row, bytes: b"hi".to_vec() });
        let output: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(output["logs"][0]["data"], "aGk=");
        assert_eq!(output["logs"][0]["vertex"], started["vertexes"][0]["digest"]);
        let finding = Finding {
            rule: "R",
            message: "m".to_owned(),
            line: 2,
            last_line: 3,
            description: "d",
            url: Some("u".to_owned()),
        };
        let name = "Dockerfile".to_owned();
        let found = raw.show(&Event::Findings { list: vec![finding], name, bytes: b"FROM a".to_vec() });
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let expected = serde_json::json!({
            "vertex": started["vertexes"][0]["digest"], "level": 1, "short": base64(b"R: m (line 2)"),
            "detail": [base64(b"d")], "url": "u",
            "sourceInfo": {"filename": "Dockerfile", "data": base64(b"FROM a"), "language": "Dockerfile"},
            "range": [{"start": {"line": 2}, "end": {"line": 3}}],
        });
        assert_eq!(found["warnings"][0], expected);
        let failed = raw.show(&Event::Failed { row, message: "no".to_owned() });
        assert!(failed.contains("\"error\":\"no\""), "{failed}");
    }
}
