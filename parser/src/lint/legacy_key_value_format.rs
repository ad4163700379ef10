//! LegacyKeyValueFormat: `ENV key value` takes only one pair, and has different quoting rules.

use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "LegacyKeyValueFormat",
    summary: "Legacy key/value format with whitespace separator should not be used",
    page: Some("legacy-key-value-format"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let (name, values) = match &instruction.kind {
            Kind::Env(values) => ("ENV", values),
            Kind::Label(values) => ("LABEL", values),
            _ => continue,
        };
        if values.legacy {
            let message =
                format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
            findings.add(instruction.span, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:1 \"ENV key=value\" should be used instead of legacy \"ENV key value\" format";
        check(&RULE, "FROM a\nENV b c\nENV d=e\n", &[message]);
    }
}
