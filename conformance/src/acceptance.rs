//! Whether a builder accepts a Dockerfile, and where it does not.

use crate::cases::Case;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// What a builder says about a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would begin to build.
    Accepted,
    /// It would not.
    Refused {
        /// The line that is to blame, from 1, if it names one.
        line: Option<u64>,
        /// Why, cut after 200 characters.
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
    /// Reads what a verdict shows itself as.
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

    /// The same answer; lines count where both name one.
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

/// Has a builder look at a case without building it. `builder` is a command without its arguments, which takes
/// `build --call=check` as Docker does.
pub fn ask(builder: &mut Command, case: &Case) -> Result<Verdict> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("Dockerfile"), case.bytes())?;
    let arguments = ["build", "--call=check,format=json"];
    let output = builder.args(arguments).arg(dir.path()).env("NO_COLOR", "1").output();
    let output = output.with_context(|| format!("running {builder:?}"))?;
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
        // Nothing could be said about it at all.
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

/// Reads the list of differences that have a reason: `name: reason`, a line each.
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
