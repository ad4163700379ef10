//! Makes text from outside safe for a terminal: control characters are shown instead of sent.
//!
//! Registries, images, Dockerfiles, file names and programs in containers may contain control characters, which change the
//! terminal's title, its clipboard, or lines that were printed before. Here each of them becomes text
//! in the notation of `cat -v` (`^[` for escape) or `\u009b`, which is valid in JSON as well. Newlines and tabs stay.
//!
//! `ui` applies this to everything that it prints; no other module prints messages.

use std::borrow::Cow;
use std::fmt::Write;

/// Treatment of colours: escape sequences `ESC [ digits ; … m` (ECMA-48 "select graphic rendition") and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    /// They are shown as text, as all other escape sequences.
    Show,
    /// All colours are kept.
    Keep,
    /// All colours are removed.
    Drop,
}

/// Longest sequence of parameters that is taken for a colour, in bytes.
const LONGEST_COLOR: usize = 48;

/// Replaces control characters of a text, except newlines, tabs, and colours that are kept.
pub fn visible(text: &str, colors: Colors) -> Cow<'_, str> {
    let Some(first) = text.find(is_steering) else { return Cow::Borrowed(text) };
    let mut out = text[..first].to_owned();
    let mut rest = &text[first..];
    while let Some(character) = rest.chars().next() {
        if colors != Colors::Show && character == '\x1b' {
            if let Some(length) = color_length(rest) {
                if colors == Colors::Keep {
                    out.push_str(&rest[..length]);
                }
                rest = &rest[length..];
                continue;
            }
            // Compilers erase the rest of the line after each colour; a new line has nothing to erase.
            if let Some(after) = rest.strip_prefix("\x1b[K").or(rest.strip_prefix("\x1b[0K")) {
                rest = after;
                continue;
            }
        }
        if is_steering(character) {
            push_shown(character, &mut out);
        } else {
            out.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    Cow::Owned(out)
}

/// Makes a line of a program visible: its colours are kept, and reset at its end.
pub fn output_line(line: &str) -> String {
    let mut shown = visible(line, Colors::Keep).into_owned();
    let last = shown.rfind("\x1b[").map(|at| &shown[at..]);
    if last.is_some_and(|color| !color.starts_with("\x1b[0m") && !color.starts_with("\x1b[m")) {
        shown.push_str("\x1b[0m");
    }
    shown
}

/// True for control characters of ASCII and of Latin 1, and for those that change the direction of text.
fn is_steering(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

fn push_shown(character: char, out: &mut String) {
    match character {
        '\0'..='\x1f' => {
            out.push('^');
            out.push(char::from(character as u8 + b'@'));
        }
        '\x7f' => out.push_str("^?"),
        other => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(other));
        }
    }
}

/// Length of the colour at the start of `text` in bytes; `None` when there is none.
fn color_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let length = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    (parameters[length..].starts_with('m') && length <= LONGEST_COLOR).then_some(length + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text, Colors::Show), expected);
        check("plain\ttext\nä €", "plain\ttext\nä €");
        check("\x1b]0;title\x07x", "^[]0;title^Gx");
        check("\x1b[31mred", "^[[31mred");
        check("a\rb\x08c\x7f\0", "a^Mb^Hc^?^@");
        check("\u{9b}31m\u{9d}0;x\u{9c}", "\\u009b31m\\u009d0;x\\u009c");
        check("user\u{202e}txt", "user\\u202etxt");
        check(&String::from_utf8_lossy(b"\x9b31m\xff"), "\u{fffd}31m\u{fffd}");
    }

    #[test]
    fn colors_are_strict() {
        let check = |text: &str, kept: &str, dropped: &str| {
            assert_eq!(visible(text, Colors::Keep), kept);
            assert_eq!(visible(text, Colors::Drop), dropped);
        };
        check("\x1b[1;31mred\x1b[m", "\x1b[1;31mred\x1b[m", "red");
        check("\x1b[31m\x1b[Kx\x1b[m\x1b[K", "\x1b[31mx\x1b[m", "x");
        for odd in
            ["[?25l", "[2J", "[1;1H", "[>4;1m", "[31:2m", "[31 m", "[31", "[", "]52;c;x", "c", "[2K", "P$q"]
        {
            let shown = format!("^[{odd}");
            check(&format!("\x1b{odd}"), &shown, &shown);
        }
        check("\x1b\x1b[31m", "^[\x1b[31m", "^[");
        check("\x1b[3\x1b[1m1m", "^[[3\x1b[1m1m", "^[[31m");
        let long = format!("\x1b[{}m", "1;".repeat(40));
        assert!(visible(&long, Colors::Keep).starts_with("^["));
    }

    #[test]
    fn dropping_makes_no_new_sequences() {
        let text = visible("\x1b\x1b[m[31m", Colors::Drop).into_owned();
        assert_eq!(text, "^[[31m");
    }

    #[test]
    fn colors_end_with_their_line() {
        assert_eq!(output_line("\x1b[31mred"), "\x1b[31mred\x1b[0m");
        assert_eq!(output_line("\x1b[31mred\x1b[0m."), "\x1b[31mred\x1b[0m.");
        assert_eq!(output_line("\x1b[8m^[[0m\x1b]0;x\x07"), "\x1b[8m^[[0m^[]0;x^G\x1b[0m");
        assert_eq!(output_line("plain"), "plain");
    }
}
