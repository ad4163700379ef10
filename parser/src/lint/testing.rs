//! Helpers shared by the tests of rules.

use super::{Facts, Rule, View};
use crate::ignore::Patterns;
use crate::source::Source;

/// Compares the findings of a rule, written as `line:column message`, with `expected`.
#[track_caller]
pub(super) fn check(rule: &'static Rule, text: &str, expected: &[&str]) {
    check_with(rule, text, &[], expected);
}

/// Compares the findings of a rule, given an ignore file.
#[track_caller]
pub(super) fn check_with(rule: &'static Rule, text: &str, ignore: &[&str], expected: &[&str]) {
    let ignore = Some(Patterns::compile(ignore.iter().copied()).unwrap());
    check_facts(rule, text, &Facts { ignore, ..Facts::default() }, expected);
}

/// Compares the findings of a rule, given facts.
#[track_caller]
pub(super) fn check_facts(rule: &'static Rule, text: &str, facts: &Facts, expected: &[&str]) {
    let source = Source::new("Dockerfile", text);
    let parse = crate::parse(&source);
    let view = View::new(&parse, &source, facts);
    let found = rule.findings(&view);
    let shown: Vec<String> = found
        .iter()
        .map(|finding| {
            let at = source.position(finding.span.start as usize);
            format!("{}:{} {}", at.line, at.column, finding.message)
        })
        .collect();
    assert_eq!(shown, expected, "{text}");
}
