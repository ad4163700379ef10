//! Whole outputs of commands, recorded in `testdata/cli/*.cases`.
//!
//! ```text
//! $ kiln images --nope
//! ! ERROR: unknown flag: --nope
//! → 125
//! ```
//!
//! Lines with `| ` are standard output, those with `! ` standard error, and `→ ` stands before the exit code. What is above
//! the first command describes the file. The commands of a file run one after the other in a shell, in a copy of
//! `testdata/cli/files`, with a new store. Parts that differ from run to run have names: see [`VOLATILE`].
//! `BLESS=1` records the present output; look at the difference.

use crate::fixture::{Done, Fixture, kiln, project};
use regex::Regex;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Patterns of what differs from run to run, and the names that stand for it.
const VOLATILE: [(&str, &str); 6] = [
    (", build [0-9a-f]+", ", build <commit>"),
    ("(sha256:)?\\b[0-9a-f]{64}\\b", "<id>"),
    ("\\b[0-9a-f]{12}\\b", "<short id>"),
    ("(About an?|Less than a|[0-9]+) (second|minute|hour|day|week|month|year)s?( ago)?\\b", "<age>"),
    ("\\b[0-9]+(\\.[0-9]+)?(kB|MB|GB)\\b", "<size>"),
    ("\\b127\\.0\\.0\\.1:[0-9]+\\b", "<mirror>"),
];

/// A command line with what came of it.
struct Case {
    line: String,
    output: Vec<String>,
}

fn directory() -> std::path::PathBuf {
    project().join("testdata/cli")
}

/// The text above the first command, and the cases.
fn read(text: &str) -> (&str, Vec<Case>) {
    let (head, cases) = text.split_at(text.find("\n$ ").map_or(text.len(), |at| at + 1));
    let mut read: Vec<Case> = Vec::new();
    for line in cases.lines() {
        match (line.strip_prefix("$ "), read.last_mut()) {
            (Some(line), _) => read.push(Case { line: line.to_owned(), output: Vec::new() }),
            (None, Some(case)) if !line.is_empty() => case.output.push(line.to_owned()),
            _ => {}
        }
    }
    (head, read)
}

fn write(head: &str, cases: &[Case]) -> String {
    let shown: Vec<String> = cases
        .iter()
        .map(|case| {
            let lines: String = case.output.iter().map(|line| format!("{line}\n")).collect();
            format!("$ {}\n{lines}", case.line)
        })
        .collect();
    format!("{head}{}", shown.join("\n"))
}

/// Names instead of what differs from run to run. Columns of tables move with it, so their gaps get one width.
fn stable(text: &str, fixture: &Fixture) -> String {
    static PATTERNS: LazyLock<Vec<(Regex, &str)>> =
        LazyLock::new(|| VOLATILE.map(|(pattern, name)| (Regex::new(pattern).unwrap(), name)).into());
    static GAPS: LazyLock<Regex> = LazyLock::new(|| Regex::new("([^ \n]) {3,}").unwrap());
    let text = text.replace(&fixture.path("").display().to_string(), "<dir>/");
    let mut stable = text.replace(env!("CARGO_PKG_VERSION"), "<version>");
    for (pattern, name) in PATTERNS.iter() {
        stable = pattern.replace_all(&stable, *name).into_owned();
    }
    if stable == text { stable } else { GAPS.replace_all(&stable, "$1   ").into_owned() }
}

/// Lines with a mark in front, and a text after one that does not end.
fn marked(mark: &str, text: &str) -> Vec<String> {
    let unended = (!text.is_empty() && !text.ends_with('\n')).then_some("⟨no line end⟩");
    text.lines().chain(unended).map(|line| format!("{mark} {line}").trim_end().to_owned()).collect()
}

/// Runs a command line in a shell that knows the program as `kiln`.
fn run(line: &str, fixture: &Fixture, programs: &Path) -> Vec<String> {
    let environment = fixture.command::<&str>(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(fixture.path("files")).stdin(Stdio::null()).env_clear();
    shell.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    let done = Done::of(shell.output().unwrap());
    let mut lines = marked("|", &stable(&done.out, fixture));
    lines.extend(marked("!", &stable(&done.err, fixture)));
    lines.push(format!("→ {}", done.code));
    lines
}

/// Compares a file with the output of the program, and returns the differences.
fn check(path: &Path, fixture: &Fixture) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let (head, mut cases) = read(&text);
    let programs = fixture.path("programs");
    fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(kiln(), programs.join("kiln")).unwrap();
    let copied =
        Command::new("cp").arg("-r").arg(directory().join("files")).arg(fixture.path("files")).status();
    assert!(copied.unwrap().success());
    let mut wrong = Vec::new();
    for case in &mut cases {
        let found = run(&case.line, fixture, &programs);
        if found != case.output {
            let (expected, shown) = (case.output.join("\n"), found.join("\n"));
            wrong.push(format!("$ {}\n{shown}\n--- instead of\n{expected}\n", case.line));
            case.output = found;
        }
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, write(head, &cases)).unwrap();
    }
    wrong
}

#[test]
fn outputs_are_as_recorded() {
    let mut paths: Vec<_> = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cases"));
    paths.sort();
    assert!(paths.len() >= 4, "{paths:?}");
    let mut wrong = Vec::new();
    for path in &paths {
        let fixture = fixture!();
        wrong.extend(check(path, &fixture));
    }
    assert!(wrong.is_empty(), "{} outputs differ (BLESS=1 records them):\n{}", wrong.len(), wrong.join("\n"));
}

/// Every command and group of the overview has its help page among the cases.
#[test]
fn help_of_every_command_is_recorded() {
    let text = fs::read_to_string(directory().join("help.cases")).unwrap();
    let (_, cases) = read(&text);
    let overview = cases.iter().find(|case| case.line == "kiln --help").unwrap();
    let names = overview.output.iter().filter_map(|line| line.strip_prefix("|   ")?.split(' ').next());
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase());
    let names: Vec<&str> = names.filter(is_name).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names.iter().filter(|name| !["kiln", "oci"].contains(name)) {
        assert!(cases.iter().any(|case| case.line == format!("kiln help {name}")), "help {name}");
    }
}

#[test]
fn names_replace_what_is_volatile() {
    let fixture = fixture!();
    let id = "0123456789ab".repeat(6);
    for (text, expected) in [
        (format!("sha256:{}\n", &id[..64]), "<id>\n"),
        ("0123456789ab      3 days ago         1.98MB\n".to_owned(), "<short id>   <age>   <size>\n"),
        ("  --tag        words of help\n".to_owned(), "  --tag        words of help\n"),
        (format!("no {}/x\n", fixture.path("files").display()), "no <dir>/files/x\n"),
    ] {
        assert_eq!(stable(&text, &fixture), expected);
    }
}
