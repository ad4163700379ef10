//! `kiln`: builds images from Dockerfiles and runs them, without a daemon.

// The standard library's start takes a tenth of the time of a container's: see `begin`.
#![cfg_attr(not(test), no_main)]
// A program has no interface for other crates: here `pub` means "for the other modules".
#![allow(unreachable_pub)]

mod arguments;
mod attach;
mod commands;
mod conditions;
mod config;
mod detach_keys;
mod error;
mod foreground;
mod format;
mod health_check;
mod help;
mod image_events;
mod images;
mod log;
mod missing;
mod progress;
mod pulling;
mod remote;
mod session;
mod signals;
mod text;
mod times;
mod ui;
mod visible;

use std::ffi::{OsString, c_char, c_int};
use std::path::Path;

#[cfg(not(target_env = "gnu"))]
compile_error!(
    "only with the GNU C library does `std::env::args` know the arguments before the standard library's own start"
);

/// The program begins here, called by the C library.
#[allow(unsafe_code, reason = "the one function of this name, as the C library declares it")]
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    /// Exit code of a panic, as in the standard library.
    const PANICKED: u8 = 101;
    kiln_runtime::start::begin();
    let code = std::panic::catch_unwind(run).unwrap_or(PANICKED);
    // Flushes the streams of the standard library.
    std::process::exit(code.into())
}

fn run() -> u8 {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(words) = init_words(&words) {
        return kiln_runtime::reaper::run(words);
    }
    // Without a log: what this process prints is the output of the check.
    if let [_, word, root, id] = words.as_slice()
        && word == kiln_engine::CHECK
    {
        return health_check::run(Path::new(root), &id.to_string_lossy());
    }
    if let Some(value) = std::env::var_os(log::VARIABLE)
        && let Err(error) = log::begin(&value)
    {
        return error.report();
    }
    if let Some(words) = oci_words(&words) {
        kiln_runtime::start::end(kiln_oci::main(words, env!("CARGO_PKG_VERSION")));
    }
    if words.get(1).is_some_and(|word| word == session::SYNC) {
        return u8::from(kiln_image::store::sync_in_background().is_err());
    }
    if words.get(1).is_some_and(|word| word == commands::completion::NAMES) {
        // A shell that completes a line shows no errors.
        return commands::completion::print(&words[2..]).unwrap_or(1);
    }
    if words.get(1).is_some_and(|word| word == session::ADOPT) {
        return session::adopt_here(&words[2..]);
    }
    // The user's umask must not change the modes of files in layers.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if words.get(1).is_some_and(|word| word == commands::up::BEGIN) {
        return commands::up::begin_here(&words[2..]);
    }
    let outcome = arguments::read(words.clone())
        .and_then(|(globals, command, arguments)| (command.run)(&globals, arguments));
    let code = match outcome {
        Ok(code) => code,
        Err(error) => {
            if kiln_image::store::found_damaged_index() {
                begin_anew(&words);
            }
            error.report()
        }
    };
    after_answer(code)
}

/// Exit code of a command after its output: fails when a part of the output was not written.
fn after_answer(code: u8) -> u8 {
    match ui::lost_answer() {
        Some(error) if code == 0 => {
            error::CliError::failed(format!("cannot write to standard output: {error}")).report()
        }
        _ => code,
    }
}

/// Runs the command again, in a process that rebuilds the store's damaged index.
fn begin_anew(words: &[OsString]) {
    use std::os::unix::process::CommandExt;
    const ONCE: &str = "KILN_INDEX_WAS_DAMAGED";
    if std::env::var_os(ONCE).is_none() {
        ui::tell("warning: the store's index is damaged and is rebuilt\n");
        let arguments = words.iter().skip(1);
        // Where exec fails, the first error is reported.
        let _ = std::process::Command::new("/proc/self/exe").args(arguments).env(ONCE, "1").exec();
    }
}

/// Command line for the init process of a container, when this program runs under the name that it has there with
/// `kiln run --init`; `None` otherwise.
fn init_words(words: &[OsString]) -> Option<&[OsString]> {
    let (name, rest) = words.split_first()?;
    let is_init = Path::new(name).file_name().is_some_and(|name| name == kiln_engine::INIT_NAME);
    is_init.then(|| rest.strip_prefix(&[OsString::from("--")]).unwrap_or(rest))
}

/// Arguments of the OCI runtime: those after `kiln oci`, or all under the name `kiln-runtime`; `None` otherwise.
///
/// Engines call it for every container, so it is checked before anything else.
fn oci_words(words: &[OsString]) -> Option<Vec<OsString>> {
    let (name, rest) = words.split_first()?;
    if Path::new(name).file_name().is_some_and(|name| name == "kiln-runtime") {
        return Some(rest.to_vec());
    }
    let (command, rest) = rest.split_first()?;
    (command == "oci").then(|| rest.to_vec())
}
