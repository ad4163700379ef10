//! AptGetUpdateAlone: a cached `apt-get update` leaves later installations with old package lists.

use super::shell;
use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "AptGetUpdateAlone",
    summary: "Package lists and installation belong in one RUN",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let Some(script) = shell::script(instruction).filter(|script| script.contains("apt")) else {
            continue;
        };
        let has = |verb: &str| shell::commands(script).any(|words| is_apt(&words, verb));
        let has_cache = matches!(&instruction.kind, Kind::Run(run) if !run.mounts.is_empty());
        match (has("update"), has("install")) {
            (true, false) if !has_cache => {
                findings.add(
                    instruction.span,
                    "apt-get update alone is cached: later installations get old packages",
                );
                findings.hint("write apt-get update && apt-get install -y … in one RUN");
            }
            (false, true) if !has_cache => {
                findings.add(instruction.span, "apt-get install without apt-get update in the same RUN");
                findings.hint("write apt-get update && apt-get install -y … in one RUN");
            }
            _ => {}
        }
    }
}

fn is_apt(words: &[&str], verb: &str) -> bool {
    matches!(words.first(), Some(&"apt-get" | &"apt"))
        && words.iter().skip(1).find(|word| !word.starts_with('-')) == Some(&verb)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        let alone = "2:1 apt-get update alone is cached: later installations get old packages";
        let without = "3:1 apt-get install without apt-get update in the same RUN";
        check(&RULE, "FROM a\nRUN apt-get update\nRUN apt-get -y install b\n", &[alone, without]);
        check(&RULE, "FROM a\nRUN apt-get update && \\\n apt-get install -y b\n", &[]);
    }
}
