//! WorkdirRelativePath: the meaning of a relative directory depends on the base image.

use super::{Findings, Rule, View, scope};
use crate::ast::Kind;
use crate::expand::{self, Rules};
use std::collections::{BTreeMap, BTreeSet};

pub(super) static RULE: Rule = Rule {
    name: "WorkdirRelativePath",
    summary: "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    page: Some("workdir-relative-path"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let relative = relative_dirs(view);
    // Stages that start in a directory set by this file.
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    for stage in &view.stages {
        let mut is_settled = settled.contains(stage.base.as_str());
        for instruction in stage.body {
            let Kind::Workdir(path) = &instruction.kind else { continue };
            if let Some(value) = relative.get(&instruction.span.start).filter(|_| !is_settled) {
                let message = format!(
                    "Relative workdir {value:?} can have unexpected results if the base image changes"
                );
                findings.add(path.span(), message);
            }
            is_settled = true;
        }
        if is_settled {
            settled.extend(stage.name.as_deref());
        }
    }
}

/// True for a path from the root, or from a drive of Windows.
fn is_absolute(path: &str) -> bool {
    let mut characters = path.chars();
    let is_drive = characters.next().is_some_and(|letter| letter.is_ascii_alphabetic())
        && characters.next() == Some(':')
        && matches!(characters.next(), None | Some('/' | '\\'));
    path.starts_with('/') || is_drive
}

/// Values of relative WORKDIRs, by the offset of the instruction.
fn relative_dirs(view: &View<'_>) -> BTreeMap<u32, String> {
    let rules = Rules::value(view.file.directives.escape);
    let mut relative = BTreeMap::new();
    scope::walk(view, &mut |instruction, scope| {
        let Kind::Workdir(path) = &instruction.kind else { return };
        let Ok(expansion) = expand::expand(path.as_str(), scope, rules) else { return };
        // The base image may set variables that are unset here.
        let is_known = expansion.missed.is_empty() || !scope.is_open();
        if is_known && !is_absolute(&expansion.value) {
            relative.insert(instruction.span.start, expansion.value);
        }
    });
    relative
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:9 Relative workdir \"b\" can have unexpected results if the base image changes";
        check(&RULE, "FROM a\nWORKDIR b\nWORKDIR c\n", &[message]);
        check(&RULE, "FROM a AS b\nWORKDIR /b\nWORKDIR c\nFROM b\nWORKDIR d\n", &[]);
    }
}
