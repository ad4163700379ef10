//! `kiln completion`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::{help, ui};
use clap::Parser;
use clap_complete::Shell;
use std::ffi::OsString;

/// Print a script that completes commands, flags and files in a shell.
#[derive(Debug, Parser)]
struct Completion {
    /// Print the script for this shell: bash, zsh or fish
    #[arg(value_name = "SHELL")]
    shell: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Completion as clap::CommandFactory>::command()
}

/// Prints the script.
pub fn run(_: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let completion: Completion = arguments::parse("completion", arguments)?;
    let shell = match completion.shell.as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        other => {
            return Err(CliError::failed(format!("there are no completions for {other:?}"))
                .hint("one of bash, zsh, fish"));
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut help::program(), "kiln", &mut script);
    ui::data(&String::from_utf8_lossy(&script));
    Ok(0)
}
