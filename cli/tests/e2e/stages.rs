//! Stages that run in parallel: their steps wait for each other through a shared cache.

use crate::fixture::Fixture;
use std::ffi::OsStr;
use std::path::Path;

/// A RUN that ends when all of `parties` have arrived; after a minute the test fails.
fn meet(own: &str, parties: &[&str]) -> String {
    let all: Vec<String> = parties.iter().map(|party| format!("[ -e /meet/{party} ]")).collect();
    format!(
        "RUN --mount=type=cache,id=meet,target=/meet touch /meet/{own} && i=0 && until {}; do i=$((i+1)); [ $i -lt 1200 ] \
         || exit 9; sleep 0.05; done && echo {own} >/{own}\n",
        all.join(" && ")
    )
}

/// A stage of one such RUN.
fn stage(own: &str, parties: &[&str]) -> String {
    format!("FROM busybox AS {own}\n{}", meet(own, parties))
}

fn build(fixture: &Fixture, options: &[&str], context: &Path) -> String {
    let mut arguments: Vec<&OsStr> = vec!["build".as_ref(), "-t".as_ref(), "meet".as_ref()];
    arguments.extend(options.iter().map(OsStr::new));
    arguments.push(context.as_os_str());
    let done = fixture.kiln(&arguments);
    assert_eq!(done.code, 0, "{}", done.err);
    done.err
}

#[test]
fn stages_that_are_copied_from_run_at_once() {
    let fixture = fixture!();
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut dockerfile: String = names.iter().map(|name| stage(name, &names)).collect();
    dockerfile.push_str("FROM busybox\n");
    names.iter().for_each(|name| dockerfile.push_str(&format!("COPY --from={name} /{name} /\n")));
    dockerfile.push_str("CMD cat /a /b /c /d /e /f\n");
    build(&fixture, &[], &fixture.context("six", &dockerfile));
    assert_eq!(fixture.ok("run --rm meet"), "a\nb\nc\nd\ne\nf\n");
}

#[test]
fn stages_that_are_mounted_run_at_once() {
    let fixture = fixture!();
    let dockerfile = format!(
        "{}{}FROM busybox\nRUN --mount=from=a,target=/x --mount=from=b,target=/y cat /x/a /y/b >/both\nCMD cat /both\n",
        stage("a", &["a", "b"]),
        stage("b", &["a", "b"])
    );
    build(&fixture, &[], &fixture.context("mounts", &dockerfile));
    assert_eq!(fixture.ok("run --rm meet"), "a\nb\n");
}

#[test]
fn a_stage_runs_its_own_steps_while_those_that_it_copies_from_run() {
    let fixture = fixture!();
    let parties = ["a", "b", "last"];
    let dockerfile = format!(
        "{}{}FROM busybox\n{}COPY --from=a /a /\nCOPY --link --from=b /b /\nCMD cat /a /b /last\n",
        stage("a", &parties),
        stage("b", &parties),
        meet("last", &parties)
    );
    build(&fixture, &["--no-cache"], &fixture.context("own", &dockerfile));
    assert_eq!(fixture.ok("run --rm meet"), "a\nb\nlast\n");
}

/// Without files that are asked for by another stage, a stage is not built; and what is cached is not made again, though the
/// results of steps that it was made of are gone.
#[test]
fn beginning_early_runs_nothing_that_is_not_needed() {
    let fixture = fixture!();
    let dockerfile = "FROM busybox AS unused\nRUN exit 3\n\
        FROM busybox AS a\nARG A=1\nRUN echo $A >/ignored && echo a >/a\n\
        FROM busybox AS b\nRUN echo b >/b\n\
        FROM busybox AS last\nRUN echo last >/last\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat /a /b /last >/all\n";
    let context = fixture.context("lazy", dockerfile);
    let first = build(&fixture, &[], &context);
    assert!(!first.contains("exit 3"), "{first}");
    let ran = |progress: &str| {
        let done = |line: &&str| line.starts_with('#') && line.contains(" DONE ");
        progress.lines().filter(done).count()
    };
    let again = build(&fixture, &[], &context);
    let nothing = ran(&again);
    assert!(again.contains("CACHED"), "{again}");
    // The step of the other stage runs, what is copied of it is the same, and no step that stands on that runs.
    let changed = build(&fixture, &["--build-arg", "A=2"], &context);
    assert_eq!(ran(&changed), nothing + 1, "{again}{changed}");
    let target = build(&fixture, &["--target", "b"], &context);
    assert!(!target.contains("echo last"), "{target}");
}

/// A secret keeps a step's layer out of the cache, but not the key: later steps are found.
#[test]
fn steps_without_a_kept_layer_are_not_repeated() {
    let fixture = fixture!();
    fixture.write("secret", "correct horse battery staple");
    let dockerfile = "FROM busybox AS private\nRUN --mount=type=secret,id=s cp /run/secrets/s /private && echo public >/public\n\
        FROM busybox\nCOPY --from=private /public /\n";
    let context = fixture.context("private", dockerfile);
    let secret = format!("id=s,src={}", fixture.path("secret").display());
    let first = build(&fixture, &["--secret", &secret], &context);
    assert!(first.contains("cp /run/secrets/s"), "{first}");
    let again = build(&fixture, &["--secret", &secret], &context);
    assert!(!again.contains("cp /run/secrets/s"), "{again}");
}
