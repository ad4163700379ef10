//! RedundantTargetPlatform: the target platform is FROM's default.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "RedundantTargetPlatform",
    summary: "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    page: Some("redundant-target-platform"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for platform in view.stages.iter().filter_map(|stage| stage.from.platform.as_ref()) {
        if matches!(platform.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                platform.as_str()
            );
            findings.add(platform.span(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "1:17 Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
        check(&RULE, "FROM --platform=$TARGETPLATFORM a\n", &[message]);
        check(&RULE, "FROM --platform=$BUILDPLATFORM a\n", &[]);
    }
}
