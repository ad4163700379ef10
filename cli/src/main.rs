//! `kiln`: builds images from Dockerfiles and runs them, without a daemon.

// A program has no interface for other crates: here `pub` means "for the other modules".
#![allow(unreachable_pub)]

mod arguments;
mod attach;
mod commands;
mod config;
mod error;
mod format;
mod images;
mod progress;
mod pulling;
mod remote;
mod session;
mod signals;
mod text;
mod ui;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(words) = init_words(&words) {
        return ExitCode::from(kiln_runtime::reaper::run(words));
    }
    if let Some(words) = oci_words(&words) {
        return ExitCode::from(kiln_oci::main(words, env!("CARGO_PKG_VERSION")));
    }
    // Modes of what goes into layers are never cut by the user's mask.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let outcome =
        arguments::read(words).and_then(|(globals, command, arguments)| (command.run)(&globals, arguments));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(error.report()),
    }
}

/// The program that the first process of a container is to run: behind `--`, under the name that `kiln run --init`
/// gives this program there.
fn init_words(words: &[OsString]) -> Option<&[OsString]> {
    let (name, rest) = words.split_first()?;
    let is_init = Path::new(name).file_name().is_some_and(|name| name == kiln_engine::INIT_NAME);
    is_init.then(|| rest.strip_prefix(&[OsString::from("--")]).unwrap_or(rest))
}

/// The words of an OCI runtime's command line: behind `kiln oci`, or all under the name `kiln-runtime`.
///
/// Engines call it for every container, so nothing else is done before.
fn oci_words(words: &[OsString]) -> Option<Vec<OsString>> {
    let (name, rest) = words.split_first()?;
    if Path::new(name).file_name().is_some_and(|name| name == "kiln-runtime") {
        return Some(rest.to_vec());
    }
    let (command, rest) = rest.split_first()?;
    (command == "oci").then(|| rest.to_vec())
}
