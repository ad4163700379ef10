//! ArgShadowsEnv: inside a stage ENV always wins over ARG of the same name.

use super::{Findings, Rule, View};
use crate::ast::Kind;
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    name: "ArgShadowsEnv",
    summary: "An ARG has no effect on a variable that ENV has set",
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
                        findings.add(
                            item.key.span(),
                            format!("ARG {name} has no effect: ENV {name} above it wins"),
                        );
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
    fn findings() {
        check(&RULE, "FROM a\nENV B=1\nARG B=2\n", &["3:5 ARG B has no effect: ENV B above it wins"]);
        check(&RULE, "FROM a\nARG B=2\nENV B=$B\n", &[]);
    }
}
