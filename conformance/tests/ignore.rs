//! Each case of `testdata/parser/ignore.json`: whether an ignore file excludes paths, and the line that decides.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_parser::ignore::Patterns;
use serde_json::Value;
use std::path::Path;

#[test]
fn paths_are_ignored_by_the_expected_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/parser/ignore.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 30);
    for case in cases {
        let name = &case["name"];
        match (Patterns::parse(case["text"].as_str().unwrap()), &case["expected"]) {
            (Err(error), Value::String(expected)) => assert_eq!(&error.to_string(), expected, "{name}"),
            (Ok(patterns), Value::Object(paths)) => {
                for (path, expected) in paths {
                    assert_eq!(Some(shown(&patterns, path).as_str()), expected.as_str(), "{name}: {path}");
                }
            }
            (found, expected) => panic!("{name}: {found:?}, not {expected}"),
        }
    }
}

fn shown(patterns: &Patterns, path: &str) -> String {
    let decision = patterns.decide_without_parent(path);
    match (decision.is_ignored(), patterns.decided_by(&decision)) {
        (true, Some((line, _))) => format!("line {line}"),
        (false, Some((line, _))) => format!("kept by line {line}"),
        (_, None) => "kept".to_owned(),
    }
}
