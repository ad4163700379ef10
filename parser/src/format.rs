//! Canonical layout of a Dockerfile.
//!
//! Keywords are upper case, words are one blank apart, continued lines are indented by four blanks and keep their depth
//! below that, blank lines come one at a time, and a stage begins after one. Comments, heredoc bodies, quoted text, and
//! texts in which blanks are part of the value (`ENV NAME value`, WORKDIR, the shell form of CMD) stay as they are. The
//! meaning of a file never changes: only in a RUN for a POSIX shell, which ignores them, may blanks between words
//! differ. Formatting is idempotent.

mod layout;
mod quotes;

use crate::Parse;
use crate::ast::{Dockerfile, Instruction, Kind, Onbuild};
use crate::lines::BYTE_ORDER_MARK;
use crate::source::Source;

/// Text of the file in canonical layout. Instructions that cannot be parsed stay as they are.
pub fn format(parse: &Parse, source: &Source) -> String {
    let mut out = Output::default();
    let mut after_stage = false;
    let is_posix = has_posix_shells(&parse.file);
    for instruction in &parse.file.instructions {
        let is_stage = matches!(instruction.kind, Kind::From(_));
        let lead = source.slice(instruction.lead);
        // The text after the last line end is the indentation of the instruction.
        let lines = lead.rfind('\n').map_or("", |end| &lead[..=end]);
        out.trivia(lines, is_stage && after_stage);
        after_stage |= is_stage;
        out.text.push_str(&instruction_text(parse, source, instruction, is_posix));
        out.text.push('\n');
    }
    out.trivia(source.slice(parse.file.tail), false);
    let mut text = out.finish();
    if source.text().strip_prefix(BYTE_ORDER_MARK).is_some_and(|text| text.starts_with("#!")) {
        // A comment after a byte order mark is an ordinary one; without the mark, directives may follow it.
        text.insert(0, BYTE_ORDER_MARK);
    }
    text
}

/// False when a RUN of the file may be for a shell in which the number of blanks between words matters.
fn has_posix_shells(file: &Dockerfile) -> bool {
    let is_posix = |kind: &Kind| match kind {
        Kind::Shell(words) => words.iter().any(|word| is_posix_shell(word.as_str())),
        _ => true,
    };
    let with_triggers = |instruction: &Instruction| match &instruction.kind {
        Kind::Onbuild(Onbuild { instruction, .. }) => is_posix(instruction),
        kind => is_posix(kind),
    };
    // Files for Windows use this escape character.
    file.directives.escape != '`' && file.instructions.iter().all(with_triggers)
}

fn is_posix_shell(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    matches!(name, "sh" | "ash" | "bash" | "dash" | "ksh" | "mksh" | "zsh")
}

fn instruction_text(parse: &Parse, source: &Source, instruction: &Instruction, is_posix: bool) -> String {
    let whole = source.slice(instruction.span);
    let bodies = instruction.heredocs.first().map(|heredoc| heredoc.body.start - instruction.span.start);
    let (header, bodies) = whole.split_at(bodies.map_or(whole.len(), |at| (at as usize).min(whole.len())));
    let has_cr = header.split('\n').next().is_some_and(|line| line.ends_with('\r'));
    let lines: Vec<&str> = header.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let header = lines.join("\n");
    let mut text = match instruction.kind {
        Kind::Invalid => header.trim_end_matches('\n').to_owned(),
        _ => {
            let verbatim = layout::Verbatim { escape: parse.file.directives.escape, is_posix };
            layout::layout(header.trim_end_matches('\n'), instruction, verbatim)
        }
    };
    if !instruction.heredocs.is_empty() {
        text.push('\n');
        // CR LF is dropped as in the parsed instruction.
        text.push_str(&if has_cr { bodies.replace("\r\n", "\n") } else { bodies.to_owned() });
    }
    text
}

#[derive(Default)]
struct Output {
    text: String,
}

impl Output {
    /// Appends comments and blank lines between instructions.
    fn trivia(&mut self, text: &str, begins_stage: bool) {
        let text = text.trim_start_matches(BYTE_ORDER_MARK);
        // The text begins with the line end of the previous instruction.
        let text = match self.text.is_empty() {
            true => text,
            false => text.trim_start_matches('\r').strip_prefix('\n').unwrap_or(text),
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let attached = lines.iter().rev().take_while(|line| line.starts_with('#')).count();
        for (index, line) in lines.iter().enumerate() {
            if begins_stage && index == lines.len() - attached {
                self.blank_line();
            }
            if line.is_empty() {
                self.blank_line_of(&lines);
            } else {
                self.text.push_str(&comment(line));
                self.text.push('\n');
            }
        }
        if begins_stage && attached == 0 {
            self.blank_line();
        }
    }

    fn blank_line_of(&mut self, lines: &[&str]) {
        // A blank line at the head keeps the comments below it from becoming directives.
        if !self.text.is_empty() || lines.iter().any(|line| line.starts_with('#') && line.contains('=')) {
            self.blank_line();
        }
    }

    fn blank_line(&mut self) {
        if self.text != "\n" && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// Text without blank lines at the end.
    fn finish(mut self) -> String {
        while self.text.ends_with("\n\n") {
            self.text.pop();
        }
        if self.text.starts_with(BYTE_ORDER_MARK) {
            // The mark stood after blanks and belongs to a word: only a second one keeps that meaning.
            self.text.insert(0, BYTE_ORDER_MARK);
        }
        self.text
    }
}

/// Turns `#text` into `# text`; rulers, banners and `#!` stay.
fn comment(line: &str) -> String {
    let words = &line[1..];
    match words.starts_with(|c: char| c.is_alphanumeric()) {
        true => format!("# {words}"),
        false => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
