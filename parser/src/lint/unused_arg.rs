//! UnusedArg: every RUN after an ARG runs again when its value changes, whether it looks at it or not.

use super::{Findings, Rule, View};
use crate::ast::Kind;
use std::collections::HashSet;

pub(super) static RULE: Rule = Rule {
    name: "UnusedArg",
    summary: "An ARG that nothing names only changes cache keys",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        if !stage.body.iter().any(|instruction| matches!(instruction.kind, Kind::Arg(_))) {
            continue;
        }
        let mut unused = Vec::new();
        // From the end, so that each instruction is looked at once.
        let mut named: HashSet<&str> = HashSet::new();
        for instruction in stage.body.iter().rev() {
            if let Kind::Arg(items) = &instruction.kind {
                unused.extend(items.iter().rev().filter(|item| {
                    let name = item.key.as_str();
                    // The builder itself looks at these.
                    let is_predefined =
                        name.to_lowercase().ends_with("_proxy") || name == "SOURCE_DATE_EPOCH";
                    !is_predefined && !named.contains(name)
                }));
            }
            named.extend(words(instruction.line.as_str()));
            instruction.heredocs.iter().for_each(|heredoc| named.extend(words(&heredoc.content)));
        }
        for item in unused.into_iter().rev() {
            let message = format!("Nothing in this stage names the ARG {}", item.key.as_str());
            findings.add(item.key.span(), message);
        }
    }
}

/// All that could be the name of a variable: a program may read it, too.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        check(&RULE, "FROM a\nARG B\nRUN c $BB\n", &["2:5 Nothing in this stage names the ARG B"]);
        check(&RULE, "FROM a\nARG B\nARG http_proxy\nRUN <<EOF\nc $B\nEOF\n", &[]);
        check(&RULE, "FROM a\nARG B C\nENV D=${B:-1} E=$C\n", &[]);
    }
}
