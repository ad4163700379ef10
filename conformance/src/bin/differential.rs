//! Builds each trial of `testdata/differential` with the reference engine, and records the images.
//!
//! ```text
//! differential record [TRIAL…]
//! differential compare KILN [TRIAL…]
//! ```
//!
//! `record` asks the engine of `DOCKER_HOST`, whose image `busybox` becomes that of `target/bases`. `compare` builds
//! with the program `KILN`, which must find the same image, and shows what differs from the records; the test
//! `differential` among the black-box tests does the same.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use anyhow::{Context, Result, bail};
use kiln_conformance::differential::{self, Base, KILN_ARGUMENTS, Trial};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let layout = project.join("target/bases/busybox");
    let dir = project.join("testdata/differential");
    let base = Base::read(&layout).context("the base images are missing: run `make bases`")?;
    let trials = differential::read_dir(&dir)?;
    let chosen = |only: Vec<String>| -> Vec<Trial> {
        trials.into_iter().filter(|trial| only.is_empty() || only.contains(&trial.name)).collect()
    };
    match arguments.next().as_deref() {
        Some("record") => {
            differential::load_base(&layout)?;
            record(&dir, &base, &chosen(arguments.collect()))
        }
        Some("compare") => {
            let kiln = arguments.next().context("the program is missing")?;
            compare(&dir, &base, &kiln, &chosen(arguments.collect()))
        }
        _ => bail!("usage: differential record|compare …"),
    }
}

/// Separate directory for each build: the engine identifies contexts by name.
fn dir_for(trial: &Trial) -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix(&format!("trial-{}-", trial.name)).tempdir()?)
}

fn record(dir: &Path, base: &Base, trials: &[Trial]) -> Result<()> {
    std::fs::create_dir_all(dir.join("recorded"))?;
    for trial in trials {
        let context = dir_for(trial)?;
        trial.lay_out(context.path())?;
        // Times are not part of the engine's cache key, so a cached result could have those of another trial.
        let image = trial.build(&|| Command::new("docker"), &["--no-cache"], context.path(), base)?;
        std::fs::write(differential::recording(dir, &trial.name), image)?;
        println!("recorded {}", trial.name);
    }
    Ok(())
}

fn compare(dir: &Path, base: &Base, kiln: &str, trials: &[Trial]) -> Result<()> {
    let program = PathBuf::from(kiln);
    let mut different = 0;
    for trial in trials {
        let Ok(reference) = std::fs::read_to_string(differential::recording(dir, &trial.name)) else {
            println!("{}: not recorded", trial.name);
            continue;
        };
        let context = dir_for(trial)?;
        trial.lay_out(context.path())?;
        let image = trial.build(&|| Command::new(&program), &KILN_ARGUMENTS, context.path(), base)?;
        let found = differential::differences(&reference, &image);
        if !found.is_empty() {
            different += 1;
            println!("{}: {}\n{}", trial.name, trial.rule, found.join("\n"));
        }
    }
    println!("{} of {} differ", different, trials.len());
    Ok(())
}
