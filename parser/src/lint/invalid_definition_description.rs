//! InvalidDefinitionDescription: the comment above an ARG or FROM is its description, and must begin with its name.

use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "InvalidDefinitionDescription",
    summary: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    page: Some("invalid-definition-description"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in &view.file.instructions {
        let (keyword, names) = match &instruction.kind {
            Kind::Arg(items) => ("ARG", items.iter().map(|item| item.key.as_str().to_owned()).collect()),
            // Stage names are compared in lower case.
            Kind::From(from) => ("FROM", Vec::from_iter(from.stage_name())),
            _ => continue,
        };
        let Some(comment) = instruction.comments.last() else { continue };
        let first = comment.value.split(' ').next().unwrap_or_default();
        let example = match names.as_slice() {
            [] => continue,
            [name] => name,
            _ => "<arg_key>",
        };
        if !names.iter().any(|name| name == first) {
            let message =
                format!("Comment for {keyword} should follow the format: `# {example} <description>`");
            findings.add(instruction.span, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:1 Comment for ARG should follow the format: `# A <description>`";
        check(&RULE, "# words\nARG A\nFROM a\n", &[message]);
        let message = "2:1 Comment for ARG should follow the format: `# <arg_key> <description>`";
        check(&RULE, "# a is for\nARG A B\n# B is for\nARG A B\nFROM a\n", &[message]);
        let message = "2:1 Comment for FROM should follow the format: `# base <description>`";
        check(&RULE, "# Base is it\nFROM a AS Base\n# base is it\nFROM a AS Base\n", &[message]);
        check(&RULE, "# A is for\nARG A\n# words\n#\nFROM a AS b\n", &[]);
    }
}
