//! Tokens of the language, as nom parsers over a logical line.
//!
//! All of them accept any input: an unterminated quote or a trailing escape ends at the end of the line, as in the
//! reference builder.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while, take_while1};
use nom::character::complete::{anychar, char, digit0, none_of};
use nom::combinator::{eof, map, opt, recognize, verify};
use nom::multi::many0_count;
use nom::sequence::{pair, preceded, terminated};
use nom::{IResult, Offset, Parser};
use std::ops::Range;

/// Result of a token parser.
pub(crate) type Token<'a, O> = IResult<&'a str, O>;

/// True for blanks that separate words in instructions which split without regard to quotes.
pub(crate) fn is_separator(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Byte range of `part`, a slice of `whole`.
pub(crate) fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = whole.offset(part);
    start..start + part.len()
}

/// Parses the first word and the blanks after it.
pub(crate) fn keyword(input: &str) -> Token<'_, &str> {
    terminated(take_till(is_separator), take_while(is_separator)).parse(input)
}

/// Parses white space of any kind.
pub(crate) fn blanks(input: &str) -> Token<'_, &str> {
    take_while(char::is_whitespace).parse(input)
}

/// Parses a word up to white space; quotes group and, like escapes, are kept.
pub(crate) fn word<'a>(escape: char) -> impl FnMut(&'a str) -> Token<'a, &'a str> {
    move |input| {
        let part = alt((quoted_raw(escape, '"'), quoted_raw('\0', '\''), escaped_raw(escape), plain));
        verify(recognize(many0_count(part)), |word: &str| !word.is_empty()).parse(input)
    }
}

fn plain(input: &str) -> Token<'_, &str> {
    recognize(verify(anychar, |c| !c.is_whitespace())).parse(input)
}

fn escaped_raw<'a>(escape: char) -> impl FnMut(&'a str) -> Token<'a, &'a str> {
    move |input| recognize(pair(char(escape), opt(anychar))).parse(input)
}

fn quoted_raw<'a>(escape: char, quote: char) -> impl FnMut(&'a str) -> Token<'a, &'a str> {
    move |input| {
        let inside = alt((escaped_raw(escape), recognize(verify(anychar, |c| *c != quote))));
        let end = alt((recognize(char(quote)), eof));
        recognize((char(quote), many0_count(inside), end)).parse(input)
    }
}

/// Parses a builder flag `--name[=value]` into the pieces that remain once quotes and escapes are resolved.
pub(crate) fn flag<'a>(escape: char) -> impl FnMut(&'a str) -> Token<'a, Vec<&'a str>> {
    move |input| {
        let (mut rest, _) = tag("--").parse(input)?;
        let mut pieces = vec![&input[..2]];
        loop {
            let part = alt((
                unquoted(escape, '"'),
                unquoted(escape, '\''),
                map(unescaped(escape), |piece| vec![piece]),
                map(plain, |piece| vec![piece]),
            ))
            .parse(rest);
            match part {
                Ok((after, kept)) => {
                    pieces.extend(kept);
                    rest = after;
                }
                Err(_) => return Ok((rest, pieces)),
            }
        }
    }
}

fn unescaped<'a>(escape: char) -> impl FnMut(&'a str) -> Token<'a, &'a str> {
    move |input| preceded(char(escape), alt((recognize(anychar), eof))).parse(input)
}

fn unquoted<'a>(escape: char, quote: char) -> impl FnMut(&'a str) -> Token<'a, Vec<&'a str>> {
    move |input| {
        let (mut rest, _) = char(quote).parse(input)?;
        let mut pieces = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix(quote) {
                return Ok((after, pieces));
            }
            if rest.is_empty() {
                return Ok((rest, pieces));
            }
            let (after, piece) = alt((unescaped(escape), recognize(anychar))).parse(rest)?;
            pieces.push(piece);
            rest = after;
        }
    }
}

/// Parses `3<<-WORD`: descriptor, whether tabs are stripped, and the word without the blanks before it.
pub(crate) fn heredoc_marker(input: &str) -> Token<'_, (&str, bool, &str)> {
    let dash = map(opt(char('-')), |dash| dash.is_some());
    let word = preceded(blanks, take_while(|c| c != '<'));
    terminated((digit0, preceded(tag("<<"), dash), word), eof).parse(input)
}

/// Parses one unit of a Go duration: number and unit name.
pub(crate) fn duration_unit(input: &str) -> Token<'_, (&str, &str)> {
    let digits = take_while(|c: char| c.is_ascii_digit());
    let fraction = opt(pair(char('.'), take_while(|c: char| c.is_ascii_digit())));
    let number = recognize(pair(digits, fraction));
    let unit = take_while1(|c: char| c != '.' && !c.is_ascii_digit());
    (number, unit).parse(input)
}

/// Parses the inside of a JSON string up to an escape or the closing quote.
pub(crate) fn json_plain(input: &str) -> Token<'_, &str> {
    recognize(verify(none_of("\"\\"), |c| *c >= ' ')).parse(input)
}
