//! CopyOutsideContext: `..` at the head of a source is dropped, so another file is copied than was intended, or none.

use super::{Findings, Rule, View};
use crate::ast::{CopySource, Kind};

pub(super) static RULE: Rule = Rule {
    name: "CopyOutsideContext",
    summary: "Nothing outside of the build context can be copied",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let sources = match &instruction.kind {
            Kind::Copy(copy) => &copy.sources,
            Kind::Add(add) => &add.sources,
            _ => continue,
        };
        for source in sources {
            let CopySource::Path(text) = source else { continue };
            if let Some(rest) = leaves(text.as_str()) {
                findings.add(text.span(), format!("{:?} does not leave the build context", text.as_str()));
                findings.hint(format!("the copied path is /{rest}; to copy from above the context, build from a parent directory"));
            }
        }
    }
}

/// Rest of a path that leaves its root; `None` when it does not.
fn leaves(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let mut left = false;
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => left |= parts.pop().is_none(),
            name => parts.push(name),
        }
    }
    (left && !path.contains("://")).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(
            &RULE,
            "FROM a\nCOPY ../b c/../../d /e/../../f\n",
            &[
                "2:6 \"../b\" does not leave the build context",
                "2:11 \"c/../../d\" does not leave the build context",
            ],
        );
        check(&RULE, "FROM a\nCOPY b/../c ./d /\nADD https://h/../x /\n", &[]);
    }
}
