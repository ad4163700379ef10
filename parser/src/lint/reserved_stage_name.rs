//! ReservedStageName: `scratch` and `context` have a fixed meaning.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "ReservedStageName",
    summary: "Reserved words should not be used as stage names",
    page: Some("reserved-stage-name"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let (Some(name), Some(written)) = (&stage.name, &stage.from.name) else { continue };
        if matches!(name.as_str(), "scratch" | "context") {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            findings.add(written.span(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "1:11 Stage name should not use the same name as reserved stage \"scratch\"";
        check(&RULE, "FROM a AS scratch\nFROM scratch\n", &[message]);
    }
}
