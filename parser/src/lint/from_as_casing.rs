//! FromAsCasing: `FROM x as y` mixes two casings of keywords.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "FromAsCasing",
    summary: "The 'as' keyword should match the case of the 'from' keyword",
    page: Some("from-as-casing"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let Some(keyword) = &stage.from.as_keyword else { continue };
        let from = stage.instruction.keyword.as_str();
        // Another rule reports a FROM of mixed case.
        let expected = match from {
            from if from == from.to_lowercase() => "as",
            from if from == from.to_uppercase() => "AS",
            _ => continue,
        };
        if keyword.as_str() != expected {
            let message = format!("'{}' and '{from}' keywords' casing do not match", keyword.as_str());
            findings.add(keyword.span(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a as b\n", &["1:8 'as' and 'FROM' keywords' casing do not match"]);
        check(&RULE, "from a AS b\n", &["1:8 'AS' and 'from' keywords' casing do not match"]);
        check(&RULE, "FROM a AS b\nfrom b as c\nFrom c as d\nfrOM d AS e\n", &[]);
    }
}
