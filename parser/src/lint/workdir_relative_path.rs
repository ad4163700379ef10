//! WorkdirRelativePath: where a relative folder lies depends on the base image.

use super::{Findings, Rule, View};
use crate::ast::Kind;
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    name: "WorkdirRelativePath",
    summary: "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    page: Some("workdir-relative-path"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    // Stages that begin with a folder that this file chose.
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    for stage in &view.stages {
        let mut is_settled = settled.contains(stage.base.as_str());
        for instruction in stage.body {
            let Kind::Workdir(path) = &instruction.kind else { continue };
            if !is_settled && !path.as_str().starts_with(['/', '$']) {
                let message = format!(
                    "Relative workdir {:?} can have unexpected results if the base image changes",
                    path.as_str()
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

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        let message = "2:9 Relative workdir \"b\" can have unexpected results if the base image changes";
        check(&RULE, "FROM a\nWORKDIR b\nWORKDIR c\n", &[message]);
        check(&RULE, "FROM a AS b\nWORKDIR /b\nWORKDIR c\nFROM b\nWORKDIR d\n", &[]);
    }
}
