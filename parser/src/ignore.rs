//! `.dockerignore` patterns: the paths excluded from a build context, and the line that decided.
//!
//! Follows moby/patternmatcher as the reference builder's context walker uses it: patterns match the whole path from
//! the context root, a pattern that matches a directory covers everything below it, the last matching line wins, and
//! `!` includes paths again, also below an ignored directory. `COPY --exclude` uses the same language.

mod pattern;

use pattern::Pattern;
use std::fmt;

/// An ordered list of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    text: String,
    exception: bool,
    line: usize,
}

/// A pattern with a syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// Line in the file, from 1.
    pub line: usize,
    /// Message of the reference builder.
    pub message: &'static str,
    /// Text of the pattern.
    pub pattern: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: `{}`", self.line, self.message, self.pattern)
    }
}

impl std::error::Error for PatternError {}

/// Outcome for one path, with the state that decisions about its children need.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    ignored: bool,
    by: Option<usize>,
    matched: Vec<bool>,
}

impl Decision {
    /// True when the path is not part of the context.
    pub fn is_ignored(&self) -> bool {
        self.ignored
    }
}

impl Patterns {
    /// Parses an ignore file.
    ///
    /// # Errors
    /// Fails on the first line whose pattern has a syntax error.
    pub fn parse(text: &str) -> Result<Patterns, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Patterns::default();
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let (exception, path) = match trimmed.strip_prefix('!') {
                Some(path) => (true, path.trim()),
                None => (false, trimmed),
            };
            let cleaned = if path.is_empty() { String::new() } else { clean(path) };
            let relative = match cleaned.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest,
                _ => &cleaned,
            };
            patterns.push(relative, exception, index + 1)?;
        }
        Ok(patterns)
    }

    /// Compiles separate patterns, such as those of `--exclude`; line numbers count from 1.
    ///
    /// # Errors
    /// Fails on the first pattern with a syntax error.
    pub fn compile<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Patterns, PatternError> {
        let mut patterns = Patterns::default();
        for (index, text) in list.into_iter().enumerate() {
            let trimmed = text.trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean(trimmed);
            match cleaned.strip_prefix('!') {
                Some(rest) => patterns.push(rest, true, index + 1)?,
                None => patterns.push(&cleaned, false, index + 1)?,
            }
        }
        Ok(patterns)
    }

    fn push(&mut self, text: &str, exception: bool, line: usize) -> Result<(), PatternError> {
        let fail = |message| PatternError { line, message, pattern: text.to_owned() };
        if text.is_empty() {
            return Err(PatternError { pattern: "!".to_owned(), ..fail("illegal exclusion pattern: \"!\"") });
        }
        let pattern = Pattern::new(text).ok_or_else(|| fail("syntax error in pattern"))?;
        self.rules.push(Rule { pattern, text: text.to_owned(), exception, line });
        Ok(())
    }

    /// True when there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// True when any pattern begins with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Decides about `path`, relative to the context root with `/` between names, below `parent`.
    ///
    /// Children of the root have no parent; for all others the caller must pass the parent's decision.
    pub fn decide(&self, path: &str, parent: Option<&Decision>) -> Decision {
        let mut decision = Decision { ignored: false, by: None, matched: vec![false; self.rules.len()] };
        for (index, rule) in self.rules.iter().enumerate() {
            let inherited = parent.is_some_and(|parent| parent.matched[index]);
            // A rule that could not change the outcome is not matched, and then does not count for the children either.
            // The reference does the same, which shows in rare orders of rules.
            let matched = inherited || (rule.exception == decision.ignored && rule.pattern.matches(path));
            decision.matched[index] = matched;
            if matched {
                decision.ignored = !rule.exception;
                decision.by = Some(index);
            }
        }
        decision
    }

    /// Decides about `path` without the decisions about its parents.
    pub fn decide_without_parent(&self, path: &str) -> Decision {
        let mut decision: Option<Decision> = None;
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            decision = Some(self.decide(&path[..end], decision.as_ref()));
        }
        decision.unwrap_or_default()
    }

    /// True when nothing below the directory `path` can be part of the context: a walker may skip it.
    pub fn prunes(&self, path: &str, decision: &Decision) -> bool {
        decision.ignored
            && !self.rules.iter().enumerate().any(|(index, rule)| {
                rule.exception
                    && decision.by.is_some_and(|by| index > by)
                    && rule.pattern.may_match_below(path)
            })
    }

    /// True when a path below the directory `path` may match one of the patterns.
    pub fn may_match_below(&self, path: &str) -> bool {
        self.rules.iter().any(|rule| rule.pattern.may_match_below(path))
    }

    /// Line number and text of the pattern that decided; `None` when no pattern matched.
    pub fn decided_by(&self, decision: &Decision) -> Option<(usize, String)> {
        let rule = &self.rules[decision.by?];
        let mark = if rule.exception { "!" } else { "" };
        Some((rule.line, format!("{mark}{}", rule.text)))
    }
}

/// Cleans a slash path as Go's `filepath.Clean` does.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if !rooted => parts.push(".."),
                _ => {
                    parts.pop();
                }
            },
            name => parts.push(name),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests;
