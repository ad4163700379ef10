//! `kiln`: builds images from Dockerfiles and runs them, without a daemon.

mod arguments;
mod attach;
mod commands;
mod config;
mod error;
mod images;
mod progress;
mod session;
mod signals;
mod text;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = arguments::read(std::env::args_os().collect())
        .and_then(|(globals, command, arguments)| (command.run)(&globals, arguments));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(error.report()),
    }
}
