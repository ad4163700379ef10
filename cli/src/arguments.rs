//! The command line before a command has seen it: global options, the command's name, the rest.
//!
//! Done by hand so that starting a container does not begin with building the descriptions of all commands.

use crate::commands::{self, Command};
use crate::error::CliError;
use crate::{help, ui};
use kiln_parser::suggest;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options in front of the command.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// Store directory of `--root`; `None` without the flag.
    pub root: Option<PathBuf>,
}

/// Splits a command line into global options, the command, and its arguments.
///
/// # Errors
///
/// Fails for unknown options and commands; `CliError::Done` carries the output of `--help` and `--version`.
pub fn read(arguments: Vec<OsString>) -> Result<(Globals, &'static Command, Vec<OsString>), CliError> {
    let mut globals = Globals::default();
    let mut rest = arguments.into_iter().skip(1);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy().into_owned();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if text.starts_with("--") => (name, Some(OsString::from(value))),
            _ => (text.as_str(), None),
        };
        match name {
            "--help" | "-h" => return Err(CliError::Done(help::overview())),
            "--version" | "-v" => return Err(CliError::Done(commands::version::short())),
            "help" => {
                let (command, arguments) = for_help(rest.collect())?;
                return Ok((globals, command, arguments));
            }
            "--root" | "--color" => {
                let Some(value) = value.or_else(|| rest.next()) else {
                    return Err(CliError::Flags(format!("flag needs an argument: {name}"), Vec::new()));
                };
                match name {
                    "--root" => globals.root = Some(value.into()),
                    _ => ui::choose_color(&value.to_string_lossy())?,
                }
            }
            _ if text.starts_with('-') => {
                return Err(CliError::Flags(
                    format!("unknown flag: {text}"),
                    vec!["run `kiln --help` for the list of options".to_owned()],
                ));
            }
            _ => {
                let (command, arguments) = find(&text, rest.collect())?;
                return Ok((globals, command, arguments));
            }
        }
    }
    Err(CliError::Done(help::overview()))
}

/// Returns the command that the words after `help` name, with `--help` as its argument.
fn for_help(mut words: Vec<OsString>) -> Result<(&'static Command, Vec<OsString>), CliError> {
    if words.first().is_none_or(|word| ["help", "--help", "-h"].iter().any(|help| word == help)) {
        return Err(CliError::Done(help::overview()));
    }
    let name = words.remove(0).to_string_lossy().into_owned();
    // Words after the command's name are ignored.
    let is_group = commands::GROUPS.iter().any(|(group, _, _)| *group == name);
    words.truncate(usize::from(is_group));
    words.push("--help".into());
    find(&name, words)
}

/// Finds a command by its name or by the names of a group and a member: `image ls` is `images`.
fn find(name: &str, arguments: Vec<OsString>) -> Result<(&'static Command, Vec<OsString>), CliError> {
    if let Some(command) = commands::named(name) {
        return Ok((command, arguments));
    }
    let group: Vec<_> = commands::GROUPS.iter().filter(|(group, _, _)| *group == name).collect();
    if group.is_empty() {
        return Err(unknown(name));
    }
    let second = arguments.first().map(|argument| argument.to_string_lossy().into_owned());
    let found = group.iter().find(|(_, member, _)| second.as_deref() == Some(member));
    match (found, second.as_deref()) {
        (Some((_, _, target)), _) => {
            let command = commands::named(target).expect("groups name commands that exist");
            // Without a group, `inspect` finds objects of every type.
            let kind = (*target == "inspect").then(|| OsString::from(format!("--type={name}")));
            Ok((command, kind.into_iter().chain(arguments.into_iter().skip(1)).collect()))
        }
        (None, None | Some("--help" | "-h" | "help")) => match arguments.get(1) {
            // `kiln image help ls`
            Some(_) if second.as_deref() == Some("help") => {
                let words = [name.into()].into_iter().chain(arguments.into_iter().skip(1));
                for_help(words.collect())
            }
            _ => Err(CliError::Done(help::group(name))),
        },
        (None, Some(second)) => {
            let members = group.iter().map(|(_, member, _)| *member);
            let hint = match suggest::nearest(second, members.clone()) {
                Some(near) => format!("did you mean `kiln {name} {near}`?"),
                None => format!("one of: {}", members.collect::<Vec<_>>().join(", ")),
            };
            Err(CliError::Usage(format!("unknown command: kiln {name} {second}"), vec![hint]))
        }
    }
}

/// Commands of Docker that Kiln lacks: a command with a similar name is not what the user means.
const OF_DOCKER: [&str; 11] = [
    "compose", "config", "context", "manifest", "plugin", "search", "secret", "service", "stack", "swarm",
    "trust",
];

fn unknown(name: &str) -> CliError {
    if OF_DOCKER.contains(&name) {
        let hint = "run `kiln --help` for the commands that there are".to_owned();
        return CliError::Usage(
            format!("unknown command: kiln {name} (Docker has it, Kiln does not)"),
            vec![hint],
        );
    }
    // What a member of groups would remove depends on the group: it is never guessed.
    let groups: Vec<String> = commands::GROUPS
        .iter()
        .filter(|(group, member, _)| *member == name && *group != "buildx")
        .map(|(group, member, _)| format!("`kiln {group} {member}`"))
        .collect();
    if !groups.is_empty() {
        let hint = format!("one of {}", groups.join(", "));
        return CliError::Usage(format!("unknown command: kiln {name}"), vec![hint]);
    }
    let names = commands::ALL.iter().filter(|command| !command.hidden).map(|command| command.name);
    let hint = match suggest::nearest(name, names) {
        Some(near) => format!("did you mean `kiln {near}`?"),
        None => "run `kiln --help` for the list of commands".to_owned(),
    };
    CliError::Usage(format!("unknown command: kiln {name}"), vec![hint])
}

/// Parses a command's own arguments.
///
/// # Errors
///
/// Fails for unknown flags and invalid values; `CliError::Done` carries the help page.
pub fn parse<T: clap::Parser>(name: &str, arguments: Vec<OsString>) -> Result<T, CliError> {
    // As in Docker, a flag may be repeated, and its last value counts.
    let command = help::complete(name, T::command()).args_override_self(true).mut_args(with_any_value);
    let arguments = with_switches(&command, arguments);
    let with_name = std::iter::once(OsString::from(name)).chain(arguments);
    let matches = command.try_get_matches_from(with_name).map_err(|error| refused(name, &error))?;
    if let Some(color) = matches.get_one::<String>(help::COLOR) {
        ui::choose_color(color)?;
    }
    T::from_arg_matches(&matches).map_err(|error| refused(name, &error))
}

/// Makes the argument after an option its value even when it begins with a dash, as Docker does: `--since -1` is a wrong
/// time, and not an unknown flag.
fn with_any_value(argument: clap::Arg) -> clap::Arg {
    let has_one = argument.get_num_args().is_none_or(|number| number == 1.into());
    let is_option = !argument.is_positional() && argument.get_action().takes_values();
    if is_option && has_one { argument.allow_hyphen_values(true) } else { argument }
}

/// Replaces `--switch=true` by `--switch` and `-s=true` by `-s`, and removes `--switch=false` and what it takes back, as
/// Docker's switches accept both. Arguments after `--` are another program's.
fn with_switches(command: &clap::Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut kept: Vec<OsString> = Vec::new();
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            kept.push(argument);
            kept.extend(rest);
            break;
        }
        match truth(command, &argument) {
            None => kept.push(argument),
            Some((name, true)) => kept.push(name),
            Some((name, false)) => kept.retain(|earlier| *earlier != name),
        }
    }
    kept
}

/// Name and value of a switch that is written with a value; `None` for all else.
fn truth(command: &clap::Command, argument: &OsString) -> Option<(OsString, bool)> {
    let (name, value) = argument.to_str()?.split_once('=')?;
    let is_named = |known: &clap::Arg| match (name.strip_prefix("--"), name.strip_prefix('-')) {
        (Some(long), _) => known.get_long() == Some(long),
        (None, Some(short)) => known.get_short().is_some_and(|own| own.to_string() == short),
        (None, None) => false,
    };
    let is_switch = |known: &clap::Arg| matches!(known.get_action(), clap::ArgAction::SetTrue);
    command.get_arguments().find(|known| is_named(known) && is_switch(known))?;
    // The values that Go's strconv.ParseBool takes.
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some((name.into(), true)),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some((name.into(), false)),
        _ => None,
    }
}

/// Like [`parse`], for commands whose arguments after the first positional one are another program's: in `run IMAGE --rm`
/// the flag is an argument of the container's process.
///
/// # Errors
///
/// Fails like [`parse`].
pub fn parse_leading<T: clap::Parser>(name: &str, arguments: Vec<OsString>) -> Result<T, CliError> {
    let command = help::complete(name, T::command());
    let first = first_positional(&command, &arguments);
    let mut own = arguments;
    let rest = own.split_off((first + 1).min(own.len()));
    if first > 0 && own.get(first - 1).is_some_and(|argument| argument == "--") {
        own.remove(first - 1);
    }
    if !rest.is_empty() {
        own.push("--".into());
        own.extend(rest);
    }
    parse(name, own)
}

/// The index of the first argument that is neither an option nor an option's value.
fn first_positional(command: &clap::Command, arguments: &[OsString]) -> usize {
    let has_value = |argument: &&clap::Arg| argument.get_action().takes_values();
    let long_has_value = |name: &str| {
        let named = |argument: &&clap::Arg| {
            argument.get_long() == Some(name)
                || argument.get_visible_aliases().is_some_and(|aliases| aliases.contains(&name))
        };
        command.get_arguments().find(named).as_ref().is_some_and(has_value)
    };
    let short_has_value = |letter: char| {
        let found = command.get_arguments().find(|argument| argument.get_short() == Some(letter));
        found.as_ref().is_some_and(has_value)
    };
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        let text = argument.to_string_lossy();
        let value_follows = match text.strip_prefix("--") {
            Some("") => return at + 1,
            Some(long) => !long.contains('=') && long_has_value(long),
            None => match text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                // In `-itw DIR` the value follows, in `-itwDIR` it does not.
                Some(letters) => {
                    letters.chars().position(short_has_value) == Some(letters.chars().count() - 1)
                }
                None => return at,
            },
        };
        at += if value_follows { 2 } else { 1 };
    }
    at
}

/// Converts clap's error. As in Docker, the exit code is 125 when the command line cannot be parsed, and 1 when arguments
/// are missing.
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Example {
        #[arg(short, long)]
        tty: bool,
        #[arg(short, long)]
        env: Vec<String>,
        image: String,
        #[arg(allow_hyphen_values = true)]
        command: Vec<String>,
    }

    #[test]
    fn switches_take_truth() {
        let tty = |word: &str| {
            let words = [word, "image"].iter().map(OsString::from).collect();
            parse::<Example>("example", words).map(|example| example.tty).ok()
        };
        assert_eq!(tty("--tty"), Some(true));
        assert_eq!(tty("--tty=true"), Some(true));
        assert_eq!(tty("--tty=false"), Some(false));
        assert_eq!((tty("-t=true"), tty("-t=false")), (Some(true), Some(false)));
        assert_eq!(tty("--tty=perhaps"), None);
        assert_eq!(tty("--env=A=true"), Some(false));
        let all = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            parse_leading::<Example>("example", words).map(|example| (example.tty, example.command)).unwrap()
        };
        // The last one counts, and those of another program are left alone.
        assert_eq!(all("--tty --tty --tty=false image"), (false, vec![]));
        assert_eq!(all("--tty=false -t image --tty=true"), (true, vec!["--tty=true".to_owned()]));
    }

    #[test]
    fn what_follows_the_first_name_is_left_alone() {
        let check = |line: &str, tty: bool, env: &[&str], command: &[&str]| {
            let words = line.split(' ').map(OsString::from).collect();
            let example: Example = parse_leading("example", words).unwrap();
            assert_eq!((example.tty, example.image.as_str()), (tty, "image"), "{line}");
            assert_eq!(example.env, env, "{line}");
            assert_eq!(example.command, command, "{line}");
        };
        check("image", false, &[], &[]);
        check("-t image -t --env x", true, &[], &["-t", "--env", "x"]);
        check("-te A=1 image -- a", true, &["A=1"], &["--", "a"]);
        check("-teA image --tty", true, &["A"], &["--tty"]);
        check("--env A=1 --env=B=2 image -e", false, &["A=1", "B=2"], &["-e"]);
        check("-- image --tty", false, &[], &["--tty"]);
    }
}
