//! Every Dockerfile of `testdata/parser` is accepted, or refused in the same line, as by the reference engine when it
//! was recorded.

use kiln_conformance::acceptance::{Verdict, ask, read_differences};
use kiln_conformance::cases::{self, Case};
use std::path::PathBuf;
use std::sync::Mutex;

#[test]
fn as_by_the_reference_engine() {
    let fixture = fixture!();
    let dir: PathBuf = crate::fixture::project().join("testdata/parser");
    let mut explained = read_differences(&dir.join("differences")).unwrap();
    let files = cases::read_dir(&dir).unwrap();
    let cases: Vec<Case> = files.into_iter().flat_map(|file| file.cases).collect();
    let unrecorded: Vec<&str> =
        cases.iter().filter(|case| case.reference.is_none()).map(|case| case.name.as_str()).collect();
    assert!(unrecorded.is_empty(), "the reference has not been asked about {unrecorded:?}");
    fixture.ok("version");

    let queue = Mutex::new(cases.iter());
    let answers: Mutex<Vec<(&Case, Verdict)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(case) = { queue.lock().unwrap().next() } {
                    let verdict = ask(&mut fixture.command::<&str>(&[]), case).unwrap();
                    answers.lock().unwrap().push((case, verdict));
                }
            });
        }
    });
    let mut wrong = Vec::new();
    for (case, verdict) in answers.into_inner().unwrap() {
        let reference = Verdict::read(case.reference.as_deref().unwrap_or_default());
        match (verdict.agrees(&reference), explained.remove(&case.name)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong.push(format!("{}: no longer differs", case.name)),
            (false, None) => wrong.push(format!(
                "{}: {}\n  kiln       {verdict}\n  reference  {reference}",
                case.name, case.rule
            )),
        }
    }
    wrong.extend(explained.into_keys().map(|name| format!("{name}: there is no such case")));
    assert!(wrong.is_empty(), "{} answered otherwise:\n{}", wrong.len(), wrong.join("\n"));
}
