//! Command lines of `testdata/commands` get the answers of the reference engine, as recorded.

use crate::fixture::{Fixture, kiln, project};
use kiln_conformance::commands::{self, File};
use std::fs;
use std::sync::Mutex;

/// Compares the answers to the lines of a file, and returns the problems. `BLESS=1` records Kiln's.
fn check(file: &mut File, fixture: &Fixture) -> Vec<String> {
    let (programs, dir) = (fixture.path("programs"), fixture.path("dir"));
    fs::create_dir(&programs).unwrap();
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(kiln(), programs.join("docker")).unwrap();
    fixture.ok("pull busybox");
    let environment = fixture.command::<&str>(&[]);
    let mut problems = Vec::new();
    for line in &mut file.lines {
        let answer = commands::ask(&line.command, &dir, &programs, &|command| {
            command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
        });
        let answer = answer.unwrap();
        problems.extend(line.problem(&answer).map(|problem| format!("{}: {problem}", file.path.display())));
        line.bless(&answer);
    }
    if std::env::var_os("BLESS").is_some() {
        file.write().unwrap();
    }
    let left = fixture.ok("ps -aq");
    fixture.kiln(&["rm", "-fv"].into_iter().chain(left.split_whitespace()).collect::<Vec<_>>());
    problems
}

#[test]
fn answers_are_those_of_the_reference_engine() {
    let _ = fixture!();
    let files = commands::read_dir(&project().join("testdata/commands")).unwrap();
    assert!(files.len() >= 9, "{}", files.len());
    let only = std::env::var("ONLY").unwrap_or_default();
    let queue = Mutex::new(files.into_iter());
    let problems: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(mut file) = { queue.lock().unwrap().next() } {
                    if only.is_empty() || file.path.ends_with(format!("{only}.cases")) {
                        let found = check(&mut file, &Fixture::new().unwrap());
                        problems.lock().unwrap().extend(found);
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(
        problems.is_empty(),
        "{} answers differ (BLESS=1 records them):\n{}",
        problems.len(),
        problems.join("\n")
    );
}
