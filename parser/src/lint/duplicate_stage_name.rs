//! DuplicateStageName: a second stage of the same name hides the first one.

use super::{Findings, Rule, View};
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    name: "DuplicateStageName",
    summary: "Stage names should be unique",
    page: Some("duplicate-stage-name"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for stage in &view.stages {
        let (Some(name), Some(written)) = (&stage.name, &stage.from.name) else { continue };
        if !seen.insert(name.as_str()) {
            findings
                .add(written.span(), format!("Duplicate stage name {name:?}, stage names should be unique"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:11 Duplicate stage name \"b\", stage names should be unique";
        check(&RULE, "FROM a AS b\nFROM a AS B\nFROM a AS c\n", &[message]);
    }
}
