//! InvalidDefinitionDescription: the comment above an ARG or FROM is its description, which begins with its name.

use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "InvalidDefinitionDescription",
    summary: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`",
    page: Some("invalid-definition-description"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in &view.file.instructions {
        let (keyword, name) = match &instruction.kind {
            Kind::Arg(items) if items.len() == 1 => ("ARG", items[0].key.as_str().to_owned()),
            Kind::From(from) => match &from.name {
                Some(name) => ("FROM", name.as_str().to_owned()),
                None => continue,
            },
            _ => continue,
        };
        let Some(comment) = instruction.comments.last() else { continue };
        let first = comment.value.split_whitespace().next().unwrap_or_default();
        if !first.eq_ignore_ascii_case(&name) {
            let message = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
            findings.add(comment.span, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        let message = "1:1 Comment for ARG should follow the format: `# A <description>`";
        check(&RULE, "# words\nARG A\nFROM a\n", &[message]);
        check(&RULE, "# A is for\nARG A\n# words\n#\nFROM a AS b\n", &[]);
    }
}
