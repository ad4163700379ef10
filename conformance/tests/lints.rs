//! Findings of the reference builder's rules in each case of `testdata/lint`: line, rule and message. `BLESS=1` writes
//! the current ones; review the difference.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_conformance::cases::{self, Case};
use kiln_parser::ignore::Patterns;
use kiln_parser::lint::{BaseFacts, Choice, Facts, lint};
use kiln_parser::{Source, parse};
use std::path::Path;

/// Facts with which a case is checked.
fn facts(case: &Case) -> Facts {
    let with: Vec<&str> = case.expected.iter().filter_map(|line| line.strip_prefix("with ")).collect();
    let all = |name: &str| -> Vec<&str> { with.iter().filter_map(|line| line.strip_prefix(name)).collect() };
    let pairs = all("build-arg ").into_iter().filter_map(|pair| pair.split_once('='));
    let built = all("built ").into_iter().next();
    Facts {
        ignore: Some(Patterns::compile(all("ignore ")).unwrap()),
        build_args: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        // Images are known and have no variables.
        bases: (0..9).map(|stage| (stage, BaseFacts::default())).collect(),
        built: built.map(|list| list.split(' ').map(|number| number.parse().unwrap()).collect()),
    }
}

fn found(case: &Case) -> Vec<String> {
    let source = Source::new("Dockerfile", case.bytes());
    let parse = parse(&source);
    let report = lint(&parse, &source, &facts(case), &Choice::default());
    let mut lines: Vec<String> =
        case.expected.iter().filter(|line| line.starts_with("with ")).cloned().collect();
    lines.extend(report.findings.iter().map(|finding| {
        let (line, _) = finding.lines(&parse.file, &source);
        format!("{line} {}: {}", finding.code, finding.message)
    }));
    if report.findings.is_empty() {
        lines.push("nothing".to_owned());
    }
    lines.extend(report.violations().iter().map(|name| format!("violations {name}")));
    lines
}

fn sorted(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    lines.sort();
    lines
}

#[test]
fn findings_are_those_of_the_reference() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/lint");
    let mut wrong = Vec::new();
    let mut number = 0;
    for mut file in cases::read_dir(&dir).unwrap() {
        for case in &mut file.cases {
            number += 1;
            let found = found(case);
            if sorted(&found) != sorted(&case.expected) {
                let (name, expected) = (&case.name, case.expected.join("\n    "));
                wrong.push(format!(
                    "{name}\n  found\n    {}\n  expected\n    {expected}",
                    found.join("\n    ")
                ));
                case.expected = found;
            }
        }
        if std::env::var_os("BLESS").is_some() {
            file.write().unwrap();
        }
    }
    assert!(number >= 80, "only {number} cases");
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}
