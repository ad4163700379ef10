//! The commands of a shell script, as precise as lints need them: no quoting, no expansion.

use crate::ast::{CommandLine, Instruction, Kind};

/// Script that a RUN passes to the shell; `None` for other instructions and the JSON form.
pub(super) fn script(instruction: &Instruction) -> Option<&str> {
    let Kind::Run(run) = &instruction.kind else { return None };
    let CommandLine::Shell(text) = &run.command else { return None };
    if run.is_heredoc_alone() {
        return instruction.heredocs.first().map(|heredoc| heredoc.content.as_str());
    }
    Some(text.as_str())
}

/// Arguments of each command; variables set for one command and `sudo` are left out.
pub(super) fn commands(script: &str) -> impl Iterator<Item = Vec<&str>> {
    let parts = script.split(['\n', ';', '|', '&']);
    parts.filter_map(|part| {
        let words = part.split_whitespace().map(|word| word.trim_matches(['(', ')', '{', '}']));
        let words = words.filter(|word| !word.is_empty() && *word != "\\");
        let words: Vec<&str> = words.skip_while(|word| is_prefix(word)).collect();
        (!words.is_empty() && !words[0].starts_with('#')).then_some(words)
    })
}

fn is_prefix(word: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word == "sudo" || word.split_once('=').is_some_and(|(name, _)| is_name(name))
}

#[cfg(test)]
mod tests {
    use super::commands;

    #[test]
    fn commands_are_split_into_arguments() {
        let found: Vec<Vec<&str>> = commands("A=1 b c && (sudo d -e; f)\n# g\n").collect();
        assert_eq!(found, [vec!["b", "c"], vec!["d", "-e"], vec!["f"]]);
    }
}
