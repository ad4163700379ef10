//! HeredocWithoutErrexit: the shell runs all lines of a heredoc, and the last one alone determines the exit code.

use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "HeredocWithoutErrexit",
    summary: "A heredoc RUN goes on after a command that failed",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let mut stops = false;
        for instruction in stage.body {
            match &instruction.kind {
                Kind::Shell(words) => stops = words.iter().any(|word| is_errexit(word.as_str())),
                Kind::Run(run) if run.is_heredoc_alone() && !stops => {
                    let Some(heredoc) = instruction.heredocs.first() else { continue };
                    if lacks_errexit(&heredoc.text()) {
                        findings.add(heredoc.word, "This script goes on after a command that failed");
                        findings.hint("begin it with `set -e`");
                    }
                }
                _ => {}
            }
        }
    }
}

/// True for an option with `-e` among its letters.
fn is_errexit(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|letters| !letters.starts_with('-') && letters.contains('e'))
}

/// True for a shell script of two commands or more without `set -e` before the second.
fn lacks_errexit(script: &str) -> bool {
    let first = script.lines().next().unwrap_or_default();
    if first.starts_with("#!") && (!first.contains("sh") || first.split_whitespace().any(is_errexit)) {
        return false;
    }
    let commands = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let commands: Vec<&str> = commands.collect();
    let sets = |line: &&str| {
        let mut words = line.split([' ', ';']);
        words.next() == Some("set") && words.any(|word| is_errexit(word) || word == "errexit")
    };
    commands.len() > 1 && !commands.first().is_some_and(sets)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:5 This script goes on after a command that failed";
        check(&RULE, "FROM a\nRUN <<EOF\nb\nc\nEOF\n", &[message]);
        check(&RULE, "FROM a\nRUN <<EOF\nset -eux\nb\nEOF\nRUN <<EOF\nb\nEOF\n", &[]);
        check(&RULE, "FROM a\nRUN <<EOF\n#!/usr/bin/env python3\nb\nc\nEOF\n", &[]);
        check(&RULE, "FROM a\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN <<EOF\nb\nc\nEOF\n", &[]);
    }
}
