//! Formatting preserves the meaning: files of `testdata/parser` and `testdata/projects` have the same instructions
//! before and after, word for word.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_conformance::cases;
use kiln_parser::ast::{CommandLine, Healthcheck, Instruction, Kind, Run};
use kiln_parser::{Parse, Source, format::format, parse};
use std::path::{Path, PathBuf};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name)
}

/// All Dockerfiles with their names.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for file in cases::read_dir(&testdata("parser")).unwrap() {
        files.extend(file.cases.iter().map(|case| (case.name.clone(), case.bytes())));
    }
    for dir in std::fs::read_dir(testdata("projects")).unwrap() {
        let path = dir.unwrap().path().join("Dockerfile");
        if path.exists() {
            files.push((path.display().to_string(), std::fs::read(path).unwrap()));
        }
    }
    files
}

/// Words as a POSIX shell splits them: at blanks outside of quotes, quotes kept.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = command.chars().peekable();
    while let Some(character) = rest.next() {
        let word = words.last_mut().unwrap();
        match character {
            ' ' | '\t' if word.is_empty() => {}
            ' ' | '\t' => words.push(String::new()),
            '\\' => {
                word.push('\\');
                word.extend(rest.next());
            }
            '\'' | '"' => {
                word.push(character);
                quoted(character, &mut rest, word);
            }
            other => word.push(other),
        }
    }
    words
}

/// Reads a quoted string; a command substitution within double quotes has the blanks of a command again.
fn quoted(quote: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    while let Some(character) = rest.next() {
        word.push(character);
        match character {
            '\\' if quote == '"' => word.extend(rest.next()),
            '$' if quote == '"' && rest.peek() == Some(&'(') => substituted(rest, word),
            other if other == quote => return,
            _ => {}
        }
    }
}

fn substituted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    let mut depth = 0;
    while let Some(character) = rest.next() {
        match character {
            ' ' | '\t' if word.ends_with(' ') => {}
            ' ' | '\t' => word.push(' '),
            '\\' => {
                word.push('\\');
                word.extend(rest.next());
            }
            '\'' | '"' => {
                word.push(character);
                quoted(character, rest, word);
            }
            other => {
                word.push(other);
                depth += i32::from(other == '(') - i32::from(other == ')');
                if depth == 0 {
                    return;
                }
            }
        }
    }
}

/// Meaning of an instruction: flags, words and heredocs, without spans.
fn meaning(instruction: &Instruction, is_posix: bool) -> String {
    let bodies: Vec<_> = instruction.heredocs.iter().map(|it| (&it.name, it.expand, it.text())).collect();
    let said = match &instruction.kind {
        Kind::Run(run) if is_posix => match &run.command {
            CommandLine::Shell(text) => {
                let flags = Run { command: CommandLine::Exec(Vec::new()), ..run.clone() };
                format!("{:?} {}", shell_words(text.as_str()), without_spans(&format!("{flags:?}")))
            }
            CommandLine::Exec(_) => without_spans(&format!("{run:?}")),
        },
        Kind::From(from) => {
            let name = from.name.as_ref().map(|name| name.as_str());
            format!("{} {name:?} {:?}", from.image.as_str(), from.platform.as_ref().map(|it| it.as_str()))
        }
        Kind::Healthcheck(Healthcheck::Command { command: CommandLine::Shell(text), .. }) => {
            format!("{} {}", text.as_str(), without_spans(&format!("{:?}", instruction.kind)))
        }
        kind => without_spans(&format!("{kind:?}")),
    };
    format!("{} {said} {bodies:?}", instruction.keyword.as_str().to_uppercase())
}

/// Debug text of a tree without the numbers after `@` and `span: `.
fn without_spans(tree: &str) -> String {
    let mut out = String::new();
    let mut rest = tree;
    while let Some(at) = [rest.find("\"@"), rest.find("span: ")].into_iter().flatten().min() {
        out.push_str(&rest[..at]);
        rest = rest[at..].trim_start_matches(|c: char| !c.is_ascii_digit());
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    }
    out + rest
}

#[test]
fn formatting_preserves_values() {
    let files = files();
    assert!(files.len() >= 1500, "only {} files", files.len());
    let mut compared = 0;
    for (name, bytes) in files {
        let source = Source::new("Dockerfile", bytes);
        let before = parse(&source);
        if before.errors().next().is_some() || source.first_invalid().is_some() {
            continue;
        }
        compared += 1;
        let text = format(&before, &source);
        let laid_out = Source::new("Dockerfile", text.as_bytes());
        let after = parse(&laid_out);
        let is_posix = before.file.instructions.iter().all(|instruction| match &instruction.kind {
            Kind::Shell(words) => {
                words.iter().any(|it| it.as_str().ends_with("/sh") || it.as_str().ends_with("bash"))
            }
            _ => true,
        });
        let count = |parse: &Parse| parse.file.instructions.len();
        assert_eq!(count(&after), count(&before), "{name} became\n{text}");
        for (after, before) in after.file.instructions.iter().zip(&before.file.instructions) {
            assert_eq!(meaning(after, is_posix), meaning(before, is_posix), "{name} became\n{text}");
        }
        let check = |parse: &Parse| parse.file.directives.check.as_ref().map(|it| it.value.clone());
        assert_eq!(check(&after), check(&before), "{name}");
    }
    assert!(compared >= 1000, "only {compared} files");
}
