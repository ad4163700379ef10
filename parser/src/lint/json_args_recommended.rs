//! JSONArgsRecommended: a shell between the program and the kernel keeps signals to itself.

use super::{Findings, Rule, View};
use crate::ast::{CommandLine, Kind};

pub(super) static RULE: Rule = Rule {
    name: "JSONArgsRecommended",
    summary: "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    page: Some("json-args-recommended"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for stage in &view.stages {
        for instruction in stage.body {
            let (name, command) = match &instruction.kind {
                // Whoever chooses a shell means to use it.
                Kind::Shell(_) => break,
                Kind::Cmd(command) => ("CMD", command),
                Kind::Entrypoint(command) => ("ENTRYPOINT", command),
                _ => continue,
            };
            if let CommandLine::Shell(text) = command {
                let message = format!(
                    "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                );
                findings.add(instruction.span, message);
                findings.hint(format!("write {name} {}", as_json(text.as_str())));
            }
        }
    }
}

/// The words as JSON where that means the same, or through a shell.
fn as_json(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " ./_-:=@,+".contains(c);
    let words: Vec<&str> = match text.chars().all(plain) {
        true => text.split_whitespace().collect(),
        false => vec!["/bin/sh", "-c", text],
    };
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        let end = "to prevent unintended behavior related to OS signals";
        let cmd = format!("2:1 JSON arguments recommended for CMD {end}");
        let entrypoint = format!("3:1 JSON arguments recommended for ENTRYPOINT {end}");
        check(&RULE, "FROM a\nCMD b c\nENTRYPOINT d\n", &[&cmd, &entrypoint]);
        check(&RULE, "FROM a\nCMD [\"b\"]\nSHELL [\"x\"]\nENTRYPOINT d\n", &[]);
    }
}
