//! RecursiveChangeOfCopiedFiles: layers store whole files, so a RUN that changes only their owners stores them again.

use super::shell;
use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "RecursiveChangeOfCopiedFiles",
    summary: "Changing owners or modes of copied files stores them twice",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let mut copied: Vec<&str> = Vec::new();
        for instruction in stage.body {
            match &instruction.kind {
                Kind::Copy(copy) => copied.push(copy.destination.as_str()),
                Kind::Add(add) => copied.push(add.destination.as_str()),
                _ => {}
            }
            let Some(script) =
                shell::script(instruction).filter(|script| !copied.is_empty() && script.contains("ch"))
            else {
                continue;
            };
            for words in shell::commands(script) {
                let Some(program @ ("chown" | "chmod")) = words.first().copied() else { continue };
                let is_recursive = words.iter().any(|word| *word == "-R" || *word == "--recursive");
                let targets = words[1..].iter().filter(|word| !word.starts_with('-')).skip(1);
                let copied = &copied[copied.len().saturating_sub(MAX_COPIES)..];
                let hits = targets.into_iter().any(|target| copied.iter().any(|to| overlap(target, to)));
                if is_recursive && hits {
                    let message = format!("{program} -R of files that were copied stores them twice");
                    findings.add(instruction.span, message);
                    findings.hint(format!("use COPY --{program}=…"));
                }
            }
        }
    }
}

/// Number of copies that a change is compared with; bounds the time for hostile files.
const MAX_COPIES: usize = 50;

/// True when one directory contains the other, as far as the texts show.
fn overlap(target: &str, destination: &str) -> bool {
    let (target, destination) = (target.trim_end_matches('/'), destination.trim_end_matches('/'));
    match (target.starts_with('/'), destination.starts_with('/')) {
        (true, true) => {
            let inside = |inner: &str, outer: &str| {
                inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            inside(target, destination) || inside(destination, target)
        }
        // Both paths are relative to the working directory.
        (false, false) => target == destination || target == "." || destination == "." || destination == "./",
        // An absolute empty path is the whole tree.
        _ => target.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "3:1 chown -R of files that were copied stores them twice";
        check(&RULE, "FROM a\nCOPY b /b\nRUN c && chown -R d /b\n", &[message]);
        check(&RULE, "FROM a\nRUN chown -R d /b\n", &[]);
    }
}
