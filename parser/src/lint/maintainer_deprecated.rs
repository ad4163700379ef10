//! MaintainerDeprecated: a label names the author in a form that tools can read.

use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "MaintainerDeprecated",
    summary: "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    page: Some("maintainer-deprecated"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        if let Kind::Maintainer(name) = &instruction.kind {
            findings.add(instruction.span, "Maintainer instruction is deprecated in favor of using label");
            findings.hint(format!("write LABEL org.opencontainers.image.authors={:?}", name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:1 Maintainer instruction is deprecated in favor of using label";
        check(&RULE, "FROM a\nMAINTAINER me\n", &[message]);
    }
}
