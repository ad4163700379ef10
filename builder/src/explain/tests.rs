//! Matching of steps, and the record for the next build.

use super::*;
use super::{changes, matching};

fn step(kind: &str, text: &str) -> Step {
    Step { kind: kind.to_owned(), text: text.to_owned(), ..Step::default() }
}

fn run(text: &str) -> Step {
    step("run", text)
}

#[test]
fn steps_are_matched_in_order_and_by_similarity() {
    let check = |now: &[Step], before: &[Step], expected: &[Option<usize>]| {
        assert_eq!(matching::matches(now, before), expected);
    };
    let (a, b, c) = (run("RUN make all"), run("RUN make install"), step("copy", "COPY src /src"));
    check(&[a.clone(), b.clone()], &[a.clone(), b.clone()], &[Some(0), Some(1)]);
    // An inserted step, a removed step, and a changed step beside a new one.
    check(&[a.clone(), run("RUN true"), b.clone()], &[a.clone(), b.clone()], &[Some(0), None, Some(1)]);
    check(std::slice::from_ref(&b), &[a.clone(), b.clone()], &[Some(1)]);
    let changed = run("RUN make install -j4");
    check(&[a.clone(), run("RUN true"), changed], &[a.clone(), b.clone()], &[Some(0), None, Some(1)]);
    // A rewritten step in the position of a step of its kind.
    check(
        &[a.clone(), run("RUN xyz"), c.clone()],
        &[a.clone(), b.clone(), c.clone()],
        &[Some(0), Some(1), Some(2)],
    );
    check(&[c.clone(), a.clone()], &[a.clone(), b], &[None, Some(0)]);
    check(&[], std::slice::from_ref(&a), &[]);
    check(&[a], &[], &[None]);
}

#[test]
fn names_are_split() {
    assert_eq!(split_name("[build 2/4] RUN x"), ("build", "RUN x"));
    assert_eq!(split_name("[linux/amd64 build  2/14] RUN [ -e x ]"), ("linux/amd64 build", "RUN [ -e x ]"));
    assert_eq!(split_name("[1/1] FROM a@b"), ("", "FROM a@b"));
    assert_eq!(split_name("[internal] load x"), ("", "[internal] load x"));
    assert_eq!(split_name("FROM scratch"), ("", "FROM scratch"));
}

#[test]
fn steps_that_a_build_did_not_come_to_are_kept() {
    let with = |text: &str, value: &str| {
        let mut step = run(text);
        if !value.is_empty() {
            step.inputs.add("a", value);
        }
        step
    };
    let other = Step { stage: "other".into(), ..with("RUN other", "3") };
    let before = LastBuild {
        steps: vec![with("RUN one", "1"), with("RUN two", "2"), other.clone()],
        ..LastBuild::default()
    };
    let failed = LastBuild { steps: vec![with("RUN one", "4"), with("RUN two", "")], ..LastBuild::default() };
    let kept = failed.after(Some(before)).steps;
    assert_eq!(kept, [with("RUN one", "4"), with("RUN two", "2"), other]);
}

#[test]
fn long_values_are_cut_to_the_difference() {
    let inputs = |command: String| {
        let mut inputs = KeyInputs::default();
        ["/bin/sh".to_owned(), "-c".to_owned(), command]
            .into_iter()
            .enumerate()
            .for_each(|(number, word)| inputs.add(format!("argument {number}"), word));
        inputs
    };
    let long = "x".repeat(200);
    let (now, before) = (inputs(format!("{long} new")), inputs(format!("{long} old")));
    let causes = changes::of_step("run", &now, &before, &Names::default());
    let shown = format!("…{} ", "x".repeat(14));
    assert_eq!(causes, [format!("the command changed from `{shown}old` to `{shown}new`")]);
}
