//! ArgShadowsEnv: after an ENV and an ARG of one name, steps see the ARG, and containers of the image the ENV.

use super::{Findings, Rule, View};
use crate::ast::Kind;
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    name: "ArgShadowsEnv",
    summary: "An ARG of the same name hides an ENV from later steps",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let mut set: BTreeSet<&str> = BTreeSet::new();
        for instruction in stage.body {
            match &instruction.kind {
                Kind::Env(values) => set.extend(values.pairs.iter().map(|pair| pair.key.as_str())),
                Kind::Arg(items) => {
                    for item in items.iter().filter(|item| set.contains(item.key.as_str())) {
                        let name = item.key.as_str();
                        let message = format!(
                            "Steps behind this see ARG {name}, containers of the image ENV {name} above it"
                        );
                        findings.add(item.key.span(), message);
                        findings.hint("give one of them another name");
                    }
                }
                _ => {}
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
        check(
            &RULE,
            "FROM a\nENV B=1\nARG B=2\n",
            &["3:5 Steps behind this see ARG B, containers of the image ENV B above it"],
        );
        check(&RULE, "FROM a\nARG B=2\nENV B=$B\n", &[]);
    }
}
