//! `kiln man`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::{help, ui};
use clap::Parser;
use clap_mangen::Man;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Print manual pages, in the format that man(1) reads.
#[derive(Debug, Parser)]
struct Manual {
    /// Write the pages of all commands to a directory
    #[arg(short, long, value_name = "DIR", conflicts_with = "command")]
    output: Option<PathBuf>,
    /// Print the page of this command, such as `build` or `image prune` [default: kiln itself]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Manual as clap::CommandFactory>::command()
}

/// Prints one page, or writes the pages of all commands to a directory.
pub fn run(_: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let manual: Manual = arguments::parse("man", arguments)?;
    match &manual.output {
        Some(directory) => write_all(directory, &help::program(), "kiln")?,
        None => {
            let mut found = &help::program();
            for word in &manual.command {
                let next = found.find_subcommand(word);
                found = next.ok_or_else(|| {
                    CliError::failed(format!("there is no command {:?}", manual.command.join(" ")))
                        .hint("run `kiln --help` for the list of commands")
                })?;
            }
            let title = std::iter::once("kiln").chain(manual.command.iter().map(String::as_str));
            ui::data(&page(found, &title.collect::<Vec<_>>().join("-"))?);
        }
    }
    Ok(0)
}

/// The page of a command under its full name, such as `kiln-image-prune`.
fn page(command: &clap::Command, title: &str) -> Result<String, CliError> {
    let command = command.clone().bin_name(title.replacen('-', " ", 2));
    let mut page = Vec::new();
    let failed = |error| CliError::failed(format!("cannot make the manual page of {title}: {error}"));
    Man::new(command).title(title).render(&mut page).map_err(failed)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn write_all(directory: &Path, command: &clap::Command, title: &str) -> Result<(), CliError> {
    let path = directory.join(format!("{title}.1"));
    let failed = |error| CliError::failed(format!("cannot write `{}`: {error}", path.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    std::fs::write(&path, page(command, title)?).map_err(failed)?;
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        write_all(directory, inner, &format!("{title}-{}", inner.get_name()))?;
    }
    Ok(())
}
