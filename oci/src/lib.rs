//! OCI runtime for other engines: `create`, `start`, `run`, `exec` and the rest, as podman, containerd and Docker call
//! runc and crun.
//!
//! Each command is a separate process that creates at most one container, as its child and without a helper. Only a
//! directory outlives it ([`state`]).

// A program has no interface for other crates: here `pub` means "for the other modules".
#![allow(unreachable_pub)]

mod arguments;
mod bundle;
mod commands;
mod create;
mod enter;
mod error;
mod foreground;
mod hooks;
mod log;
mod own_file;
mod readiness;
mod state;
mod terminal;
mod user;

pub use error::{OciError, PsError, StateError};
pub use state::Status;

use arguments::{Arguments, Flag, switch, value};
use commands::COMMANDS;
use log::{Level, Log};
use state::{OCI_VERSION, Store};
use std::ffi::OsString;
use std::io::Write;

/// Flags before the command.
const GLOBAL: [Flag; 10] = [
    value(&["root"]),
    value(&["log"]),
    value(&["log-format"]),
    switch(&["debug"]),
    switch(&["systemd-cgroup"]),
    value(&["cgroup-manager"]),
    value(&["rootless"]),
    value(&["log-level"]),
    switch(&["help", "h"]),
    switch(&["version", "v"]),
];

/// Parameters of every command.
pub(crate) struct Globals {
    pub(crate) store: Store,
    pub(crate) log: Log,
    /// True when containers get no cgroups.
    pub(crate) no_groups: bool,
    /// Whether a failure to create cgroups is tolerated; `None` to decide by the privileges of the process.
    pub(crate) rootless: Option<bool>,
}

/// Runs the command line, without the program's own name; returns the exit code.
///
/// Must be called by a process with one thread.
pub fn main(words: Vec<OsString>, version: &str) -> u8 {
    let mut log = Log::default();
    match run(words, version, &mut log) {
        Ok(code) => code,
        Err(error) => {
            log.error(&error.to_string());
            error.code()
        }
    }
}

fn run(words: Vec<OsString>, version: &str, log: &mut Log) -> Result<u8, OciError> {
    let words = words.into_iter().map(|word| {
        word.into_string().map_err(|word| OciError::usage(format!("argument {word:?} is not UTF-8")))
    });
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let globals = Arguments::read(&words, &GLOBAL, true)?;
    *log = log_of(&globals)?;
    if let Err(error) = log.open() {
        *log = Log::default();
        return Err(error);
    }
    if globals.has("version") {
        let text = format!("kiln-runtime version {version}\nspec: {OCI_VERSION}\n");
        return print(&text);
    }
    let Some((name, rest)) = globals.words.split_first().filter(|_| !globals.has("help")) else {
        return print(&help());
    };
    let (no_groups, rootless) = group_choices(&globals)?;
    let command = COMMANDS.iter().find(|command| command.name == name);
    let Some(command) = command else {
        if name == "help" {
            return print(&help());
        }
        return Err(OciError::usage(format!(
            "No help topic for '{name}': there is no such command; `kiln oci --help` lists them"
        )));
    };
    if rest.iter().take_while(|word| word.starts_with('-')).any(|word| word == "--help" || word == "-h") {
        return print(&command_help(command));
    }
    let arguments = Arguments::read(rest, &command.flags.concat(), command.until_word)?;
    let globals = Globals {
        store: Store::new(globals.get("root").filter(|root| !root.is_empty())),
        log: log.clone(),
        no_groups,
        rootless,
    };
    match ((command.run)(&globals, &arguments), command.failure) {
        (Err(error), Some(code)) => {
            log.error(&error.to_string());
            Ok(code)
        }
        (outcome, _) => outcome,
    }
}

/// Destination and format of messages.
fn log_of(globals: &Arguments) -> Result<Log, OciError> {
    let json = match globals.get("log-format") {
        None | Some("" | "text") => false,
        Some("json") => true,
        Some(other) => {
            return Err(OciError::usage(format!("invalid log-format {other:?}: text and json exist")));
        }
    };
    let level = match globals.get("log-level") {
        _ if globals.has("debug") => Level::Debug,
        None | Some("" | "warning" | "info") => Level::Warning,
        Some("debug") => Level::Debug,
        Some("error") => Level::Error,
        Some(other) => {
            return Err(OciError::usage(format!(
                "invalid log-level {other:?}: error, warning and debug exist"
            )));
        }
    };
    let file = globals.get("log").filter(|path| !path.is_empty()).map(Into::into);
    Ok(Log { file, json, level })
}

/// Whether containers do without cgroups, and whether the caller declares that it cannot create them.
fn group_choices(globals: &Arguments) -> Result<(bool, Option<bool>), OciError> {
    let no_groups = match globals.get("cgroup-manager") {
        None | Some("" | "cgroupfs") => false,
        Some("disabled") => true,
        Some("systemd") => return Err(no_systemd("--cgroup-manager=systemd")),
        Some(other) => {
            return Err(OciError::usage(format!(
                "unknown cgroup manager {other:?}: cgroupfs and disabled exist"
            )));
        }
    };
    if globals.has("systemd-cgroup") {
        return Err(no_systemd("--systemd-cgroup"));
    }
    let rootless = match globals.get("rootless") {
        None | Some("" | "auto") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => {
            return Err(OciError::usage(format!(
                "invalid value {other:?} for -rootless: true, false and auto exist"
            )));
        }
    };
    Ok((no_groups, rootless))
}

fn no_systemd(flag: &str) -> OciError {
    OciError::usage(format!(
        "{flag} is not supported: groups are made directly (use --cgroup-manager=cgroupfs, or in podman `--cgroup-manager cgroupfs`)"
    ))
}

fn help() -> String {
    let mut text = "Usage: kiln oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND\n\nAn OCI runtime, to be called by container engines.\n\nCommands:\n".to_owned();
    for command in COMMANDS {
        text.push_str(&format!("  {:<11} {}\n", command.name, command.about));
    }
    text
}

fn command_help(command: &commands::Command) -> String {
    let mut text =
        format!("Usage: kiln oci {} [FLAGS] {}\n\n{}\n", command.name, command.words, command.about);
    if !command.flags.is_empty() {
        text.push_str("\nFlags:\n");
    }
    for flag in command.flags.iter().copied().flatten() {
        let names: Vec<String> = flag
            .names
            .iter()
            .map(|name| if name.len() == 1 { format!("-{name}") } else { format!("--{name}") })
            .collect();
        let value = if flag.takes_value { " VALUE" } else { "" };
        text.push_str(&format!("  {}{value}\n", names.join(", ")));
    }
    text
}

/// Writes to standard output; a closed reader is ignored, other failures are errors.
pub(crate) fn print(text: &str) -> Result<u8, OciError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(OciError::Output(error)),
        _ => Ok(0),
    }
}
