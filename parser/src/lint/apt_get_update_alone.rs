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
        let has = |verbs: &[&str]| shell::commands(script).any(|words| is_apt(&words, verbs));
        let has_cache = matches!(&instruction.kind, Kind::Run(run) if !run.mounts.is_empty());
        // Other programs call apt-get, too.
        let installs = || shell::commands(script).any(|words| words[1..].contains(&"install"));
        match (has(&["update"]), has(&INSTALLING)) {
            (true, false) if !has_cache && !installs() => {
                findings.add(
                    instruction.span,
                    "apt-get update alone is cached: later installations get old packages",
                );
                findings.hint("write apt-get update && apt-get install -y … in one RUN");
            }
            (false, true) if !has_cache && has(&["install"]) => {
                findings.add(instruction.span, "apt-get install without apt-get update in the same RUN");
                findings.hint("write apt-get update && apt-get install -y … in one RUN");
            }
            _ => {}
        }
    }
}

/// What needs package lists that are new.
const INSTALLING: [&str; 7] =
    ["install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "satisfy", "source"];
/// Options that take a word.
const WITH_VALUE: [&str; 6] = ["-o", "-c", "-t", "--option", "--config-file", "--target-release"];

fn is_apt(words: &[&str], verbs: &[&str]) -> bool {
    if !matches!(words.first(), Some(&"apt-get" | &"apt")) {
        return false;
    }
    let mut before = "";
    let verb = words[1..].iter().find(|word| {
        let takes = WITH_VALUE.contains(&std::mem::replace(&mut before, word));
        !takes && !word.starts_with('-')
    });
    verb.is_some_and(|verb| verbs.contains(verb))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        check(&RULE, "FROM a\nRUN apt-get -o A=b update && apt-get -y upgrade\n", &[]);
        check(&RULE, "FROM a\nRUN apt-get update && rosdep install x\nRUN apt-get upgrade\n", &[]);
        let alone = "2:1 apt-get update alone is cached: later installations get old packages";
        let without = "3:1 apt-get install without apt-get update in the same RUN";
        check(&RULE, "FROM a\nRUN apt-get update\nRUN apt-get -y install b\n", &[alone, without]);
        check(&RULE, "FROM a\nRUN apt-get update && \\\n apt-get install -y b\n", &[]);
    }
}
