//! Canonical layout of a Dockerfile.
//!
//! Keywords are upper case, words are one blank apart, continued lines are indented by four blanks and keep their
//! depth below that, blank lines come one at a time, and a stage begins after one. Comments, heredoc bodies and all
//! that stands in quotes stay as they are. What a file means never changes, except for blanks between words of a
//! shell command; formatting twice is formatting once.

mod layout;

use crate::Parse;
use crate::ast::{Instruction, Kind};
use crate::lines::BYTE_ORDER_MARK;
use crate::source::Source;

/// The file in canonical layout. What cannot be read stays as it is.
pub fn format(parse: &Parse, source: &Source) -> String {
    let mut out = Output::default();
    let mut after_stage = false;
    for instruction in &parse.file.instructions {
        let is_stage = matches!(instruction.kind, Kind::From(_));
        let lead = source.slice(instruction.lead);
        // What follows the last line end is the indentation of the instruction.
        let lines = lead.rfind('\n').map_or("", |end| &lead[..=end]);
        out.trivia(lines, is_stage && after_stage);
        after_stage |= is_stage;
        out.text.push_str(&instruction_text(parse, source, instruction));
        out.text.push('\n');
    }
    out.trivia(source.slice(parse.file.tail), false);
    out.finish()
}

fn instruction_text(parse: &Parse, source: &Source, instruction: &Instruction) -> String {
    let whole = source.slice(instruction.span);
    let bodies = instruction.heredocs.first().map(|heredoc| heredoc.body.start - instruction.span.start);
    let (header, bodies) = whole.split_at(bodies.map_or(whole.len(), |at| (at as usize).min(whole.len())));
    let has_cr = header.split('\n').next().is_some_and(|line| line.ends_with('\r'));
    let lines: Vec<&str> = header.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let header = lines.join("\n");
    let mut text = match instruction.kind {
        Kind::Invalid => header.trim_end_matches('\n').to_owned(),
        _ => layout::layout(header.trim_end_matches('\n'), instruction, parse.file.directives.escape),
    };
    if !instruction.heredocs.is_empty() {
        text.push('\n');
        // As the instruction itself reads them.
        text.push_str(&if has_cr { bodies.replace("\r\n", "\n") } else { bodies.to_owned() });
    }
    text
}

#[derive(Default)]
struct Output {
    text: String,
}

impl Output {
    /// Comments and blank lines between instructions.
    fn trivia(&mut self, text: &str, begins_stage: bool) {
        let text = text.trim_start_matches(BYTE_ORDER_MARK);
        // The end of the line that an instruction stands in.
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
        // A blank line at the head keeps the comments below it from being directives.
        if !self.text.is_empty() || lines.iter().any(|line| line.starts_with('#') && line.contains('=')) {
            self.blank_line();
        }
    }

    fn blank_line(&mut self) {
        if self.text != "\n" && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// Without blank lines at the end.
    fn finish(mut self) -> String {
        while self.text.ends_with("\n\n") {
            self.text.pop();
        }
        if self.text.starts_with(BYTE_ORDER_MARK) {
            // It stood behind blanks and belongs to a word: only a second one says so.
            self.text.insert(0, BYTE_ORDER_MARK);
        }
        self.text
    }
}

/// `#words` becomes `# words`; rulers, banners and `#!` stay.
fn comment(line: &str) -> String {
    let words = &line[1..];
    match words.starts_with(|c: char| c.is_alphanumeric()) {
        true => format!("# {words}"),
        false => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
