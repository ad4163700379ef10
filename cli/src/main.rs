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

use std::process::ExitCode;

fn main() -> ExitCode {
    // Modes of what goes into layers are never cut by the user's mask.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let outcome = arguments::read(std::env::args_os().collect())
        .and_then(|(globals, command, arguments)| (command.run)(&globals, arguments));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(error.report()),
    }
}
