//! Time to compile a seccomp filter.
//!
//! `cargo bench -p kiln-bench --bench seccomp`. The limit: a profile of the size of Docker's default one, for three
//! architectures, is compiled in less than 150 µs.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use kiln_runtime::seccomp::{compile_profile, default_program, docker_profile};
use std::hint::black_box;

/// Default profile, with more than 370 names, for x86-64, i386 and x32.
const PROFILE: &str = include_str!("../../runtime/testdata/seccomp/default/profile.json");
/// Profile of rules with many conditions.
const CONDITIONS: &str = include_str!("../../runtime/testdata/seccomp/random-x86_64/profile.json");

fn filters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seccomp");
    group.bench_function("read", |bencher| bencher.iter(|| docker_profile(black_box(PROFILE), 0, (6, 1))));
    for (name, text) in [("compile the default profile", PROFILE), ("compile conditions", CONDITIONS)] {
        let mut profile = docker_profile(text, 0, (6, 1)).expect("a profile");
        profile.set_listener_path(Some("/agent".into()));
        group.bench_function(name, |bencher| bencher.iter(|| compile_profile(black_box(&profile))));
    }
    // CAP_SYS_TIME: not among the sets of capabilities that are compiled beforehand.
    group.bench_function("default, of a rare set", |bencher| {
        bencher.iter(|| default_program(black_box(1 << 25)))
    });
    group.bench_function("default, of no capabilities", |bencher| {
        bencher.iter(|| default_program(black_box(0)))
    });
    group.finish();
}

criterion_group!(benches, filters);
criterion_main!(benches);
