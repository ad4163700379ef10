//! StageNameCasing: stage names are looked up in lower case, so upper case in them is misleading.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "StageNameCasing",
    summary: "Stage names should be lowercase",
    page: Some("stage-name-casing"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for name in view.stages.iter().filter_map(|stage| stage.from.name.as_ref()) {
        if name.as_str().chars().any(char::is_uppercase) {
            findings.add(name.span(), format!("Stage name '{}' should be lowercase", name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a AS Build\n", &["1:11 Stage name 'Build' should be lowercase"]);
        check(&RULE, "FROM a AS build\nFROM B\n", &[]);
    }
}
