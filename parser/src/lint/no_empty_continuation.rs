//! NoEmptyContinuation: a blank line inside a continued instruction is almost always a mistake.

use super::{Findings, Rule, View};
use crate::ast::Instruction;
use crate::span::Span;

pub(super) static RULE: Rule = Rule {
    name: "NoEmptyContinuation",
    summary: "Empty continuation lines will become errors in a future release",
    page: Some("no-empty-continuation"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let blank = view.diagnostics.iter().filter(|diagnostic| diagnostic.code == "empty-continuation");
    let starts: Vec<u32> = blank.map(|diagnostic| diagnostic.span.start).collect();
    for instruction in &view.file.instructions {
        let lines = own_lines(instruction);
        let from = starts.partition_point(|start| *start < lines.start);
        if starts.get(from).is_some_and(|start| *start <= lines.end) {
            // The reference builder reports the line that ends the instruction.
            let text = view.source.slice(lines);
            let last = text.rfind('\n').map_or(0, |at| at + 1);
            findings
                .add(Span::new(lines.start as usize + last, lines.end as usize), "Empty continuation line");
            findings.hint("remove the blank lines in it, or put `#` on them");
        }
    }
}

/// Span of an instruction without the bodies of its heredocs.
fn own_lines(instruction: &Instruction) -> Span {
    let Span { start, end } = instruction.span;
    // The line end before a body belongs to the line above it.
    let end = instruction.heredocs.first().map_or(end, |heredoc| heredoc.body.start - 1);
    Span { start, end }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a\nRUN b \\\n\n c\n", &["4:1 Empty continuation line"]);
        check(
            &RULE,
            "FROM a\nRUN b \\\n\n c \\\n\n\nd <<E\nE\nRUN e \\\n\n",
            &["7:1 Empty continuation line", "10:1 Empty continuation line"],
        );
        check(&RULE, "FROM a\nRUN b \\\n#\n c\n", &[]);
    }
}
