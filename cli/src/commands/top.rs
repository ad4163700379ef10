//! Command `kiln top`.

mod column;

use super::each;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use column::{Column, Host};
use kiln_engine::Containers;
use std::ffi::OsString;

/// List the processes of a container, with pids of the host.
#[derive(Debug, Parser)]
struct Top {
    /// Container to look at: name or id
    container: String,
    /// Options of ps: -ef, aux, or -o with columns [default: -ef]
    #[arg(value_name = "PS_OPTIONS", allow_hyphen_values = true, trailing_var_arg = true)]
    options: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Top as clap::CommandFactory>::command()
}

/// Prints a table of the processes. The program `ps` is not needed: columns are read from /proc.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let top: Top = arguments::parse_leading("top", arguments)?;
    let columns = columns(&top.options)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let live = each::live(&containers, &top.container)?;
    let host = Host::read();
    let mut processes = live.processes()?;
    processes.sort_by_key(|process| process.pid);
    let head: Vec<&str> = columns.iter().map(|(_, head)| head.as_str()).collect();
    let cells = processes
        .iter()
        .map(|process| columns.iter().map(|(column, _)| column.show(process, &host)).collect());
    ui::print(&text::roomy_table(&head, &cells.collect::<Vec<_>>()));
    Ok(0)
}

const FULL: &[&str] = &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
const OF_USERS: &[&str] =
    &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"];

/// Columns that options of ps ask for, each with its head.
fn columns(options: &[String]) -> Result<Vec<(Column, String)>, CliError> {
    let mut chosen: Vec<(Column, String)> = Vec::new();
    let mut usual = FULL;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let letters = option.strip_prefix('-').unwrap_or(option);
        if let Some(list) = letters.strip_prefix("-format=") {
            chosen.extend(named(list)?);
            continue;
        }
        // `-eo pid,cmd` and `-opid,cmd`: the list follows the letter.
        let (flags, list) =
            letters.split_once('o').map_or((letters, None), |(flags, list)| (flags, Some(list)));
        if flags.chars().any(|flag| !"aAefFuxwH".contains(flag)) {
            return Err(unknown(option));
        }
        if flags.contains('u') {
            usual = OF_USERS;
        }
        match list {
            Some("") => {
                let list = options.next().ok_or_else(|| unknown(option))?;
                chosen.extend(named(list)?);
            }
            Some(list) => chosen.extend(named(list)?),
            None => {}
        }
    }
    if chosen.is_empty() {
        return named(&usual.join(","));
    }
    Ok(chosen)
}

fn unknown(option: &str) -> CliError {
    CliError::failed(format!("unknown option of ps: {option}"))
        .hint("-ef, aux, or -o with columns, such as -o pid,user,cmd")
}

/// Columns of a list such as `pid,comm=NAME`.
fn named(list: &str) -> Result<Vec<(Column, String)>, CliError> {
    let column = |text: &str| {
        let (name, head) = text.split_once('=').map_or((text, None), |(name, head)| (name, Some(head)));
        // In the table of -ef the column UID has names.
        let known = if name == "UID" { "user" } else { name };
        let column = Column::named(&known.to_lowercase()).ok_or_else(|| {
            CliError::failed(format!("unknown user-defined format specifier \"{name}\""))
                .hint(format!("columns: {}", Column::names()))
        })?;
        // The heads of ps are in capitals, and those of the usual tables are as they are written here.
        let head = head.map_or_else(|| column.head(name), str::to_owned);
        Ok((column, head))
    };
    list.split(',').filter(|text| !text.is_empty()).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(options: &str) -> Option<String> {
        let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        let columns = columns(&options).ok()?;
        Some(columns.into_iter().map(|(_, head)| head).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_choose_columns() {
        for (options, expected) in [
            ("", "UID PID PPID C STIME TTY TIME CMD"),
            ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
            ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("-o pid,comm=NAME", "PID NAME"),
            ("-eo pid,args -o user", "PID COMMAND USER"),
            ("axo pid,cmd", "PID CMD"),
        ] {
            assert_eq!(heads(options).as_deref(), Some(expected), "{options}");
        }
        for wrong in ["-Z", "-o", "-o nosuch", "web"] {
            assert_eq!(heads(wrong), None, "{wrong}");
        }
    }
}
