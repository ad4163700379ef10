//! The command line before a command has seen it: global options, the command's name, the rest.
//!
//! Done by hand so that starting a container does not begin with building the descriptions of all commands.

use crate::commands::{self, Command};
use crate::error::CliError;
use crate::ui;
use kiln_parser::suggest;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options that every command has.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// `--root`.
    pub root: Option<PathBuf>,
}

/// Global options, the command, and its arguments.
pub fn read(arguments: Vec<OsString>) -> Result<(Globals, &'static Command, Vec<OsString>), CliError> {
    let mut globals = Globals::default();
    let mut rest = arguments.into_iter().skip(1);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy().into_owned();
        match text.as_str() {
            "--help" | "-h" | "help" => return Err(CliError::Done(overview())),
            "--version" | "-v" => return Err(CliError::Done(commands::version::short())),
            "--root" => match rest.next() {
                Some(value) => globals.root = Some(value.into()),
                None => return Err(CliError::Flags("flag needs an argument: --root".to_owned(), Vec::new())),
            },
            _ => {
                if let Some(value) = text.strip_prefix("--root=") {
                    globals.root = Some(value.into());
                } else if text.starts_with('-') {
                    return Err(CliError::Flags(
                        format!("unknown flag: {text}"),
                        vec!["run `kiln --help` for the list of options".to_owned()],
                    ));
                } else {
                    let (command, arguments) = find(&text, rest.collect())?;
                    return Ok((globals, command, arguments));
                }
            }
        }
    }
    Err(CliError::Done(overview()))
}

/// The command of that name; `image ls` and its kin are other names of `images` and its kin.
fn find(name: &str, arguments: Vec<OsString>) -> Result<(&'static Command, Vec<OsString>), CliError> {
    if let Some(command) = commands::ALL.iter().find(|command| command.name == name) {
        return Ok((command, arguments));
    }
    let group: Vec<_> = commands::GROUPS.iter().filter(|(group, _, _)| *group == name).collect();
    if group.is_empty() {
        return Err(unknown(name));
    }
    let second = arguments.first().map(|argument| argument.to_string_lossy().into_owned());
    let found = group.iter().find(|(_, member, _)| second.as_deref() == Some(member));
    match (found, second) {
        (Some((_, _, target)), _) => {
            let command = commands::ALL.iter().find(|command| command.name == *target);
            let command = command.expect("groups name commands that exist");
            Ok((command, arguments.into_iter().skip(1).collect()))
        }
        (None, second) => {
            let members: Vec<&str> = group.iter().map(|(_, member, _)| *member).collect();
            let message = match second {
                Some(second) => format!("unknown command: kiln {name} {second}"),
                None => format!("`kiln {name}` needs a command"),
            };
            Err(CliError::Usage(message, vec![format!("one of: {}", members.join(", "))]))
        }
    }
}

fn unknown(name: &str) -> CliError {
    let names = commands::ALL.iter().map(|command| command.name);
    let hint = match suggest::nearest(name, names) {
        Some(near) => format!("did you mean `kiln {near}`?"),
        None => "run `kiln --help` for the list of commands".to_owned(),
    };
    CliError::Usage(format!("unknown command: kiln {name}"), vec![hint])
}

fn overview() -> String {
    let mut text = String::from(
        "kiln builds container images from Dockerfiles and runs them, without a daemon\n\nUsage: kiln [OPTIONS] COMMAND\n\nCommands:\n",
    );
    let rows = commands::ALL.iter().filter(|command| !command.hidden);
    for command in rows {
        text.push_str(&format!("  {:<10} {}\n", command.name, command.about));
    }
    text.push_str(
        "\nOptions:\n  --root DIR   Store of images, layers and containers (default: KILN_ROOT, or /var/lib/kiln)\n  -v, --version\n  -h, --help\n\nRun `kiln COMMAND --help` for what a command takes.\n",
    );
    text
}

/// Reads a command's own arguments.
pub fn parse<T: clap::Parser>(name: &str, arguments: Vec<OsString>) -> Result<T, CliError> {
    let command = T::command().bin_name(format!("kiln {name}")).name(name.to_owned());
    let command = command.max_term_width(100).color(clap::ColorChoice::Never).disable_version_flag(true);
    let with_name = std::iter::once(OsString::from(name)).chain(arguments);
    let matches = command.try_get_matches_from(with_name).map_err(|error| refused(name, &error))?;
    T::from_arg_matches(&matches).map_err(|error| refused(name, &error))
}

/// Docker's distinction: what a flag says wrong is 125, what is missing is 1.
fn refused(name: &str, error: &clap::Error) -> CliError {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return CliError::Done(error.to_string());
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let mut hints = vec![format!("run `kiln {name} --help` for what the command takes")];
    let near = |kind| match error.get(kind) {
        Some(ContextValue::String(near)) => Some(near.clone()),
        Some(ContextValue::Strings(near)) => near.first().cloned(),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(flag)) => flag.clone(),
                _ => String::new(),
            };
            if !flag.starts_with('-') {
                return CliError::Usage(format!("kiln {name}: unexpected argument `{flag}`"), hints);
            }
            if let Some(near) = near(ContextKind::SuggestedArg) {
                hints.insert(0, format!("did you mean {near}?"));
            }
            CliError::Flags(format!("unknown flag: {flag}"), hints)
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = text.lines().skip(1).map(str::trim).take_while(|line| !line.is_empty());
            let missing: Vec<&str> = missing.collect();
            CliError::Usage(format!("kiln {name}: missing {}", missing.join(", ")), hints)
        }
        _ => CliError::Flags(first, hints),
    }
}

/// Shows the help of a finished command line.
pub fn show(text: &str) {
    ui::print(text);
}
