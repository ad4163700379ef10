//! JSONArgsRecommended: in shell form the shell is the first process and does not forward signals to the program.

use super::{Findings, Rule, View};
use crate::ast::{CommandLine, Kind};
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    name: "JSONArgsRecommended",
    summary: "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    page: Some("json-args-recommended"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    // Stages that set a shell, and those that start from them.
    let mut with_shell: BTreeSet<&str> = BTreeSet::new();
    for (index, stage) in view.stages.iter().enumerate() {
        let base = view.facts.bases.get(&index);
        let mut has_shell =
            with_shell.contains(stage.base.as_str()) || base.is_some_and(|base| base.has_shell);
        for instruction in stage.body {
            let (name, command) = match &instruction.kind {
                Kind::Shell(_) => {
                    has_shell = true;
                    continue;
                }
                Kind::Cmd(command) => ("CMD", command),
                Kind::Entrypoint(command) => ("ENTRYPOINT", command),
                _ => continue,
            };
            // In a file with SHELL, the shell form is intended.
            let CommandLine::Shell(text) = command else { continue };
            if !has_shell {
                let message = format!(
                    "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                );
                findings.add(instruction.span, message);
                findings.hint(advice(name, text.as_str()));
            }
        }
        match (&stage.name, has_shell) {
            (Some(name), true) => with_shell.insert(name),
            (Some(name), false) => with_shell.remove(name.as_str()),
            _ => false,
        };
    }
}

/// Hint with the JSON form of the command.
fn advice(name: &str, text: &str) -> String {
    match almost_json(text) {
        Some(fault) => format!("{text} is not read as JSON, but run by a shell: {fault}"),
        None => format!("write {name} {}", as_json(text)),
    }
}

/// Reason why a text in brackets is not a JSON array of strings; `None` when it does not look like one.
fn almost_json(text: &str) -> Option<&'static str> {
    let inside = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim_end();
    if inside.contains('\'') && !inside.contains('"') {
        return Some("its strings must stand in double quotes");
    }
    if inside.contains(['\u{201c}', '\u{201d}']) {
        return Some("its quotes must be plain double quotes");
    }
    if inside.ends_with(',') {
        return Some("there must be no comma behind the last string");
    }
    Some("it must be strings in double quotes with a comma between them")
}

/// Arguments as JSON where that is equivalent, or as a call of the shell.
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
    use super::super::testing::{check, check_facts};
    use super::super::{BaseFacts, Facts};
    use super::RULE;
    use std::collections::BTreeMap;

    #[test]
    fn problems_are_found() {
        let end = "to prevent unintended behavior related to OS signals";
        let cmd = format!("2:1 JSON arguments recommended for CMD {end}");
        let entrypoint = format!("3:1 JSON arguments recommended for ENTRYPOINT {end}");
        check(&RULE, "FROM a\nCMD b c\nENTRYPOINT d\n", &[&cmd, &entrypoint]);
        check(&RULE, "FROM a\nCMD [\"b\"]\nSHELL [\"x\"]\nENTRYPOINT d\n", &[]);
    }

    #[test]
    fn a_shell_is_inherited() {
        check(&RULE, "FROM a AS b\nSHELL [\"x\"]\nFROM B\nCMD d\nFROM B AS c\nFROM c\nENTRYPOINT d\n", &[]);
        let cmd =
            "5:1 JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
        check(&RULE, "FROM a AS b\nSHELL [\"x\"]\nFROM a AS b\nFROM b\nCMD d\nSHELL [\"x\"]\n", &[cmd]);
        let base = BaseFacts { has_shell: true, ..BaseFacts::default() };
        let facts = Facts { bases: BTreeMap::from([(0, base)]), ..Facts::default() };
        check_facts(&RULE, "FROM a\nCMD b\n", &facts, &[]);
    }

    #[test]
    fn arrays_that_are_not_json_are_explained() {
        for (text, expected) in [
            ("['a']", "double quotes"),
            ("[\"a\",]", "no comma"),
            ("[\u{201c}a\u{201d}]", "plain double quotes"),
            ("[a, b]", "strings in double quotes"),
            ("a b", "write CMD [\"a\", \"b\"]"),
        ] {
            let advice = super::advice("CMD", text);
            assert!(advice.contains(expected), "{text}: {advice}");
        }
    }
}
