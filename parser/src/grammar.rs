//! Grammar: logical lines to instructions, one file for each family of instructions.
//!
//! The grammar is tolerant: a violated rule becomes a diagnostic and the instruction [`Kind::Invalid`], and parsing
//! goes on after it. Messages follow the reference builder where it has one, so that a search for them finds answers.

mod command;
mod copy;
mod flags;
mod from;
pub(crate) mod heredoc;
mod json;
mod key_value;
mod onbuild;
mod run;
mod simple;
pub(crate) mod tokens;

use crate::ast::{Dockerfile, Heredoc, Instruction, KEYWORDS, Kind};
use crate::diagnostic::{Diagnostic, Severity};
use crate::lines::{Lines, Logical, Piece};
use crate::source::Source;
use crate::span::{Span, Spanned};
use crate::suggest;
use crate::text::Text;
use flags::{Flag, FlagSet, Takes};

/// Result of parsing: the tree, and all diagnostics in file order.
#[derive(Clone, Debug)]
pub struct Parse {
    /// Syntax tree; invalid instructions are [`Kind::Invalid`].
    pub file: Dockerfile,
    /// Errors and warnings, in file order.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parse {
    /// Diagnostics that stop a build.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Parses a Dockerfile. Never fails and never panics: any bytes result in a tree and diagnostics.
pub fn parse(source: &Source) -> Parse {
    let mut reader =
        Reader { lines: Lines::new(source), end: 0, comments: Vec::new(), diagnostics: Vec::new() };
    let mut instructions = Vec::new();
    while let Some(piece) = reader.lines.next_piece() {
        match piece {
            Piece::Blank | Piece::Directive => {}
            Piece::Comment(comment) if comment.value.is_empty() => reader.comments.clear(),
            Piece::Comment(comment) => reader.comments.push(comment),
            Piece::Instruction(logical) => instructions.push(reader.instruction(logical)),
        }
    }
    let tail = Span::new(reader.end, source.text().len());
    let (directives, line_diagnostics) = reader.lines.finish();
    let mut diagnostics = reader.diagnostics;
    diagnostics.extend(line_diagnostics);
    diagnostics.extend(source.first_invalid().map(invalid_utf8));
    let file = Dockerfile { directives, instructions, tail };
    check_file(source, &file, &mut diagnostics);
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    Parse { file, diagnostics }
}

/// Parses one ONBUILD trigger as stored in an image. `source` holds nothing else, and spans refer to it.
pub fn parse_trigger(source: &Source) -> Parse {
    let mut parse = parse(source);
    parse.diagnostics.retain(|diagnostic| !matches!(diagnostic.code, "no-stage" | "no-from"));
    parse
}

struct Reader<'a> {
    lines: Lines<'a>,
    /// Offset of the end of the last instruction.
    end: usize,
    comments: Vec<Spanned<String>>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn instruction(&mut self, logical: Logical) -> Instruction {
        let line = logical.text.trim();
        let head = Head::split(&line);
        for span in &logical.empty_continuations {
            self.diagnostics.push(
                Diagnostic::warning("empty-continuation", *span, "empty line inside a continued instruction")
                    .hint("remove the line, or put `#` on it: it will become an error"),
            );
        }
        let mut span = logical.span;
        let heredocs = self.heredocs(&line, &head, &logical, &mut span);
        let escape = self.lines.directives().escape;
        let mut context =
            Context { line: &line, escape, heredocs: &heredocs, diagnostics: &mut self.diagnostics };
        let kind = head.kind(&mut context).unwrap_or(Kind::Invalid);
        let keyword = line.slice(0..head.keyword.len());
        let comments = std::mem::take(&mut self.comments);
        let lead = Span::new(self.end, span.start as usize);
        self.end = span.end as usize;
        Instruction { lead, span, keyword, line, comments, heredocs, kind }
    }

    fn heredocs(&mut self, line: &Text, head: &Head<'_>, logical: &Logical, span: &mut Span) -> Vec<Heredoc> {
        if !head.takes_heredocs(line, self.lines.directives().escape) {
            return Vec::new();
        }
        let mut heredocs = Vec::new();
        for (marker, word) in heredoc::markers(line) {
            let body = self.lines.heredoc_body(&marker.name, marker.strip_tabs, logical.crlf);
            span.end = Span::at(body.end).end;
            if !body.terminated {
                self.diagnostics.push(unterminated(&marker, word));
            }
            heredocs.push(Heredoc {
                name: marker.name,
                word,
                expand: marker.expand,
                strip_tabs: marker.strip_tabs,
                descriptor: marker.descriptor,
                body: body.span,
                content: body.content,
            });
            if !body.terminated {
                break;
            }
        }
        heredocs
    }
}

fn unterminated(marker: &heredoc::Marker, word: Span) -> Diagnostic {
    let tabs = if marker.strip_tabs { ", tabs before it allowed" } else { "" };
    let hint = match marker.name.starts_with(|c: char| c.is_ascii_digit()) {
        true => "`<<` begins a heredoc in arithmetic, too: write the number, or put the script into a file"
            .to_owned(),
        false => format!("end it with a line that is exactly `{}`{tabs}", marker.name),
    };
    Diagnostic::error("unterminated-heredoc", word, "unterminated heredoc").hint(hint)
}

fn invalid_utf8(at: usize) -> Diagnostic {
    Diagnostic::warning("invalid-utf8", Span::new(at, at + 1), "the file is not valid UTF-8 from here on")
}

/// Checks the file as a whole.
fn check_file(source: &Source, file: &Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    // Errors about missing instructions point to the end of the last line.
    let text = source.text();
    let end = Span::at(text.strip_suffix('\n').unwrap_or(text).len());
    if source.text().is_empty() {
        diagnostics.push(Diagnostic::error("no-from", end, "the Dockerfile cannot be empty"));
    } else if file.instructions.is_empty() {
        diagnostics.push(Diagnostic::error("no-from", end, "file with no instructions"));
    }
    let mut stages = false;
    for instruction in &file.instructions {
        match instruction.kind {
            Kind::From(_) => stages = true,
            Kind::Invalid if instruction.keyword.as_str().eq_ignore_ascii_case("FROM") => stages = true,
            Kind::Arg(_) | Kind::Invalid => {}
            _ if !stages => {
                diagnostics.push(
                    Diagnostic::error(
                        "no-stage",
                        instruction.keyword.span(),
                        "no build stage in current context",
                    )
                    .hint("begin with FROM; only ARG may stand before it"),
                );
                return;
            }
            _ => {}
        }
    }
    if !stages && !file.instructions.is_empty() {
        diagnostics.push(Diagnostic::error("no-from", end, "dockerfile contains no stages to build"));
    }
}

/// A logical line split at its keyword.
struct Head<'a> {
    keyword: &'a str,
    rest: usize,
}

impl<'a> Head<'a> {
    fn split(line: &'a Text) -> Head<'a> {
        let text = line.as_str();
        // The keyword parser accepts every input.
        let (rest, keyword) = tokens::keyword(text).unwrap_or((text, ""));
        Head { keyword, rest: text.len() - rest.len() }
    }

    /// True when the instruction may have heredocs: ADD, COPY and RUN in shell form, also after ONBUILD.
    fn takes_heredocs(&self, line: &Text, escape: char) -> bool {
        if !line.as_str().contains("<<") {
            return false;
        }
        let (_, at) = flags::split(line, self.rest, escape);
        let args = line.slice(at..line.len());
        let is = |keyword: &str| self.keyword.eq_ignore_ascii_case(keyword);
        if is("ONBUILD") {
            let inner = Head::split(&args);
            return !inner.keyword.eq_ignore_ascii_case("ONBUILD") && inner.takes_heredocs(&args, escape);
        }
        (is("ADD") || is("COPY") || is("RUN")) && !matches!(json::form(&args), json::Form::Strings(_))
    }

    fn kind(&self, context: &mut Context<'_>) -> Option<Kind> {
        let (flags, at) = flags::split(context.line, self.rest, context.escape);
        // The line ends without trailing blanks, and its flags without the blanks after them.
        let line = context.line.as_str();
        let at = at + (line.len() - at - line[at..].trim_start().len());
        let args = context.line.slice(at..line.len());
        let mut rule = Rule { keyword: known(self.keyword).unwrap_or(self.keyword), flags, args, context };
        match rule.keyword {
            "ADD" => copy::add(rule),
            "ARG" => key_value::arg(rule),
            "CMD" => command::cmd(rule).map(Kind::Cmd),
            "COPY" => copy::copy(rule),
            "ENTRYPOINT" => command::cmd(rule).map(Kind::Entrypoint),
            "ENV" => key_value::pairs(rule).map(Kind::Env),
            "EXPOSE" => simple::expose(rule),
            "FROM" => from::from(rule),
            "HEALTHCHECK" => command::healthcheck(rule),
            "LABEL" => key_value::pairs(rule).map(Kind::Label),
            "MAINTAINER" => simple::one(rule).map(Kind::Maintainer),
            "ONBUILD" => onbuild::onbuild(rule),
            "RUN" => run::run(rule),
            "SHELL" => command::shell(rule),
            "STOPSIGNAL" => simple::stopsignal(rule),
            "USER" => simple::one(rule).map(Kind::User),
            "VOLUME" => simple::volume(rule),
            "WORKDIR" => simple::one(rule).map(Kind::Workdir),
            _ => {
                let span = rule.context.line.span_of(0..self.keyword.len());
                rule.report(unknown_instruction(self.keyword, span));
                None
            }
        }
    }
}

/// The keyword in upper case; `None` when it is unknown.
fn known(keyword: &str) -> Option<&'static str> {
    // The reference builder compares in lower case, which maps a few letters outside of ASCII to these.
    let is = |known: &&&str| match keyword.is_ascii() {
        true => known.eq_ignore_ascii_case(keyword),
        false => keyword.to_lowercase() == known.to_ascii_lowercase(),
    };
    KEYWORDS.iter().find(is).copied()
}

fn unknown_instruction(keyword: &str, span: Span) -> Diagnostic {
    let near = suggest::nearest(keyword, KEYWORDS);
    let suggestion = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    let hint = (suggestion.is_empty()).then(|| match keyword {
        "" => "the line holds only a continuation".to_owned(),
        _ => "if it belongs to the line before, end that line with `\\`".to_owned(),
    });
    Diagnostic::error("unknown-instruction", span, format!("unknown instruction: {keyword}{suggestion}"))
        .maybe_hint(hint)
}

/// State shared by the rules of one instruction.
struct Context<'a> {
    line: &'a Text,
    escape: char,
    heredocs: &'a [Heredoc],
    diagnostics: &'a mut Vec<Diagnostic>,
}

/// One instruction being parsed: its flags, its arguments and where to report.
struct Rule<'a, 'b> {
    keyword: &'a str,
    flags: Vec<Flag>,
    args: Text,
    context: &'a mut Context<'b>,
}

/// Syntax of an instruction for hints; `None` for keywords without a fixed form.
fn usage(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "ADD" => "ADD SOURCE… DESTINATION",
        "ARG" => "ARG NAME or ARG NAME=DEFAULT",
        "CMD" => "CMD [\"PROGRAM\", \"ARGUMENT\"]",
        "COPY" => "COPY SOURCE… DESTINATION",
        "ENTRYPOINT" => "ENTRYPOINT [\"PROGRAM\", \"ARGUMENT\"]",
        "ENV" => "ENV NAME=VALUE",
        "EXPOSE" => "EXPOSE PORT or EXPOSE PORT/PROTOCOL",
        "FROM" => "FROM IMAGE or FROM IMAGE AS NAME",
        "HEALTHCHECK" => "HEALTHCHECK CMD COMMAND or HEALTHCHECK NONE",
        "LABEL" => "LABEL NAME=VALUE",
        "ONBUILD" => "ONBUILD and another instruction",
        "RUN" => "RUN COMMAND",
        "SHELL" => "SHELL [\"PROGRAM\", \"ARGUMENT\"]",
        "STOPSIGNAL" => "STOPSIGNAL SIGNAL, such as SIGTERM",
        "USER" => "USER NAME or USER NAME:GROUP",
        "VOLUME" => "VOLUME DIRECTORY",
        "WORKDIR" => "WORKDIR DIRECTORY",
        _ => return None,
    })
}

impl Rule<'_, '_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.context.diagnostics.push(diagnostic);
    }

    /// Reports an error and makes the instruction invalid.
    fn fail<T>(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Option<T> {
        /// Messages about missing arguments.
        const MISSING: [&str; 4] =
            ["missing-argument", "missing-destination", "missing-equals", "two-arguments"];
        let mut diagnostic = Diagnostic::error(code, span, message);
        if MISSING.contains(&code) {
            diagnostic
                .hints
                .extend(usage(&self.keyword.to_uppercase()).map(|usage| format!("write {usage}")));
        }
        self.report(diagnostic);
        None
    }

    fn keyword_span(&self) -> Span {
        self.context.line.span_of(0..self.keyword.len())
    }

    fn no_flags(&mut self) -> Option<FlagSet> {
        self.check_flags(&[])
    }

    fn check_flags(&mut self, known: &[(&str, Takes)]) -> Option<FlagSet> {
        FlagSet::check(std::mem::take(&mut self.flags), known, self.context.diagnostics)
    }

    /// Arguments split at blanks; quotes are kept.
    fn words(&self) -> Vec<Text> {
        let text = self.args.as_str();
        let words = text.split(tokens::is_separator).filter(|word| !word.is_empty());
        words.map(|word| self.args.slice(tokens::range_in(text, word))).collect()
    }

    fn need_one<T>(&mut self) -> Option<T> {
        let message = format!("{} requires at least one argument", self.keyword);
        self.fail("missing-argument", self.keyword_span(), message)
    }

    /// Arguments as JSON if they are in that form; reports arrays of other values.
    fn json(&mut self) -> Option<Option<Vec<Text>>> {
        match json::form(&self.args) {
            json::Form::Strings(strings) => Some(Some(strings)),
            json::Form::Shell => Some(None),
            json::Form::NotStrings => {
                let message = "when using JSON array syntax, arrays must be comprised of strings only";
                self.fail("json-not-strings", self.args.span(), message)
            }
        }
    }
}
