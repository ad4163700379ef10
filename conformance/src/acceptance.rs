//! Acceptance of Dockerfiles by a builder, and the positions of errors.

use crate::cases::Case;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// Answer of a builder about a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The builder would start the build.
    Accepted,
    /// The builder refuses the Dockerfile.
    Refused {
        /// Line of the error, from 1; `None` when the message has none.
        line: Option<u64>,
        /// Message, truncated after 200 characters.
        message: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accepted => f.write_str("accepted"),
            Verdict::Refused { line: Some(line), message } => write!(f, "refused in line {line}: {message}"),
            Verdict::Refused { line: None, message } => write!(f, "refused: {message}"),
        }
    }
}

impl Verdict {
    /// Parses a displayed verdict.
    pub fn read(text: &str) -> Verdict {
        let Some(rest) = text.strip_prefix("refused") else { return Verdict::Accepted };
        let placed = rest.strip_prefix(" in line ").and_then(|rest| rest.split_once(": "));
        match placed {
            Some((line, message)) => {
                Verdict::Refused { line: line.parse().ok(), message: message.to_owned() }
            }
            None => Verdict::Refused { line: None, message: rest.trim_start_matches(": ").to_owned() },
        }
    }

    /// True for equal answers; lines are compared when both have one.
    pub fn agrees(&self, other: &Verdict) -> bool {
        match (self, other) {
            (Verdict::Accepted, Verdict::Accepted) => true,
            (Verdict::Refused { line: a, .. }, Verdict::Refused { line: b, .. }) => {
                a == b || a.is_none() || b.is_none()
            }
            _ => false,
        }
    }
}

/// Asks a builder to check a case without building it. `builder` is a command without arguments that supports `build
/// --call=check` as Docker does.
pub fn ask(builder: &mut Command, case: &Case) -> Result<Verdict> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("Dockerfile"), case.bytes())?;
    let arguments = ["build", "--call=check,format=json"];
    let output = builder.args(arguments).arg(dir.path()).env("NO_COLOR", "1").output();
    let output = output.with_context(|| format!("running {builder:?}"))?;
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
        // The builder failed without an answer.
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rfind(|line| line.starts_with("ERROR:")).unwrap_or_default();
        let message = last.trim_start_matches("ERROR: failed to build: failed to solve: ");
        return Ok(Verdict::Refused { line: line_of(message), message: shortened(message) });
    };
    let error = &answer["buildError"];
    if error.is_null() {
        return Ok(Verdict::Accepted);
    }
    let message = error["message"].as_str().unwrap_or_default();
    let line = error["location"]["ranges"][0]["start"]["line"].as_u64();
    Ok(Verdict::Refused { line: line.or_else(|| line_of(message)), message: shortened(message) })
}

fn line_of(message: &str) -> Option<u64> {
    message.strip_prefix("dockerfile parse error on line ")?.split(':').next()?.parse().ok()
}

fn shortened(message: &str) -> String {
    let line: String = message.replace('\n', " ").chars().take(200).collect();
    line.trim().to_owned()
}

/// Reads the list of known differences with their reasons: lines of the form `name: reason`.
pub fn read_differences(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut differences = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, reason)) = line.split_once(": ") else {
            bail!("a difference without a reason: {line}")
        };
        differences.insert(name.to_owned(), reason.to_owned());
    }
    Ok(differences)
}
