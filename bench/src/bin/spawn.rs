//! Cost of starting a container, by the way in which its process is created.
//!
//! `cargo run --release -p kiln-bench --bin spawn [ROUNDS]`, as root, with a static busybox on the host. Rounds are
//! interleaved; prints minimum, median and 90th percentile in milliseconds.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use kiln_bench::{Outcome, busybox, samples::Samples, step::Fixture};
use kiln_runtime::{Spawner, serve_standard_input};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use std::process::Command;
use std::time::Instant;

fn main() -> Outcome<()> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        serve_standard_input();
    }
    let spawner = Spawner::start()?;
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100);
    let fixture = Fixture::new(&busybox()?)?;

    type Case<'a> = (&'static str, Box<dyn Fn() -> Outcome<()> + 'a>);
    let full = fixture.spec(|_| {});
    let bare = fixture.spec(bare);
    let cases: Vec<Case<'_>> = vec![
        ("fork+exec of the program alone", Box::new(|| fixture.plain())),
        ("helper forked at start, bare", Box::new(|| fixture.container(&spawner, &bare))),
        ("helper forked at start, full", Box::new(|| fixture.container(&spawner, &full))),
        ("re-executing ourselves, full", Box::new(|| fixture.container(&reexec()?, &full))),
    ];
    let mut samples = vec![Samples::default(); cases.len()];
    for round in 0..rounds + 5 {
        for (index, (_, run)) in cases.iter().enumerate() {
            let start = Instant::now();
            run()?;
            if round >= 5 {
                samples[index].push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    println!("{:<34} {:>8} {:>8} {:>8}  n={rounds}", "", "min", "median", "p90");
    for ((name, _), times) in cases.iter().zip(samples) {
        println!("{name:<34} {:>8.2} {:>8.2} {:>8.2}", times.min(), times.median(), times.p90());
    }
    Ok(())
}

fn reexec() -> Outcome<Spawner> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("serve");
    Ok(Spawner::start_by_exec(command)?)
}

/// Reduces a specification to pid, mount, IPC and UTS namespaces.
fn bare(spec: &mut Spec) {
    spec.set_mounts(None);
    if let Some(linux) = spec.linux_mut() {
        let kinds = [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid];
        let namespaces = kinds.map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        });
        linux.set_namespaces(Some(namespaces.to_vec())).set_masked_paths(None).set_readonly_paths(None);
    }
}
