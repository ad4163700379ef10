//! The rooms stay where ARCHITECTURE.md has them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let mut dirs = vec![project()];
    let mut looked_at = 0;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                dirs.push(path);
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
    // Streams of containers, and archives that are written to standard output.
    let others = [
        "ui.rs",
        "attach.rs",
        "foreground.rs",
        "commands/logs.rs",
        "commands/save.rs",
        "commands/build/output.rs",
    ];
    let writers =
        ["io::stdout()", "io::stderr()", "stdio::stdout()", "stdio::stderr()", "println(", "eprint"];
    let mut dirs = vec![source.clone()];
    let mut found = BTreeSet::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                assert!(!text.contains("\"Error: "), "{}: errors begin with `ERROR: `", path.display());
                if writers.iter().any(|writer| text.contains(writer)) {
                    found.insert(path.strip_prefix(&source).unwrap().display().to_string());
                }
            }
        }
    }
    assert_eq!(found, others.map(str::to_owned).into(), "print through `ui`");
}

/// `make test` complains of what its own stores left, and of nothing else.
#[test]
fn leftovers_are_those_of_the_named_directory() {
    let look = |directory: &Path| {
        let output = Command::new(project().join("tests/leftovers")).arg(directory).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = |variable: &str, directory: &Path| {
        let mut command = Command::new("sleep");
        command.arg("1000").env(variable, directory.join("store"));
        command.spawn().unwrap()
    };
    let mut others = start("KILN_ROOT", other.path());
    assert_eq!(look(own.path()), (true, String::new()));
    let mut owns = start("KILN_ROOT", own.path());
    let (is_clean, text) = look(own.path());
    assert!(!is_clean && text.contains(&format!("a process is left: {} sleep", owns.id())), "{text}");
    for child in [&mut others, &mut owns] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mount = |directory: &Path| {
        let place = directory.join("kiln");
        fs::create_dir(&place).unwrap();
        Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&place)
            .status()
            .is_ok_and(|status| status.success())
    };
    let unmount = |directory: &Path| {
        assert!(Command::new("umount").arg(directory.join("kiln")).status().unwrap().success());
    };
    if !mount(other.path()) {
        println!("SKIPPED: needs to mount a tmpfs");
        return;
    }
    let others = look(own.path());
    unmount(other.path());
    assert!(mount(own.path()));
    let owns = look(own.path());
    unmount(own.path());
    assert_eq!(others, (true, String::new()));
    assert!(!owns.0 && owns.1.contains("mounts are left"), "{owns:?}");
}

/// A test that a fresh host skips shows nothing there: `make packages` installs what tests look for.
#[test]
fn programs_of_tests_are_installed() {
    let makefile = fs::read_to_string(project().join("Makefile")).unwrap();
    let packages = makefile.lines().find(|line| line.starts_with("PACKAGES := ")).unwrap();
    let installed: Vec<&str> =
        packages.split_whitespace().filter_map(|pair| Some(pair.split_once(':')?.0)).collect();
    let mut looked_at = 0;
    for directory in ["cli/tests/e2e", "cli/tests/oci", "runtime/tests", "registry/tests", "image/tests"] {
        for entry in fs::read_dir(project().join(directory)).unwrap().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for needs in text.split("\"needs ").skip(1).chain(text.split("SKIPPED: needs ").skip(1)) {
                let words = needs.split('"').next().unwrap_or_default();
                let program = words.split([' ', '(']).next().unwrap_or_default().trim_matches('`');
                // A program alone, or with its section of the manual.
                if words.trim_matches('`') == program
                    && !program.starts_with('/')
                    && !["root", "loop"].contains(&program)
                    || words.contains("(1)")
                {
                    assert!(installed.contains(&program), "{}: {program}", entry.path().display());
                    looked_at += 1;
                }
            }
        }
    }
    assert!(looked_at >= 4, "{looked_at}");
    assert!(["nft", "pasta", "slirp4netns"].iter().all(|program| installed.contains(program)));
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

/// Crates whose comments keep to the section "Words" of CONTRIBUTING.md.
const CRATES: [&str; 12] = [
    "bench",
    "conformance",
    "fuzz",
    "builder",
    "cli",
    "engine",
    "network",
    "oci",
    "image",
    "parser",
    "registry",
    "runtime",
];
/// Words and phrases of its right column that a comment never needs, in lower case.
const REJECTED: [&str; 24] = [
    "folder",
    "folders",
    "this machine",
    "the machine",
    "nobody",
    "somebody",
    "someone",
    "anybody",
    "everybody",
    "whoever",
    "who",
    "whom",
    "hears",
    "heard",
    "tells",
    "told",
    "says",
    "said",
    "gives",
    "gave",
    "of its own",
    "of their own",
    "taken away",
    "takes away",
];

/// Comments of a source, each with the number of its first line, its marker (`//`, `///` or `//!`) and its text.
fn comments(source: &str) -> Vec<(usize, &str, String)> {
    let mut found: Vec<(usize, &str, String)> = Vec::new();
    let mut last = 0;
    for (number, line) in (1..).zip(source.lines()) {
        let line = line.trim_start();
        let Some(marker) = ["///", "//!", "//"].into_iter().find(|marker| line.starts_with(marker)) else {
            continue;
        };
        let text = &line[marker.len()..];
        match found.last_mut() {
            Some((_, before, joined)) if *before == marker && last + 1 == number => {
                joined.push(' ');
                joined.push_str(text);
            }
            _ => found.push((number, marker, text.to_owned())),
        }
        last = number;
    }
    found
}

/// First rejected word or phrase in a comment; `None` when there is none.
fn rejected(comment: &str) -> Option<&'static str> {
    let words = comment.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let text = format!(" {} ", words.collect::<Vec<_>>().join(" ").to_lowercase());
    REJECTED.into_iter().find(|phrase| text.contains(&format!(" {phrase} ")))
}

/// Comments use the field's words, and a doc comment adds to the name of its item.
#[test]
fn comments_use_the_fields_words() {
    const SHORTEST: usize = 4;
    let mut dirs: Vec<_> = CRATES.iter().map(|name| project().join(name)).collect();
    let (mut looked_at, mut wrong) = (0, Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // Doc comments of commands are help texts, which are short.
                let is_help = path.starts_with(project().join("cli/src/commands"));
                for (line, marker, text) in comments(&fs::read_to_string(&path).unwrap()) {
                    let shown = format!("{}:{line}", path.display());
                    if let Some(word) = rejected(&text) {
                        wrong.push(format!("{shown}: {word:?}, see \"Words\" in CONTRIBUTING.md"));
                    }
                    if marker == "///" && !is_help && text.split_whitespace().count() < SHORTEST {
                        wrong.push(format!("{shown}: a doc comment of fewer than {SHORTEST} words"));
                    }
                    looked_at += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(looked_at > 1000, "{looked_at}");
}

#[test]
fn rejected_words_are_found() {
    let found = comments("//! A\n//! b.\nuse c;\n    /// Folders\n    // d\n");
    let expected = [(1, "//!", " A  b."), (4, "///", " Folders"), (5, "//", " d")];
    let expected = expected.map(|(line, marker, text)| (line, marker, text.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(rejected("Nobody's file"), Some("nobody"));
    assert_eq!(rejected("a key  of its own"), Some("of its own"));
    assert_eq!(rejected("the whole `folder_name`, foretold"), Some("folder"));
    assert_eq!(rejected("the virtual machine, whose owner"), None);
}
