//! The JSON form of an instruction: an array of strings, each with its span.

use super::tokens::{self, Token};
use crate::text::Text;
use nom::Parser;
use nom::bytes::complete::take_while;
use nom::character::complete::char;
use nom::combinator::all_consuming;
use nom::multi::separated_list0;
use nom::sequence::{delimited, terminated};

/// Form of the arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An array of strings.
    Strings(Vec<Text>),
    /// A JSON array with other values: always an error.
    NotStrings,
    /// Not a JSON array: the shell form, even when it begins with `[`.
    Shell,
}

/// Decides the form of `args`.
pub(super) fn form(args: &Text) -> Form {
    let text = args.as_str().trim_start();
    if !text.starts_with('[') {
        return Form::Shell;
    }
    if let Ok((_, strings)) = all_consuming(string_array).parse(text) {
        let offset = args.as_str().len() - text.len();
        return Form::Strings(
            strings.into_iter().map(|string| string.into_text(args, text, offset)).collect(),
        );
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Ok(_) => Form::NotStrings,
        Err(error) if error.to_string().starts_with("recursion limit exceeded") && is_closed(text) => {
            Form::NotStrings
        }
        Err(_) => Form::Shell,
    }
}

/// True when all brackets outside of strings are paired. Arrays nested deeper than the parser descends hold no strings.
fn is_closed(text: &str) -> bool {
    let (mut open, mut inside, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.trim_end().bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'[' | b'{' if !inside => open += 1,
            b']' | b'}' if !inside => match open {
                0 => return false,
                1 => return at + 1 == text.trim_end().len(),
                _ => open -= 1,
            },
            _ => {}
        }
    }
    false
}

/// A decoded string and the slice between its quotes.
struct JsonString<'a> {
    raw: &'a str,
    value: String,
}

impl JsonString<'_> {
    fn into_text(self, args: &Text, whole: &str, offset: usize) -> Text {
        let range = tokens::range_in(whole, self.raw);
        let slice = args.slice(offset + range.start..offset + range.end);
        if slice.as_str() == self.value {
            slice
        } else {
            Text::verbatim(self.value, slice.span().start as usize)
        }
    }
}

fn string_array(input: &str) -> Token<'_, Vec<JsonString<'_>>> {
    let separator = delimited(space, char(','), space);
    let array =
        delimited(terminated(char('['), space), separated_list0(separator, string), (space, char(']')));
    terminated(array, space).parse(input)
}

fn space(input: &str) -> Token<'_, &str> {
    take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r')).parse(input)
}

fn string(input: &str) -> Token<'_, JsonString<'_>> {
    let (body, _) = char('"').parse(input)?;
    let mut rest = body;
    let mut value = String::new();
    loop {
        if let Ok((after, plain)) = tokens::json_plain(rest) {
            value.push_str(plain);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('"') {
            let raw = &body[..body.len() - rest.len()];
            return Ok((after, JsonString { raw, value }));
        } else {
            let (after, character) = escape(rest)?;
            value.push(character);
            rest = after;
        }
    }
}

fn escape(input: &str) -> Token<'_, char> {
    let (rest, _) = char('\\').parse(input)?;
    let fail = || nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Escaped));
    let mut characters = rest.chars();
    let character = match characters.next().ok_or_else(fail)? {
        same @ ('"' | '\\' | '/') => same,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let (length, character) = unicode_escape(characters.as_str()).ok_or_else(fail)?;
            return Ok((&characters.as_str()[length..], character));
        }
        _ => return Err(fail()),
    };
    Ok((characters.as_str(), character))
}

/// Decodes four digits after `\u`, or two escapes that form a surrogate pair; a lone surrogate is U+FFFD, as in Go.
fn unicode_escape(rest: &str) -> Option<(usize, char)> {
    let unit = |text: &str| {
        u32::from_str_radix(text, 16).ok().filter(|_| text.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let first = unit(rest.get(..4)?)?;
    if !(0xd800..0xe000).contains(&first) {
        return Some((4, char::from_u32(first)?));
    }
    let second = rest.get(4..6).filter(|mark| *mark == "\\u").and_then(|_| unit(rest.get(6..10)?));
    match second {
        Some(second @ 0xdc00..0xe000) if first < 0xdc00 => {
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            Some((10, char::from_u32(code)?))
        }
        _ => Some((4, char::REPLACEMENT_CHARACTER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Span;

    fn strings(args: &str) -> Option<Vec<String>> {
        match form(&Text::verbatim(args, 0)) {
            Form::Strings(list) => Some(list.into_iter().map(Text::into_string).collect()),
            Form::NotStrings => Some(vec!["<not strings>".into()]),
            Form::Shell => None,
        }
    }

    #[test]
    fn arrays_of_strings_are_parsed() {
        assert_eq!(strings(r#"["a", "b c"]"#), Some(vec!["a".into(), "b c".into()]));
        assert_eq!(strings(r#"  [ ] "#), Some(vec![]));
        assert_eq!(
            strings(r#"["\u00e9\n\"\/", "\ud83d\ude00", "\ud83d"]"#),
            Some(vec!["é\n\"/".into(), "😀".into(), "\u{fffd}".into()])
        );
    }

    #[test]
    fn other_arguments_are_shell_text_or_errors() {
        assert_eq!(strings(r#"["a", 1]"#), Some(vec!["<not strings>".into()]));
        assert_eq!(strings(r#"[["a"]]"#), Some(vec!["<not strings>".into()]));
        assert_eq!(strings(r#"['a']"#), None);
        assert_eq!(strings(r#"["a",]"#), None);
        assert_eq!(strings(r#"["a"] b"#), None);
        assert_eq!(strings(r#"["a"#), None);
        assert_eq!(strings("[\"a\tb\"]"), None);
        assert_eq!(strings("echo"), None);
        assert_eq!(strings(&"[".repeat(100_000)), None);
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        assert_eq!(strings(&deep), Some(vec!["<not strings>".into()]));
    }

    #[test]
    fn strings_have_their_spans() {
        let Form::Strings(list) = form(&Text::verbatim(r#" ["ab", "c"]"#, 10)) else { panic!("an array") };
        assert_eq!(list[0].span(), Span::new(13, 15));
        assert_eq!(list[1].span(), Span::new(19, 20));
    }
}
