//! Lines at the end of a terminal that are redrawn while a command is running.
//!
//! All writes to standard error pass through here: while there are such lines, other text is printed above them.

use crate::visible::{Colors, visible};
use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

/// Lines that are drawn at the end of the terminal.
#[derive(Default)]
pub(super) struct Block {
    lines: Vec<String>,
}

impl Block {
    pub(super) const fn new() -> Block {
        Block { lines: Vec::new() }
    }

    /// Returns the text that replaces the lines by others; empty when they are the same.
    pub(super) fn redraw(&mut self, lines: Vec<String>, columns: usize) -> String {
        if lines == self.lines {
            return String::new();
        }
        let mut out = self.erase(columns);
        self.lines = lines;
        self.draw(&mut out);
        out
    }

    /// Returns the text that prints `text` above the lines.
    pub(super) fn above(&self, text: &str, columns: usize) -> String {
        if self.lines.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        let mut out = self.erase(columns);
        out.push_str(text);
        if !text.ends_with('\n') {
            out.push('\n');
        }
        self.draw(&mut out);
        out
    }

    /// Returns the sequence that moves to the first line and clears from there. Counts wrapped lines, since the terminal may
    /// have become narrower.
    fn erase(&self, columns: usize) -> String {
        match self.lines.iter().map(|line| rows(line, columns)).sum::<usize>() {
            0 => String::new(),
            up => format!("\r\x1b[{up}A\x1b[J"),
        }
    }

    fn draw(&self, out: &mut String) {
        for line in &self.lines {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{line}");
        }
    }
}

/// Number of rows that a line occupies.
fn rows(line: &str, columns: usize) -> usize {
    visible(line, Colors::Drop).width().div_ceil(columns.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_replace_each_other() {
        let mut block = Block::new();
        assert_eq!(block.redraw(lines("a\nb"), 80), "a\nb\n");
        assert_eq!(block.redraw(lines("a\nb"), 80), "");
        assert_eq!(block.redraw(lines("c"), 80), "\r\x1b[2A\x1b[Jc\n");
        assert_eq!(block.redraw(Vec::new(), 80), "\r\x1b[1A\x1b[J");
        assert_eq!(block.redraw(lines("d"), 80), "d\n");
    }

    #[test]
    fn other_text_is_put_above() {
        let mut block = Block::new();
        assert_eq!(block.above("note\n", 80), "note\n");
        block.redraw(lines("a\nb"), 80);
        assert_eq!(block.above("note", 80), "\r\x1b[2A\x1b[Jnote\na\nb\n");
        assert_eq!(block.above("", 80), "");
    }

    #[test]
    fn lines_that_the_terminal_has_wrapped_are_erased_whole() {
        let mut block = Block::new();
        block.redraw(vec!["\x1b[31m0123456789\x1b[0m".to_owned(), "x".to_owned()], 10);
        assert_eq!(block.redraw(lines("y"), 4), "\r\x1b[4A\x1b[Jy\n");
    }
}
