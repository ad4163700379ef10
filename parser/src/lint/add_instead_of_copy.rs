//! AddInsteadOfCopy: ADD may fetch or unpack, depending on its source; COPY never does either.

use super::{Findings, Rule, View};
use crate::ast::{CopySource, Kind};

pub(super) static RULE: Rule = Rule {
    name: "AddInsteadOfCopy",
    summary: "COPY is enough where nothing is fetched or unpacked",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let Kind::Add(add) = &instruction.kind else { continue };
        let plain = |source: &CopySource| match source {
            CopySource::Heredoc(_) => true,
            CopySource::Path(text) => is_plain(text.as_str()),
        };
        if add.sources.iter().all(plain) {
            findings.add(instruction.keyword.span(), "ADD of plain files: COPY would do");
        }
    }
}

/// True for local paths without the extension of an archive.
fn is_plain(path: &str) -> bool {
    let path = path.to_lowercase();
    let archive = [".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".tbz", ".txz"];
    !path.contains("://")
        && !path.starts_with("git@")
        && !path.contains(['*', '?', '[', '$'])
        && !archive.iter().any(|end| path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a\nADD b c /\n", &["2:1 ADD of plain files: COPY would do"]);
        check(&RULE, "FROM a\nADD b.tar.gz /\nADD https://x/y /\n", &[]);
    }
}
