//! RecursiveChangeOfCopiedFiles: a layer holds whole files: a RUN that changes only their owner holds them once more.

use super::shell;
use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "RecursiveChangeOfCopiedFiles",
    summary: "Changing owners or modes of copied files stores them twice",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        let mut copied = false;
        for instruction in stage.body {
            copied |= matches!(instruction.kind, Kind::Copy(_) | Kind::Add(_));
            let Some(script) = shell::script(instruction).filter(|script| copied && script.contains("ch"))
            else {
                continue;
            };
            for words in shell::commands(script) {
                let Some(program @ ("chown" | "chmod")) = words.first().copied() else { continue };
                if words.iter().any(|word| *word == "-R" || *word == "--recursive") {
                    let message = format!("{program} -R of files that were copied stores them twice");
                    findings.add(instruction.span, message);
                    findings.hint(format!("use COPY --{program}=…"));
                }
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
        let message = "3:1 chown -R of files that were copied stores them twice";
        check(&RULE, "FROM a\nCOPY b /b\nRUN c && chown -R d /b\n", &[message]);
        check(&RULE, "FROM a\nRUN chown -R d /b\n", &[]);
    }
}
