//! Diagnostics as data, and their rendering for terminals and logs.

use crate::ast::Dockerfile;
use crate::source::Source;
use crate::span::Span;
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The build continues in spite of it.
    Warning,
    /// The build cannot start.
    Error,
}

/// One diagnostic: message, span and hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable name of the kind of diagnostic, such as `unknown-instruction`.
    pub code: &'static str,
    /// Whether the diagnostic stops a build.
    pub severity: Severity,
    /// One sentence, lower case, without a full stop.
    pub message: String,
    /// Span of the exact word.
    pub span: Span,
    /// Further spans that explain it, such as the start of a heredoc, each with a label.
    pub related: Vec<(Span, String)>,
    /// Advice for the author, one sentence each; may be empty.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// First and last line as the reference builder reports them, from 1: those of the whole instruction, except for
    /// blank lines within one.
    pub fn lines(&self, file: &Dockerfile, source: &Source) -> (usize, usize) {
        let at = self.span.start;
        let index = file.instructions.partition_point(|instruction| instruction.span.start <= at);
        let instruction = index.checked_sub(1).and_then(|index| file.instructions.get(index));
        let span = match instruction {
            Some(it) if self.code != "NoEmptyContinuation" && it.span.contains(at as usize) => it.span,
            _ => self.span,
        };
        let line = |offset: u32| source.position(offset as usize).line;
        (line(span.start), line(span.end.saturating_sub(1).max(span.start)))
    }

    /// Error at `span` without hints.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            severity: Severity::Error,
            message: message.into(),
            span,
            related: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// Warning at `span` without hints.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, span, message) }
    }

    /// Adds a hint to the diagnostic.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hints.push(hint.into());
        self
    }

    /// Adds a hint if there is one.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<String>) -> Diagnostic {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Adds a related span with its label.
    #[must_use]
    pub fn related(mut self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.related.push((span, message.into()));
        self
    }

    /// `file:line:column: severity: message`, for logs and for tests.
    pub fn one_line(&self, source: &Source) -> String {
        let at = source.position(self.span.start as usize);
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        format!("{}:{}:{}: {severity}[{}]: {}", source.name(), at.line, at.column, self.code, self.message)
    }
}

/// Whether rendered text contains terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// With escape sequences for a terminal.
    Always,
    /// Plain text without escape sequences.
    Never,
}

/// Renders a diagnostic with its source line and a caret under the exact word.
///
/// The text ends without a newline.
pub fn render(source: &Source, diagnostic: &Diagnostic, color: Color) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let snippet = snippet(source, diagnostic.span, &diagnostic.related);
    let hints = diagnostic.hints.iter().map(|hint| Level::HELP.with_name("hint").message(hint.as_str()));
    let group = Group::with_title(title).element(snippet).elements(hints);
    renderer(color).render(&[group])
}

/// Renders only the position: `file:line:column`, the line, and a caret with `label` beside it.
///
/// For failures whose message is printed elsewhere, such as a step that exits non-zero.
pub fn render_position(source: &Source, span: Span, label: &str, color: Color) -> String {
    let annotation = AnnotationKind::Primary.span(first_line(source, span).range()).label(label);
    let snippet = Snippet::source(source.text()).path(source.name()).fold(true).annotation(annotation);
    renderer(color).render(&[Group::with_level(Level::ERROR).element(snippet)])
}

fn snippet<'a>(
    source: &'a Source,
    span: Span,
    related: &'a [(Span, String)],
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let primary = AnnotationKind::Primary.span(first_line(source, span).range());
    let context = related.iter().map(|(span, label)| {
        AnnotationKind::Context.span(first_line(source, *span).range()).label(label.as_str())
    });
    Snippet::source(source.text()).path(source.name()).fold(true).annotation(primary).annotations(context)
}

/// First line of `span`: a caret run over several lines would hide the first word.
fn first_line(source: &Source, span: Span) -> Span {
    let text = source.slice(span);
    let length = text.find(['\n', '\r']).unwrap_or(text.len());
    Span::new(span.start as usize, span.start as usize + length)
}

fn renderer(color: Color) -> Renderer {
    let renderer = match color {
        Color::Always => Renderer::styled(),
        Color::Never => Renderer::plain(),
    };
    renderer.decor_style(DecorStyle::Ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendering_shows_line_caret_and_hint() {
        let source = Source::new("Dockerfile", "FROM a\nRUNN true\n");
        let diagnostic =
            Diagnostic::error("unknown-instruction", Span::new(7, 11), "unknown instruction: RUNN")
                .hint("did you mean RUN?");
        let expected = "\
error[unknown-instruction]: unknown instruction: RUNN
 --> Dockerfile:2:1
  |
2 | RUNN true
  | ^^^^
  |
  = hint: did you mean RUN?";
        assert_eq!(render(&source, &diagnostic, Color::Never), expected);
        assert_eq!(
            diagnostic.one_line(&source),
            "Dockerfile:2:1: error[unknown-instruction]: unknown instruction: RUNN"
        );
    }

    #[test]
    fn a_position_alone_shows_its_label() {
        let source = Source::new("Dockerfile", "FROM a\nRUN exit 3\n");
        let text = render_position(&source, Span::new(7, 17), "exit code 3", Color::Never);
        assert_eq!(text, " --> Dockerfile:2:1\n  |\n2 | RUN exit 3\n  | ^^^^^^^^^^ exit code 3");
    }
}
