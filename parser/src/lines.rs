//! From the file to logical lines: directives, comments, continuations, heredoc bodies.
//!
//! Not grammar: this layer finds where a logical line begins and ends, and does not interpret it. Every byte of the
//! file belongs to exactly one [`Piece`] or to a heredoc body returned by [`Lines::heredoc_body`].

use crate::ast::Directives;
use crate::diagnostic::Diagnostic;
use crate::mount::go_bool;
use crate::source::Source;
use crate::span::{Span, Spanned};
use crate::text::{Text, TextBuilder};

/// The longest physical line that the reference builder reads, in bytes without the line feed.
const MAX_LINE: usize = 65_535;

pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A part of the file between heredoc bodies.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A line of white space only.
    Blank,
    /// `# text`, trimmed; the span covers the comment from `#` on.
    Comment(Spanned<String>),
    /// A parser directive, already stored in [`Directives`].
    Directive,
    /// A logical line with an instruction.
    Instruction(Logical),
}

/// A logical line, joined from physical lines.
#[derive(Debug)]
pub(crate) struct Logical {
    /// Joined text of the physical lines.
    pub(crate) text: Text,
    /// From the first character to the end of the last physical line, its line end not included.
    pub(crate) span: Span,
    /// Blank lines inside the continuation.
    pub(crate) empty_continuations: Vec<Span>,
    /// Whether the first physical line ends in CR LF.
    pub(crate) crlf: bool,
}

/// A heredoc's body and whether its terminator was found.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) span: Span,
    pub(crate) content: String,
    pub(crate) end: usize,
    pub(crate) terminated: bool,
}

/// Reader of the pieces of a file.
pub(crate) struct Lines<'a> {
    whole: Text,
    text: &'a str,
    at: usize,
    directives: Directives,
    in_directives: bool,
    after_shebang: bool,
    /// Whether a directive with blanks before it has been read.
    after_indented: bool,
    escape_set: bool,
    diagnostics: Vec<Diagnostic>,
}

/// A physical line: `start..end` is its content, `next` the start of the following line.
#[derive(Clone, Copy)]
struct Physical<'a> {
    content: &'a str,
    start: usize,
    next: usize,
}

impl Physical<'_> {
    fn end(&self) -> usize {
        self.start + self.content.len()
    }

    fn is_comment(&self) -> bool {
        self.content.trim_start().starts_with('#')
    }

    fn is_blank(&self) -> bool {
        self.content.trim_start().is_empty()
    }
}

impl<'a> Lines<'a> {
    pub(crate) fn new(source: &'a Source) -> Lines<'a> {
        let text = source.text();
        let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        let directives = Directives { syntax: None, escape: '\\', check: None };
        Lines {
            whole: source.whole(),
            text,
            at,
            directives,
            in_directives: true,
            after_shebang: false,
            after_indented: false,
            escape_set: false,
            diagnostics: Vec::new(),
        }
    }

    /// Directives read so far.
    pub(crate) fn directives(&self) -> &Directives {
        &self.directives
    }

    /// Ends the reading; returns directives and diagnostics.
    pub(crate) fn finish(self) -> (Directives, Vec<Diagnostic>) {
        (self.directives, self.diagnostics)
    }

    /// Next piece, or `None` at the end of the file.
    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        let first = self.physical()?;
        if first.is_blank() {
            self.in_directives = false;
            return Some(Piece::Blank);
        }
        if first.is_comment() {
            return Some(self.comment(first));
        }
        self.in_directives = false;
        Some(Piece::Instruction(self.logical(first)))
    }

    fn physical(&mut self) -> Option<Physical<'a>> {
        if self.at >= self.text.len() {
            return None;
        }
        let rest = &self.text[self.at..];
        let (line, next) = match rest.find('\n') {
            Some(length) => (&rest[..length], self.at + length + 1),
            None => (rest, self.text.len()),
        };
        let line = Physical { content: line.trim_end_matches('\r'), start: self.at, next };
        if self.text[line.start..next].trim_end_matches('\n').len() > MAX_LINE {
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            self.diagnostics.push(Diagnostic::error(
                "line-too-long",
                Span::new(line.start, line.end()),
                message,
            ));
        }
        self.at = next;
        Some(line)
    }

    fn comment(&mut self, line: Physical<'a>) -> Piece {
        let hash = line.start + line.content.find('#').unwrap_or(0);
        let text = &line.content[hash - line.start + 1..];
        if self.in_directives {
            if self.directive(text, hash) {
                return Piece::Directive;
            }
            // After a `#!` line, syntax and check may follow, but not escape.
            self.after_shebang = line.start == 0 && text.starts_with('!');
            self.in_directives = self.after_shebang;
        }
        Piece::Comment(Spanned::new(text.trim().to_owned(), Span::new(hash, line.end())))
    }

    /// Parses `key = value` after a `#`; false when it is an ordinary comment.
    fn directive(&mut self, text: &str, hash: usize) -> bool {
        let Some((key, value)) = text.split_once('=') else { return false };
        let name = key.trim().to_ascii_lowercase();
        let trimmed = value.trim();
        if trimmed.is_empty() {
            return false;
        }
        let start = hash + 1 + key.len() + 1 + (value.len() - value.trim_start().len());
        let span = Span::new(start, start + trimmed.len());
        let value = Spanned::new(trimmed.to_owned(), span);
        // The frontend and the lint options are read only from lines that begin with `#`, and only up to the first
        // other line.
        self.after_indented |= !self.text[..hash].ends_with(['\n', BYTE_ORDER_MARK]) && hash > 0;
        match name.as_str() {
            "syntax" | "check" if self.after_indented => {}
            "syntax" => self.set_once("syntax", value, |directives| &mut directives.syntax),
            "check" => {
                // The value ends at the first blank.
                let length = value.value.find(' ').unwrap_or(value.value.len());
                let (text, start) = (&value.value[..length], value.span.start as usize);
                let value = Spanned::new(text.to_owned(), Span::new(start, start + length));
                self.check_options(&value);
                self.set_once("check", value, |directives| &mut directives.check);
            }
            "escape" if !self.after_shebang => self.set_escape(value),
            _ => return false,
        }
        true
    }

    fn set_once(
        &mut self,
        name: &str,
        value: Spanned<String>,
        slot: impl FnOnce(&mut Directives) -> &mut Option<Spanned<String>>,
    ) {
        let slot = slot(&mut self.directives);
        match slot {
            None => *slot = Some(value),
            Some(first) => {
                let first = first.span;
                self.repeated(name, value.span, Some(first));
            }
        }
    }

    /// Parses `skip=A,B;error=true;experimental=C` (moby/buildkit `frontend/dockerfile/linter/linter.go`).
    fn check_options(&mut self, value: &Spanned<String>) {
        let options = value.value.split(';').map(|option| (option, option.split_once('=')));
        let problem = options.into_iter().find_map(|(option, pair)| match pair {
            Some(("skip" | "experimental", _)) => None,
            Some(("error", word)) if go_bool(word).is_some() => None,
            Some(("error", word)) => Some((
                format!("failed to parse check option {option:?}: {word:?} is neither true nor false"),
                option,
            )),
            _ => Some((format!("invalid check option {option:?}"), option)),
        });
        if let Some((problem, option)) = problem {
            let at = value.span.start as usize + value.value.find(option).unwrap_or(0);
            let span = Span::new(at, at + option.len());
            let message = format!("failed to parse check options: {problem}");
            self.diagnostics.push(
                Diagnostic::error("invalid-check-option", span, message)
                    .hint("write `# check=skip=RULE,RULE;error=true`, without blanks"),
            );
        }
    }

    fn set_escape(&mut self, value: Spanned<String>) {
        if self.escape_set {
            self.repeated("escape", value.span, None);
            return;
        }
        self.escape_set = true;
        match value.value.as_str() {
            "\\" => self.directives.escape = '\\',
            "`" => self.directives.escape = '`',
            other => {
                let message = format!("invalid escape token '{other}' does not match ` or \\");
                self.diagnostics.push(Diagnostic::error("invalid-escape", value.span, message));
            }
        }
    }

    fn repeated(&mut self, name: &str, span: Span, first: Option<Span>) {
        let message = format!("only one {name} parser directive can be used");
        let mut diagnostic = Diagnostic::error("repeated-directive", span, message);
        if let Some(first) = first {
            diagnostic = diagnostic.related(first, "first set here");
        }
        self.diagnostics.push(diagnostic);
    }

    fn logical(&mut self, first: Physical<'a>) -> Logical {
        let escape = self.directives.escape;
        let indent = first.content.len() - first.content.trim_start().len();
        let start = first.start + indent;
        let crlf = self.text[first.end()..first.next].starts_with('\r');
        let mut empty_continuations = Vec::new();
        let mut end = first.end();
        let (piece, mut continues) = strip_continuation(&first.content[indent..], escape);
        if !continues {
            let text = self.whole.slice(start..start + piece.len());
            return Logical { text, span: Span::new(start, end), empty_continuations, crlf };
        }
        let mut builder = TextBuilder::new();
        builder.push(piece, start);
        while continues {
            let Some(line) = self.physical() else { break };
            end = line.end();
            if line.is_comment() {
                continue;
            }
            if line.is_blank() {
                empty_continuations.push(Span::new(line.start, line.end()));
                continue;
            }
            let piece;
            (piece, continues) = strip_continuation(line.content, escape);
            builder.push(piece, line.start);
        }
        Logical { text: builder.finish(start), span: Span::new(start, end), empty_continuations, crlf }
    }

    /// Reads the lines up to and including `terminator`.
    ///
    /// `drop_cr` is set for files with CR LF line ends: the body then loses its CRs. (The reference keeps them, which
    /// breaks every script in such a file: moby/moby#44474.)
    pub(crate) fn heredoc_body(&mut self, terminator: &str, strip_tabs: bool, drop_cr: bool) -> Body {
        let start = self.at;
        let mut content = String::new();
        while let Some(line) = self.physical() {
            let bare = if strip_tabs { line.content.trim_start_matches('\t') } else { line.content };
            if bare == terminator {
                let span = Span::new(start, line.start);
                return Body { span, content, end: line.end(), terminated: true };
            }
            let raw = &self.text[line.start..line.next];
            match raw.strip_suffix("\r\n") {
                Some(bare) if drop_cr => {
                    content.push_str(bare);
                    content.push('\n');
                }
                _ => content.push_str(raw),
            }
        }
        Body { span: Span::new(start, self.at), content, end: self.at, terminated: false }
    }
}

/// Splits off a trailing escape character that continues the line.
///
/// Blanks may follow it; it does not count when another escape character precedes it.
pub(crate) fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logical_lines(text: &str) -> Vec<String> {
        let source = Source::new("Dockerfile", text);
        let mut lines = Lines::new(&source);
        let mut found = Vec::new();
        while let Some(piece) = lines.next_piece() {
            if let Piece::Instruction(line) = piece {
                found.push(line.text.into_string());
            }
        }
        found
    }

    #[test]
    fn continuations_join_without_a_separator() {
        assert_eq!(logical_lines("RUN a \\\n  b\\\nc\n"), ["RUN a   bc"]);
        assert_eq!(logical_lines("RUN a \\ \t\n# comment\n\n b"), ["RUN a  b"]);
        assert_eq!(logical_lines("RUN a \\\\\nb"), ["RUN a \\\\", "b"]);
        assert_eq!(logical_lines("RUN a \\"), ["RUN a "]);
        assert_eq!(logical_lines("RUN a # no comment\r\n"), ["RUN a # no comment"]);
    }

    #[test]
    fn the_escape_directive_changes_continuation() {
        assert_eq!(logical_lines("# escape=`\nRUN a `\nb \\\nc"), ["RUN a b \\", "c"]);
        assert_eq!(logical_lines("\n# escape=`\nRUN a `\nb"), ["RUN a `", "b"]);
    }

    #[test]
    fn directive_errors_are_reported() {
        let source = Source::new("Dockerfile", "# escape=x\n# escape=`\n# syntax=a\n# syntax=b\n");
        let mut lines = Lines::new(&source);
        while lines.next_piece().is_some() {}
        let (directives, diagnostics) = lines.finish();
        let messages: Vec<_> = diagnostics.iter().map(|d| d.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "invalid escape token 'x' does not match ` or \\",
                "only one escape parser directive can be used",
                "only one syntax parser directive can be used",
            ]
        );
        assert_eq!(directives.syntax.map(|syntax| syntax.value), Some("a".into()));
    }

    #[test]
    fn heredoc_bodies_end_at_their_terminator() {
        let source = Source::new("Dockerfile", "RUN <<EOF\r\na\r\n\tEOF\r\nEOF\r\nCMD x\r\n");
        let mut lines = Lines::new(&source);
        assert!(matches!(lines.next_piece(), Some(Piece::Instruction(Logical { crlf: true, .. }))));
        let body = lines.heredoc_body("EOF", false, true);
        assert_eq!((body.content.as_str(), body.terminated), ("a\n\tEOF\n", true));
        assert!(matches!(lines.next_piece(), Some(Piece::Instruction(_))));
        assert!(!lines.heredoc_body("EOF", false, true).terminated);
    }

    #[test]
    fn long_lines_are_refused() {
        let text = format!("RUN {}\n", "x".repeat(MAX_LINE));
        let source = Source::new("Dockerfile", text);
        let mut lines = Lines::new(&source);
        while lines.next_piece().is_some() {}
        assert_eq!(lines.finish().1[0].code, "line-too-long");
    }
}
