//! Builder flags: `--name=value` words between the keyword and the arguments.

use super::tokens;
use crate::diagnostic::Diagnostic;
use crate::span::Span;
use crate::suggest;
use crate::text::{Text, TextBuilder};

/// A flag as written, with quotes removed.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    /// Name without the dashes.
    name: Text,
    value: Option<Text>,
    span: Span,
}

/// Splits the flags off `line[from..]`; returns them and the offset at which the arguments begin.
///
/// A lone `--` ends the flags and is removed.
pub(super) fn split(line: &Text, from: usize, escape: char) -> (Vec<Flag>, usize) {
    let text = line.as_str();
    let mut flags = Vec::new();
    let mut at = from;
    loop {
        let rest = &text[at..];
        let start = at + (rest.len() - rest.trim_start().len());
        let Ok((after, pieces)) = tokens::flag(escape)(&text[start..]) else { return (flags, start) };
        at = text.len() - after.len();
        if pieces.len() == 1 {
            return (flags, at);
        }
        flags.push(flag(line, &pieces, start..at));
    }
}

fn flag(line: &Text, pieces: &[&str], range: std::ops::Range<usize>) -> Flag {
    let mut builder = TextBuilder::new();
    for piece in pieces {
        builder.push_text(line, tokens::range_in(line.as_str(), piece));
    }
    let span = line.span_of(range);
    let word = builder.finish(span.start as usize);
    let (name_end, value) = match word.as_str().find('=') {
        Some(equals) => (equals, Some(word.slice(equals + 1..word.as_str().len()))),
        None => (word.as_str().len(), None),
    };
    Flag { name: word.slice(2..name_end.max(2)), value, span }
}

/// Kind of value that a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Bool,
    Value,
    Values,
}

/// Checked flags of an instruction, by name.
pub(super) struct FlagSet {
    flags: Vec<Flag>,
}

impl FlagSet {
    /// Checks `flags` against those that the instruction knows; wrong ones are reported and dropped.
    pub(super) fn check(
        flags: Vec<Flag>,
        known: &[(&str, Takes)],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<FlagSet> {
        let mut kept: Vec<Flag> = Vec::new();
        let mut good = true;
        for flag in flags {
            match check_one(&flag, &kept, known) {
                Ok(()) => kept.push(flag),
                Err(diagnostic) => {
                    diagnostics.push(*diagnostic);
                    good = false;
                }
            }
        }
        good.then_some(FlagSet { flags: kept })
    }

    /// Value of a flag that takes one.
    pub(super) fn value(&self, name: &str) -> Option<Text> {
        self.all(name).next()
    }

    /// Values of a flag that may be repeated.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Text> + 'a {
        self.flags.iter().filter(move |flag| flag.name.as_str() == name).filter_map(|flag| flag.value.clone())
    }

    /// Value of a boolean flag; `None` when absent.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        let flag = self.flags.iter().find(|flag| flag.name.as_str() == name)?;
        let value = flag.value.as_ref().map(|value| value.as_str().to_lowercase());
        Some(value.as_deref() != Some("false"))
    }
}

fn check_one(flag: &Flag, before: &[Flag], known: &[(&str, Takes)]) -> Result<(), Box<Diagnostic>> {
    let name = flag.name.as_str();
    let fail = |code, message: String| Err(Box::new(Diagnostic::error(code, flag.span, message)));
    let Some((_, takes)) = known.iter().find(|(known, _)| *known == name) else {
        return Err(Box::new(unknown(flag, known)));
    };
    if *takes != Takes::Values && before.iter().any(|earlier| earlier.name.as_str() == name) {
        return fail("duplicate-flag", format!("duplicate flag specified: --{name}"));
    }
    let value = flag.value.as_ref().map(|value| value.as_str());
    match (takes, value) {
        (Takes::Bool, None) => Ok(()),
        (Takes::Bool, Some("")) | (Takes::Value | Takes::Values, None) => {
            fail("missing-flag-value", format!("missing a value on flag: --{name}"))
        }
        (Takes::Bool, Some(value)) if !matches!(value.to_lowercase().as_str(), "true" | "false") => {
            fail("flag-not-boolean", format!("expecting boolean value for flag --{name}, not: {value}"))
        }
        _ => Ok(()),
    }
}

fn unknown(flag: &Flag, known: &[(&str, Takes)]) -> Diagnostic {
    let name = flag.name.as_str();
    let near = suggest::nearest(name, known.iter().map(|(known, _)| *known));
    let span = Span::new(flag.span.start as usize, flag.name.span().end as usize);
    let mut message = format!("unknown flag: --{name}");
    if let Some(near) = near {
        message.push_str(&format!(" (did you mean {near}?)"));
    }
    let hint = match known {
        [] => "this instruction takes no flags".to_owned(),
        _ => {
            let names: Vec<_> = known.iter().map(|(known, _)| format!("--{known}")).collect();
            format!("it takes {}", names.join(", "))
        }
    };
    Diagnostic::error("unknown-flag", span, message).hint(hint)
}
