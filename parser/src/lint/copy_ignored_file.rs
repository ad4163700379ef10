//! CopyIgnoredFile: what the ignore file leaves out cannot be copied.

use super::{Findings, Rule, View};
use crate::ast::{CopySource, Kind};

pub(super) static RULE: Rule = Rule {
    name: "CopyIgnoredFile",
    summary: "Attempting to Copy file that is excluded by .dockerignore",
    page: Some("copy-ignored-file"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    // With exceptions, what is below a folder may be let in again.
    let Some(ignore) = view.facts.ignore.as_ref().filter(|ignore| !ignore.has_exceptions()) else { return };
    for instruction in view.in_stages() {
        let (name, sources) = match &instruction.kind {
            Kind::Copy(copy) if copy.from.is_none() => ("Copy", &copy.sources),
            Kind::Add(add) => ("Add", &add.sources),
            _ => continue,
        };
        for source in sources {
            let CopySource::Path(text) = source else { continue };
            let path = text.as_str().trim_start_matches(['.', '/']);
            let is_pattern = path.contains(['*', '?', '[', '$', ':']);
            if !path.is_empty() && !is_pattern && ignore.decide_alone(path.trim_end_matches('/')).is_ignored()
            {
                let message = format!(
                    "Attempting to {name} file {:?} that is excluded by .dockerignore",
                    text.as_str()
                );
                findings.add(text.span(), message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        let message = "2:6 Attempting to Copy file \"b.log\" that is excluded by .dockerignore";
        super::super::testing::check_with(&RULE, "FROM a\nCOPY b.log c /\n", &["*.log"], &[message]);
        super::super::testing::check_with(&RULE, "FROM a\nCOPY b.log c /\n", &["*.log", "!b.log"], &[]);
        check(&RULE, "FROM a\nCOPY b.log c /\n", &[]);
    }
}
