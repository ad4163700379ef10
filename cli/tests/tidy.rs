//! The rooms stay where ARCHITECTURE.md has them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Rows of the table of rooms: crate, and what it may depend on.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(project().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"));
    rows.map(|(name, rest)| {
        let last = rest.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let names = last.split(',').map(str::trim).filter(|name| *name != "–");
        (name.to_owned(), names.map(str::to_owned).collect())
    })
    .collect()
}

/// Crates of the workspace that a manifest depends on outside of tests.
fn arrows(manifest: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if matches!(section.as_str(), "dependencies" | "build-dependencies")
            && let Some(rest) = line.strip_prefix("kiln-")
        {
            found.insert(rest.split(['.', ' ', '=']).next().unwrap_or_default().to_owned());
        }
    }
    found
}

#[test]
fn arrows_point_where_the_table_allows() {
    let allowed = allowed();
    let workspace = fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let members = workspace.lines().find(|line| line.starts_with("members")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert_eq!(
        members.iter().copied().collect::<BTreeSet<_>>(),
        allowed.keys().map(String::as_str).collect()
    );
    for member in members {
        let manifest = fs::read_to_string(project().join(member).join("Cargo.toml")).unwrap();
        let found = arrows(&manifest);
        let more: Vec<_> = found.difference(&allowed[member]).collect();
        assert!(more.is_empty(), "{member} depends on {more:?}, which ARCHITECTURE.md does not allow");
    }
}

#[test]
fn arrows_are_seen() {
    let manifest = "[dependencies]\nkiln-image.workspace = true\nkiln-parser = { path = \"x\" }\n[dev-dependencies]\nkiln-cli = 1\n";
    assert_eq!(arrows(manifest), BTreeSet::from(["image".to_owned(), "parser".to_owned()]));
}

/// Raw system calls stay in one room, and no file grows too large to know.
#[test]
fn sources_keep_to_the_house_rules() {
    const LONGEST: usize = 900;
    let mut folders = vec![project()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.lines().count() <= LONGEST, "{} is too long", path.display());
                let shown = path.strip_prefix(project()).unwrap().display().to_string();
                let raw = text.lines().any(|line| line.trim_start().starts_with("unsafe {"));
                assert!(!raw || shown.starts_with("runtime/src/sys"), "{shown} has raw system calls");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 100);
}

/// What is printed goes through `ui`, which shows control characters; other files hold streams of data.
#[test]
fn one_module_prints() {
    let source = project().join("cli/src");
    // Streams of containers, archives that are written to standard output, and lines that move.
    let others =
        ["ui.rs", "attach.rs", "commands/save.rs", "commands/build/output.rs", "progress/terminal.rs"];
    let writers = [
        "io::stdout()",
        "io::stderr()",
        "stdio::stdout()",
        "stdio::stderr()",
        "println(",
        "eprint",
        "indicatif",
    ];
    let mut folders = vec![source.clone()];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                if writers.iter().any(|writer| text.contains(writer)) {
                    found.insert(path.strip_prefix(&source).unwrap().display().to_string());
                }
            }
        }
    }
    assert_eq!(found, others.map(str::to_owned).into(), "print through `ui`");
}

/// The tests that a document names as `file::test`.
fn named_tests(document: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = document.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter_map(|text| text.split_once(".rs::")).filter(|(_, test)| !test.is_empty())
}

/// A statement about security has a test that shows it, and the test is there.
#[test]
fn statements_about_security_have_tests() {
    let document = fs::read_to_string(project().join("SECURITY.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Threat "));
    let mut looked_at = 0;
    for row in rows {
        let tests: Vec<_> = named_tests(row).collect();
        assert!(!tests.is_empty() || row.contains("`tests/machines/"), "no test is named: {row}");
        for (file, test) in tests {
            let path = project().join(format!("{file}.rs"));
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // A function, or a row of a table of tests.
            let exists = text.contains(&format!("fn {test}()")) || text.contains(&format!("(\"{test}\","));
            assert!(exists, "{file}.rs has no test {test}, which SECURITY.md names");
            looked_at += 1;
        }
    }
    assert!(looked_at > 50, "{looked_at}");
    let named = named_tests("a `b/c.rs::d`, `e::f` and `g.rs`").collect::<Vec<_>>();
    assert_eq!(named, [("b/c", "d")]);
}
