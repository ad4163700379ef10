//! MultipleInstructionsDisallowed: of several CMDs, ENTRYPOINTs or HEALTHCHECKs in a stage only the last one has
//! effect.

use super::{Findings, Rule, View};
use crate::ast::Kind;
use crate::span::Span;
use std::collections::BTreeMap;

pub(super) static RULE: Rule = Rule {
    name: "MultipleInstructionsDisallowed",
    summary: "Multiple instructions of the same type should not be used in the same stage",
    page: Some("multiple-instructions-disallowed"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let mut last: BTreeMap<&str, Span> = BTreeMap::new();
        for instruction in stage.body {
            let name = match &instruction.kind {
                Kind::Cmd(_) => "CMD",
                Kind::Entrypoint(_) => "ENTRYPOINT",
                Kind::Healthcheck(_) => "HEALTHCHECK",
                _ => continue,
            };
            // The finding is at the instruction without effect.
            if let Some(before) = last.insert(name, instruction.span) {
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                );
                findings.add(before, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:1 Multiple CMD instructions should not be used in the same stage because only the last one will be used";
        check(&RULE, "FROM a\nCMD [\"b\"]\nRUN c\nCMD [\"d\"]\n", &[message]);
        check(&RULE, "FROM a\nCMD [\"b\"]\nFROM c\nCMD [\"d\"]\n", &[]);
    }
}
