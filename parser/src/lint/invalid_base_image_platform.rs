//! InvalidBaseImagePlatform: the registry has the image for another platform only.

use super::{Findings, Rule, View};

pub(super) static RULE: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    summary: "Base image platform does not match expected target platform",
    page: Some(""),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for (index, stage) in view.stages.iter().enumerate() {
        let platforms = view.facts.bases.get(&index).and_then(|facts| facts.platform.as_ref());
        if let Some((found, expected)) = platforms {
            let message = format!(
                "Base image {} was pulled with platform {found:?}, expected {expected:?} for current build",
                stage.from.image.as_str()
            );
            findings.add(stage.from.image.span(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check_facts;
    use super::super::{BaseFacts, Facts};
    use super::RULE;
    use std::collections::BTreeMap;

    #[test]
    fn problems_are_found() {
        let platform = Some(("linux/amd64".to_owned(), "linux/arm64".to_owned()));
        let base = BaseFacts { platform, ..BaseFacts::default() };
        let facts = Facts { bases: BTreeMap::from([(1, base)]), ..Facts::default() };
        let message = "2:6 Base image b was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build";
        check_facts(&RULE, "FROM a\nFROM b\n", &facts, &[message]);
    }
}
