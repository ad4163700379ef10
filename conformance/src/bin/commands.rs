//! Asks the reference engine the command lines of `testdata/commands`, and records its answers.
//!
//! ```text
//! commands record [FILE…]
//! ```
//!
//! The client is the program `docker` of the caller, with its environment; the image `busybox` of the engine becomes that
//! of `target/bases`. All containers of the engine are removed, and all other images: use an engine for tests. The test
//! `commands` among the black-box tests compares Kiln's answers.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use anyhow::{Context, Result, bail};
use kiln_conformance::commands::{self, File};
use kiln_conformance::differential;
use std::path::Path;
use std::process::Command;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("record") {
        bail!("usage: commands record [FILE…]");
    }
    let only: Vec<String> = arguments.collect();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    differential::load_base(&project.join("target/bases/busybox"))?;
    let programs = tempfile::tempdir()?;
    std::os::unix::fs::symlink(client()?, programs.path().join("docker"))?;
    for mut file in commands::read_dir(&project.join("testdata/commands"))? {
        let name = file.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if only.is_empty() || only.contains(&name) {
            record(&mut file, programs.path())?;
            println!("recorded {name}");
        }
    }
    clear()
}

/// Path of the program `docker`.
fn client() -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|dir| dir.join("docker"));
    programs.find(|program| program.exists()).context("there is no program `docker`")
}

fn record(file: &mut File, programs: &Path) -> Result<()> {
    clear()?;
    let dir = tempfile::tempdir()?;
    let prepare = |command: &mut Command| {
        let inherited = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DOCKER_"));
        command.envs(inherited);
    };
    for line in &mut file.lines {
        line.reference = commands::ask(&line.command, dir.path(), programs, &prepare)?;
    }
    file.write()
}

/// Removes containers, volumes, and images other than the base image.
fn clear() -> Result<()> {
    let script = "docker rm -fv $(docker ps -aq); docker volume prune -af
        docker rmi -f $(docker images --format '{{.Repository}}:{{.Tag}}' | grep -vx busybox:latest)
        docker image prune -f; docker builder prune -af";
    Command::new("sh").args(["-c", script]).output().context("clearing the engine")?;
    Ok(())
}
