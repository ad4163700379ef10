//! FromPlatformFlagConstDisallowed: a constant platform restricts the Dockerfile to that platform.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "FromPlatformFlagConstDisallowed",
    summary: "FROM --platform flag should not use a constant value",
    page: Some("from-platform-flag-const-disallowed"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let Some(platform) = stage.from.platform.as_ref().filter(|text| !text.as_str().contains('$')) else {
            continue;
        };
        // A stage with the platform in its name is one of several.
        let name = stage.name.as_deref().unwrap_or_default();
        let is_named =
            platform.as_str().split('/').take(2).any(|part| !part.is_empty() && name.contains(part));
        if !is_named {
            let message =
                format!("FROM --platform flag should not use constant value {:?}", platform.as_str());
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
        let message = "1:17 FROM --platform flag should not use constant value \"linux/amd64\"";
        check(&RULE, "FROM --platform=linux/amd64 a\n", &[message]);
        check(&RULE, "FROM --platform=linux/amd64 a AS build_amd64\nFROM --platform=$P a\n", &[]);
    }
}
