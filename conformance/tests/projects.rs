//! Dockerfiles of projects in `testdata/projects`: their lint findings have been reviewed, and formatting is
//! idempotent. `BLESS=1` writes the current findings; review the difference.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_parser::lint::{Choice, Facts, lint};
use kiln_parser::{Source, format::format, parse};
use std::path::{Path, PathBuf};

fn projects() -> Vec<(String, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/projects");
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path().join("Dockerfile")));
    let mut files: Vec<_> = files.filter(|(_, path)| path.exists()).collect();
    files.sort();
    assert!(files.len() >= 50, "only {} projects", files.len());
    files
}

#[test]
fn findings_are_those_that_were_reviewed() {
    let mut found = String::new();
    for (name, path) in projects() {
        let source = Source::new(name, std::fs::read(path).unwrap());
        let parse = parse(&source);
        let choice = Choice { own: true, ..Choice::default() };
        let mut findings: Vec<_> = parse.errors().cloned().collect();
        findings.extend(lint(&parse, &source, &Facts::default(), &choice).findings);
        findings.sort_by_key(|finding| finding.span);
        for finding in findings {
            found.push_str(&finding.one_line(&source));
            found.push('\n');
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/projects/findings");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&golden, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    let differs = |a: &str, b: &str| -> Vec<String> {
        a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    assert!(
        found == expected,
        "new: {:#?}\nremoved: {:#?}",
        differs(&found, &expected),
        differs(&expected, &found)
    );
}

#[test]
fn formatting_is_idempotent() {
    for (name, path) in projects() {
        let source = Source::new(name.as_str(), std::fs::read(path).unwrap());
        let tree = parse(&source);
        if tree.errors().next().is_some() {
            continue;
        }
        let once = format(&tree, &source);
        let again = Source::new(name.as_str(), once.as_bytes());
        let tree = parse(&again);
        assert!(tree.errors().next().is_none(), "{name}");
        assert_eq!(format(&tree, &again), once, "{name}");
    }
}
