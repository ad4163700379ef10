//! UnusedArg: every RUN after an ARG runs again when its value changes, whether it reads the variable or not.
//!
//! A program may read a variable that the file does not name: only commands known not to do so are considered.

use super::{Findings, Rule, View, shell};
use crate::ast::{CommandLine, Instruction, Kind};
use std::collections::HashSet;

pub(super) static RULE: Rule =
    Rule { name: "UnusedArg", summary: "An unused ARG only changes cache keys", page: None, check };

fn check(view: &View<'_>, findings: &mut Findings) {
    // Stages that others start from pass their ARGs on.
    let bases: HashSet<&str> = view.stages.iter().map(|stage| stage.base.as_str()).collect();
    let hands_on = view.stages.iter().any(|stage| stage.name.as_deref().is_some_and(|it| bases.contains(it)));
    let mut below: HashSet<&str> = HashSet::new();
    let mut is_read_below = false;
    let mut unused = Vec::new();
    for stage in view.stages.iter().rev() {
        let is_base = stage.name.as_deref().is_some_and(|name| bases.contains(name));
        let has_arguments = stage.body.iter().any(|instruction| matches!(instruction.kind, Kind::Arg(_)));
        if !has_arguments && !hands_on {
            continue;
        }
        // Backwards, so that each instruction is examined once.
        let mut named: HashSet<&str> = HashSet::new();
        let mut is_read = is_base && is_read_below;
        for instruction in stage.body.iter().rev() {
            if let Kind::Arg(items) = &instruction.kind {
                unused.extend(items.iter().rev().filter(|item| {
                    let name = item.key.as_str();
                    !(is_read || is_known(name) || named.contains(name) || is_base && below.contains(name))
                }));
            }
            is_read |= may_read(instruction);
            named.extend(words(instruction.line.as_str()));
            instruction.heredocs.iter().for_each(|heredoc| named.extend(words(&heredoc.content)));
        }
        is_read_below |= is_read;
        below.extend(named);
    }
    for item in unused.into_iter().rev() {
        let message = format!("Nothing in this stage names the ARG {}", item.key.as_str());
        findings.add(item.key.span(), message);
    }
}

/// Programs that read no variables but those named on the command line.
const READ_NOTHING: &[&str] = &[
    ":", "[", "addgroup", "adduser", "cat", "cd", "chmod", "chown", "cp", "echo", "exit", "false",
    "groupadd", "id", "install", "ln", "ls", "mkdir", "mktemp", "mv", "printf", "pwd", "rm", "rmdir", "sed",
    "set", "sleep", "test", "touch", "true", "useradd", "usermod",
];

/// True when a program that the instruction runs may read any variable.
fn may_read(instruction: &Instruction) -> bool {
    let Kind::Run(run) = &instruction.kind else { return false };
    let reads = |program: &str| !READ_NOTHING.contains(&program.rsplit('/').next().unwrap_or(program));
    match (&run.command, shell::script(instruction)) {
        (CommandLine::Exec(words), _) => words.first().is_some_and(|program| reads(program.as_str())),
        (_, Some(script)) if instruction.heredocs.is_empty() || run.is_heredoc_alone() => {
            script.starts_with("#!") || shell::commands(script).any(|words| reads(words[0]))
        }
        _ => true,
    }
}

/// Variables that programs read from the environment although no command names them.
const READ_BY_PROGRAMS: [&str; 8] =
    ["DEBIAN_FRONTEND", "SOURCE_DATE_EPOCH", "PATH", "HOME", "LANG", "TZ", "CI", "NODE_ENV"];
/// Prefixes of further such variables.
const PREFIXES: [&str; 17] = [
    "APT_",
    "BUILDKIT_",
    "BUNDLE_",
    "CARGO_",
    "CGO_",
    "CMAKE_",
    "COMPOSER_",
    "DOTNET_",
    "GIT_",
    "GO",
    "LC_",
    "MAVEN_",
    "NPM_",
    "PIP_",
    "POETRY_",
    "RUST",
    "UV_",
];

fn is_known(name: &str) -> bool {
    READ_BY_PROGRAMS.contains(&name)
        || ["TARGET", "BUILD"].iter().any(|prefix| name.starts_with(prefix))
        || PREFIXES.iter().any(|prefix| name.to_uppercase().starts_with(prefix))
        || name.to_ascii_lowercase().ends_with("_proxy")
}

/// Words that could be the name of a variable: a program may read it, too.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:5 Nothing in this stage names the ARG B";
        check(&RULE, "FROM a\nARG B\nRUN echo $BB && mkdir -p /c\nRUN [\"/bin/touch\", \"d\"]\n", &[message]);
        check(&RULE, "FROM a\nRUN make\nARG B\nCOPY c /\n", &["3:5 Nothing in this stage names the ARG B"]);
        check(&RULE, "FROM a\nARG B\nARG http_proxy\nRUN <<EOF\necho $B\nEOF\n", &[]);
        for run in [
            "make",
            "echo a && ./b.sh",
            "apt-get install -y c",
            "[\"./d\"]",
            "<<EOF\n#!/bin/e\nEOF",
            "<<EOF cat\nEOF",
        ] {
            check(&RULE, &format!("FROM a\nARG B\nRUN {run}\n"), &[]);
        }
        check(&RULE, "FROM a AS x\nARG B\nFROM x\nRUN make\n", &[]);
        check(&RULE, "FROM a\nARG B C\nENV D=${B:-1} E=$C\n", &[]);
    }
}
