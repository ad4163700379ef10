//! UnusedArg: every RUN after an ARG runs again when its value changes, whether it looks at it or not.

use super::{Findings, Rule, View};
use crate::ast::{Instruction, Kind};

pub(super) static RULE: Rule = Rule {
    name: "UnusedArg",
    summary: "An ARG that nothing names only changes cache keys",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        for (index, instruction) in stage.body.iter().enumerate() {
            let Kind::Arg(items) = &instruction.kind else { continue };
            let later = &stage.body[index + 1..];
            for item in items {
                let name = item.key.as_str();
                let is_named = later.iter().any(|instruction| names(instruction, name));
                // The builder itself looks at these.
                let is_predefined = name.to_lowercase().ends_with("_proxy") || name == "SOURCE_DATE_EPOCH";
                if !is_named && !is_predefined {
                    findings.add(item.key.span(), format!("Nothing in this stage names the ARG {name}"));
                }
            }
        }
    }
}

/// True when the word stands anywhere in an instruction or its heredocs: a program may read it, too.
fn names(instruction: &Instruction, name: &str) -> bool {
    let has = |text: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.match_indices(name)
            .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part))
    };
    has(instruction.line.as_str()) || instruction.heredocs.iter().any(|heredoc| has(&heredoc.content))
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
