//! CdInRun: `cd` ends with its RUN; WORKDIR persists, and is visible in the image's config.

use super::shell;
use super::{Findings, Rule, View};

pub(super) static RULE: Rule =
    Rule { name: "CdInRun", summary: "WORKDIR sets the directory of commands", page: None, check };

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let Some(script) = shell::script(instruction).filter(|script| script.contains("cd ")) else {
            continue;
        };
        let mut commands = shell::commands(script);
        let first = commands.next();
        let is_cd = first.is_some_and(|words| words.len() == 2 && words[0] == "cd");
        if is_cd && !script.contains('(') {
            findings.add(instruction.span, "This RUN begins with cd");
            findings.hint("put WORKDIR above it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a\nRUN cd /b && make\n", &["2:1 This RUN begins with cd"]);
        check(&RULE, "FROM a\nRUN make && cd /b && make\nRUN (cd /b && make)\n", &[]);
    }
}
