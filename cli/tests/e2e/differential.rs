//! Every trial of `testdata/differential` makes the image that the reference engine made when it was recorded.

use kiln_conformance::acceptance::read_differences;
use kiln_conformance::differential::{self, Base, KILN_ARGUMENTS, Trial};
use std::sync::Mutex;

#[test]
fn images_are_those_of_the_reference_engine() {
    let fixture = fixture!();
    let dir = crate::fixture::project().join("testdata/differential");
    let base = Base::read(&crate::fixture::project().join("target/bases/busybox")).unwrap();
    let trials = differential::read_dir(&dir).unwrap();
    let explained = Mutex::new(read_differences(&dir.join("differences")).unwrap());
    fixture.ok("version");

    let queue = Mutex::new(trials.iter());
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let judge = |trial: &Trial| {
        let reference = std::fs::read_to_string(differential::recording(&dir, &trial.name));
        let Ok(reference) = reference else { return Some("the reference has not been asked".to_owned()) };
        let context = tempfile::Builder::new().prefix("trial-").tempdir().unwrap();
        trial.lay_out(context.path()).unwrap();
        let image =
            trial.build(&|| fixture.command::<&str>(&[]), &KILN_ARGUMENTS, context.path(), &base).unwrap();
        let found = differential::differences(&reference, &image);
        let explanation = explained.lock().unwrap().remove(&trial.name);
        match (found.is_empty(), explanation) {
            (true, None) | (false, Some(_)) => None,
            (true, Some(_)) => Some("no longer differs".to_owned()),
            (false, None) => Some(found.join("\n")),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(trial) = { queue.lock().unwrap().next() } {
                    if let Some(problem) = judge(trial) {
                        wrong.lock().unwrap().push(format!("{}: {}\n{problem}", trial.name, trial.rule));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.extend(
        explained.into_inner().unwrap().into_keys().map(|name| format!("{name}: there is no such trial")),
    );
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
