//! RemoteAddWithoutChecksum: a checksum ensures that a remote file is the intended one.

use super::{Findings, Rule, View};
use crate::ast::{CopySource, Kind};

pub(super) static RULE: Rule = Rule {
    name: "RemoteAddWithoutChecksum",
    summary: "A remote file without a checksum may change without notice",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let Kind::Add(add) = &instruction.kind else { continue };
        if add.checksum.is_some() {
            continue;
        }
        for source in &add.sources {
            let CopySource::Path(text) = source else { continue };
            let address = text.as_str();
            let is_git = address.split(['#', '?']).next().is_some_and(|path| path.ends_with(".git"));
            if (address.starts_with("https://") || address.starts_with("http://")) && !is_git {
                findings.add(text.span(), "This file is fetched without a checksum");
                findings.hint("add --checksum=sha256:…");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a\nADD https://b/c /\n", &["2:5 This file is fetched without a checksum"]);
        check(&RULE, "FROM a\nADD --checksum=sha256:1 https://b/c /\nADD https://b/c.git /\nADD d /\n", &[]);
    }
}
