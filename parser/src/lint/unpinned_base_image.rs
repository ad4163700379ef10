//! UnpinnedBaseImage: with a movable tag the same Dockerfile results in different images over time.

use super::{Findings, Rule, View};
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    name: "UnpinnedBaseImage",
    summary: "A base image without a tag, or with latest, changes without notice",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for stage in &view.stages {
        let image = stage.from.image.as_str();
        let is_earlier = names.contains(stage.base.as_str()) || image == "scratch";
        names.extend(stage.name.as_deref());
        if is_earlier || image.contains(['$', '@']) || image.is_empty() {
            continue;
        }
        let last = image.rsplit('/').next().unwrap_or(image);
        match last.split_once(':') {
            None => findings.add(stage.from.image.span(), format!("Base image {image:?} has no tag")),
            Some((_, "latest")) => {
                findings.add(stage.from.image.span(), format!("Base image {image:?} has the tag latest"));
            }
            Some(_) => continue,
        }
        findings.hint("name a version, such as debian:bookworm");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a\n", &["1:6 Base image \"a\" has no tag"]);
        check(&RULE, "FROM h:5000/a:latest\n", &["1:6 Base image \"h:5000/a:latest\" has the tag latest"]);
        check(&RULE, "FROM a:1 AS b\nFROM b\nFROM scratch\nFROM c@sha256:1\nFROM $D\n", &[]);
    }
}
