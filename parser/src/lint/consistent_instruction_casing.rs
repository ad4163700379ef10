//! ConsistentInstructionCasing: keywords in two casings are hard to scan; the casing of the majority is expected.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "ConsistentInstructionCasing",
    summary: "All commands within the Dockerfile should use the same casing (either upper or lower)",
    page: Some("consistent-instruction-casing"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let keywords = || view.in_stages().map(|instruction| &instruction.keyword);
    // Keywords consist of ASCII letters.
    let is_lower = |word: &str| !word.bytes().any(|byte| byte.is_ascii_uppercase());
    let is_upper = |word: &str| !word.bytes().any(|byte| byte.is_ascii_lowercase());
    let lower = keywords().filter(|keyword| is_lower(keyword.as_str())).count();
    let upper = keywords().filter(|keyword| is_upper(keyword.as_str())).count();
    for keyword in keywords() {
        let correct = match lower > upper {
            true if !is_lower(keyword.as_str()) => "lowercase",
            false if !is_upper(keyword.as_str()) => "uppercase",
            _ => continue,
        };
        let message = format!(
            "Command '{}' should match the case of the command majority ({correct})",
            keyword.as_str()
        );
        findings.add(keyword.span(), message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:1 Command 'run' should match the case of the command majority (uppercase)";
        check(&RULE, "FROM a\nrun b\nRUN c\n", &[message]);
        let message = "1:1 Command 'From' should match the case of the command majority (lowercase)";
        check(&RULE, "From a\nrun b\n", &[message]);
        check(&RULE, "from a\nrun b\n", &[]);
    }
}
