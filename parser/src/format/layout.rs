//! Layout of the lines of one instruction.

use super::quotes::Quotes;
use crate::ast::{CommandLine, Healthcheck, Instruction, Kind};
use crate::grammar::tokens;
use crate::lines::strip_continuation;

const INDENT: usize = 4;
/// Number of columns in a tab stop.
const TAB: usize = 4;
const BLANKS: [char; 2] = [' ', '\t'];

/// Properties of the file that decide where blanks count.
#[derive(Clone, Copy)]
pub(super) struct Verbatim {
    /// Escape character of the file.
    pub(super) escape: char,
    /// Whether RUN is read by a POSIX shell, which ignores the number of blanks between words.
    pub(super) is_posix: bool,
}

impl Verbatim {
    /// Offset in the joined pieces from which every blank counts; `None` when no blank does.
    fn begins(&self, pieces: &[&str], instruction: &Instruction) -> Option<usize> {
        let text = match &instruction.kind {
            Kind::Run(run) if !self.is_posix => &run.command,
            Kind::Cmd(command) | Kind::Entrypoint(command) => command,
            Kind::Healthcheck(Healthcheck::Command { command, .. }) => command,
            Kind::Env(values) | Kind::Label(values) => return values.legacy.then_some(0),
            Kind::Workdir(_) | Kind::User(_) | Kind::Maintainer(_) | Kind::Stopsignal(_) => return Some(0),
            Kind::Onbuild(_) => return Some(0),
            _ => return None,
        };
        let CommandLine::Shell(text) = text else { return None };
        let joined = pieces.concat();
        let joined = joined.trim_end();
        Some(joined.strip_suffix(text.as_str()).map_or(0, str::len))
    }
}

/// Lays out an instruction's lines without heredoc bodies; `header` has no line end.
pub(super) fn layout(header: &str, instruction: &Instruction, verbatim: Verbatim) -> String {
    let escape = verbatim.escape;
    let lines = split(header, escape);
    let pieces: Vec<&str> = lines.iter().filter_map(Line::words).collect();
    let head = instruction.keyword.as_str();
    if pieces.first().is_none_or(|first| !first.starts_with(head)) {
        // The keyword is spread over several lines.
        return header.to_owned();
    }
    let joined = Joined::new(&pieces, instruction, verbatim);
    let depths = joined.depths(&pieces);
    let style = Style::of(instruction);
    let mut out = String::new();
    let mut piece = 0;
    for line in &lines {
        match line {
            Line::Comment(text) => {
                let depth = depths.get(piece).copied().flatten();
                out.push_str(&" ".repeat(if piece < pieces.len() { depth.unwrap_or(INDENT) } else { 0 }));
                out.push_str(text);
            }
            Line::Words(_) => {
                let is_last = piece + 1 == pieces.len();
                let mut text = joined.piece(&pieces, piece, style.collapses);
                if piece == 0 {
                    text = style.head(&text, head, is_last, escape);
                }
                match depths[piece] {
                    Some(depth) => {
                        out.push_str(&" ".repeat(depth));
                        out.push_str(text.trim_start_matches(BLANKS));
                    }
                    None => out.push_str(&text),
                }
                if is_last {
                    out.truncate(out.trim_end().len());
                    let line = out.rsplit('\n').next().unwrap_or_default();
                    if strip_continuation(line, escape).1 {
                        // An escaped blank at the end of the file, without which the escape would continue the line.
                        return header.to_owned();
                    }
                } else if joined.is_free(&pieces, piece) {
                    out.truncate(out.trim_end_matches(BLANKS).len());
                    out.push(' ');
                    out.push(escape);
                } else {
                    out.push(escape);
                }
                piece += 1;
            }
        }
        out.push('\n');
    }
    out.truncate(out.trim_end_matches('\n').len());
    out
}

/// A physical line of an instruction without its continuation character.
enum Line {
    /// Text from `#` on.
    Comment(String),
    Words(String),
}

impl Line {
    fn words(&self) -> Option<&str> {
        match self {
            Line::Words(text) => Some(text),
            Line::Comment(_) => None,
        }
    }
}

/// Splits `header` into lines. Blank lines are dropped; a line with only a continuation belongs to the one above.
fn split(header: &str, escape: char) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in header.split('\n').enumerate() {
        let trimmed = line.trim_start();
        if index > 0 && trimmed.starts_with('#') {
            lines.push(Line::Comment(super::comment(trimmed.trim_end())));
            continue;
        }
        if trimmed.is_empty() {
            continue;
        }
        let (text, _) = strip_continuation(line, escape);
        let above = lines.iter_mut().rev().find_map(|line| match line {
            Line::Words(text) => Some(text),
            Line::Comment(_) => None,
        });
        match above {
            Some(above) if text.trim().is_empty() => above.push_str(text),
            _ => lines.push(Line::Words(text.to_owned())),
        }
    }
    lines
}

/// Pieces of an instruction joined into one text, with the parts that must not change.
struct Joined {
    /// For each byte: whether it is quoted or escaped.
    protected: Vec<bool>,
    /// Offset at which each piece begins, and the offset of the end.
    starts: Vec<usize>,
    /// For each piece: whether a quote is open at its end.
    open: Vec<bool>,
    /// Whether quotes do not match, or may be within a comment of the shell: then nothing is changed.
    is_unclear: bool,
    /// Offset from which every blank counts.
    verbatim: Option<usize>,
}

impl Joined {
    fn new(pieces: &[&str], instruction: &Instruction, verbatim: Verbatim) -> Joined {
        let mut quotes = match is_shell(&instruction.kind) {
            true => Quotes::of_shell(verbatim.escape),
            false => Quotes::of_words(verbatim.escape),
        };
        let mut joined = Joined {
            protected: Vec::new(),
            starts: vec![0],
            open: Vec::new(),
            is_unclear: false,
            verbatim: verbatim.begins(pieces, instruction),
        };
        for piece in pieces {
            for character in piece.chars() {
                let is_protected = quotes.is_protected();
                joined.protected.extend(std::iter::repeat_n(is_protected, character.len_utf8()));
                quotes.read(character);
            }
            joined.starts.push(joined.protected.len());
            joined.open.push(quotes.is_protected());
        }
        joined.is_unclear = quotes.is_unclear();
        joined
    }

    /// True when blanks may change between `piece` and the next one, because some are there already.
    fn is_free(&self, pieces: &[&str], piece: usize) -> bool {
        let (Some(text), Some(next)) = (pieces.get(piece), pieces.get(piece + 1)) else { return false };
        let end = self.starts[piece + 1];
        let tail = text.len() - text.trim_end_matches(BLANKS).len();
        let lead = next.len() - next.trim_start_matches(BLANKS).len();
        let is_plain = !self.protected[end - tail..end + lead].contains(&true);
        if self.verbatim.is_some_and(|begin| end + lead > begin) {
            return false;
        }
        !self.is_unclear && !self.open[piece] && tail + lead > 0 && is_plain
    }

    /// Indentation of each piece; `None` for those that keep their own.
    fn depths(&self, pieces: &[&str]) -> Vec<Option<usize>> {
        let depth = |text: &str| {
            let blanks = text.chars().take_while(|c| BLANKS.contains(c));
            blanks.map(|c| if c == '\t' { TAB } else { 1 }).sum::<usize>()
        };
        let depths: Vec<Option<usize>> = (0..pieces.len())
            .map(|piece| {
                let follows = piece.checked_sub(1).is_some_and(|above| self.is_free(pieces, above));
                follows.then(|| depth(pieces[piece]))
            })
            .collect();
        let least = depths.iter().flatten().min().copied().unwrap_or(0);
        depths.into_iter().map(|depth| depth.map(|depth| depth - least + INDENT)).collect()
    }

    /// Text of a piece, with runs of blanks reduced to one where `collapses`.
    fn piece(&self, pieces: &[&str], piece: usize, collapses: bool) -> String {
        let text = pieces[piece];
        if !collapses || self.is_unclear {
            return text.to_owned();
        }
        let body = text.trim_start_matches(BLANKS);
        let lead = text.len() - body.len();
        let mut out = text[..lead].to_owned();
        let mut after_blank = false;
        for (at, character) in body.char_indices() {
            let is_blank = BLANKS.contains(&character) && !self.protected[self.starts[piece] + lead + at];
            match (is_blank, after_blank) {
                (true, true) => {}
                (true, false) => out.push(' '),
                (false, _) => out.push(character),
            }
            after_blank = is_blank;
        }
        out
    }
}

/// Changes that the layout may make in an instruction of a kind.
struct Style {
    /// Whether blanks between words are reduced to one.
    collapses: bool,
    /// Whether flags follow the keyword.
    takes_flags: bool,
    is_from: bool,
    /// Whether the text after the flags is JSON.
    is_json: bool,
}

impl Style {
    fn of(instruction: &Instruction) -> Style {
        let is_exec = |command: &CommandLine| matches!(command, CommandLine::Exec(_));
        let line = instruction.line.as_str();
        let is_array = || line.find('[').is_some_and(|at| is_strings(&line[at..]));
        let is_json = match &instruction.kind {
            Kind::Run(run) => is_exec(&run.command),
            Kind::Cmd(command) | Kind::Entrypoint(command) => is_exec(command),
            Kind::Healthcheck(Healthcheck::Command { command, .. }) => is_exec(command),
            Kind::Shell(_) => true,
            Kind::Copy(_) | Kind::Add(_) | Kind::Volume(_) => is_array(),
            _ => false,
        };
        let collapses = match &instruction.kind {
            Kind::From(_) | Kind::Expose(_) | Kind::Arg(_) => true,
            Kind::Copy(_) | Kind::Add(_) | Kind::Volume(_) => !is_json,
            Kind::Env(values) | Kind::Label(values) => !values.legacy,
            _ => false,
        };
        let takes_flags = matches!(
            instruction.kind,
            Kind::From(_) | Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Healthcheck(_)
        );
        Style { collapses, takes_flags, is_from: matches!(instruction.kind, Kind::From(_)), is_json }
    }

    /// First line: keyword, flags and arguments.
    fn head(&self, text: &str, keyword: &str, is_only: bool, escape: char) -> String {
        let mut out = keyword.to_ascii_uppercase();
        let mut rest = &text[keyword.len()..];
        let skip = |rest: &str| rest.len() - rest.trim_start_matches(tokens::is_separator).len();
        let flag = |rest: &str| match tokens::flag(escape)(rest) {
            Ok((after, pieces)) if self.takes_flags && pieces.len() > 1 => Some(rest.len() - after.len()),
            _ => None,
        };
        while let Some(length) = flag(&rest[skip(rest)..]) {
            let start = &rest[skip(rest)..];
            out.push(' ');
            out.push_str(&start[..length]);
            rest = &start[length..];
        }
        if skip(rest) > 0 {
            out.push(' ');
        }
        let rest = &rest[skip(rest)..];
        let words: Vec<&str> = rest.split(tokens::is_separator).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [image, keyword, name] if self.is_from && is_only && keyword.eq_ignore_ascii_case("as") => {
                out.push_str(&format!("{image} AS {name}"));
            }
            _ if self.is_json && is_only && is_strings(rest) => out.push_str(&respaced(rest)),
            _ => out.push_str(rest),
        }
        out
    }
}

/// True for texts in which the shell decides the meaning of quotes and blanks.
fn is_shell(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Run(_) | Kind::Cmd(_) | Kind::Entrypoint(_) | Kind::Healthcheck(_) | Kind::Onbuild(_)
    )
}

fn is_strings(text: &str) -> bool {
    serde_json::from_str::<Vec<String>>(text).is_ok()
}

/// JSON with one blank after each comma and none elsewhere outside its strings.
fn respaced(array: &str) -> String {
    let mut out = String::new();
    let (mut inside, mut escaped) = (false, false);
    for character in array.chars() {
        match character {
            ' ' | '\t' | '\n' | '\r' if !inside => {}
            ',' if !inside => out.push_str(", "),
            other => out.push(other),
        }
        if inside && !escaped && character == '\\' {
            escaped = true;
            continue;
        }
        if character == '"' && !escaped {
            inside = !inside;
        }
        escaped = false;
    }
    out
}
