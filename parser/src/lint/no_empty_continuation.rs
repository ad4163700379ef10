//! NoEmptyContinuation: a blank line inside a continued instruction is almost always a mistake.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "NoEmptyContinuation",
    summary: "Empty continuation lines will become errors in a future release",
    page: Some("no-empty-continuation"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let found = view.diagnostics.iter().filter(|diagnostic| diagnostic.code == "empty-continuation");
    for diagnostic in found {
        findings.add(diagnostic.span, "Empty continuation line");
        findings.hint("remove the line, or put `#` on it");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        check(&RULE, "FROM a\nRUN b \\\n\n c\n", &["3:1 Empty continuation line"]);
        check(&RULE, "FROM a\nRUN b \\\n#\n c\n", &[]);
    }
}
