//! `kiln completion`.

mod names;

pub use names::{NAMES, print};

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::{help, ui};
use clap::Parser;
use clap_complete::Shell;
use std::ffi::OsString;

/// Print a script that completes commands, flags, files, and names of containers, images and volumes in a shell.
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
    ui::data(&with_names(shell, &String::from_utf8_lossy(&script)));
    Ok(0)
}

/// Adds the names of containers and images, which this program prints, to a script of commands and flags.
fn with_names(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => format!("{}{BASH}", script.replace("complete -F _kiln ", "complete -F _kiln_named ")),
        Shell::Zsh => {
            // The function of the file's name is what zsh calls.
            let (head, body) = script.split_once("\n_kiln() {\n").unwrap_or((script, ""));
            format!("{head}\n{ZSH}\n_kiln_words() {{\n{body}")
        }
        _ => format!("{script}{FISH}"),
    }
}

/// Bash splits words at colons, so the line is split here, and the part before the last colon is left out of the answers.
const BASH: &str = r#"
_kiln_named() {
    _kiln "$@"
    local line="${COMP_LINE:0:COMP_POINT}" word head
    local -a typed names
    read -ra typed <<< "$line"
    word="${line##*[[:space:]]}"
    [[ -n "$word" ]] || typed+=("")
    mapfile -t names < <("${typed[0]}" completion-names "${typed[@]:1}" 2>/dev/null)
    (( ${#names[@]} )) || return 0
    COMPREPLY=("${names[@]}")
    if [[ "$word" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        head="${word%"${word##*:}"}"
        COMPREPLY=("${COMPREPLY[@]#"$head"}")
    fi
}
"#;

const ZSH: &str = r#"_kiln() {
    local -a names
    names=("${(@f)$(${words[1]} completion-names "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    names=(${names:#})
    if (( ${#names} )); then
        compadd -a names
    else
        _kiln_words "$@"
    fi
}
"#;

const FISH: &str = r#"
function __fish_kiln_names
    set -l typed (commandline -opc) (commandline -ct)
    $typed[1] completion-names $typed[2..-1] 2>/dev/null
end
complete -c kiln -a "(__fish_kiln_names)"
"#;
