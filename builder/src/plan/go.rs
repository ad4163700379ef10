//! Go's text formats: history entries are formatted with `%q`, `%v` and `%+v`.

/// Formats a list of strings as `%q` does.
pub(super) fn quoted_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Formats a list of strings as `%v` does.
pub(super) fn plain_list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// Quotes a text as `strconv.Quote` does.
pub(super) fn quote(text: &str) -> String {
    quote_with(text, '"')
}

/// Formats a number as `%q` does: the character of that code, quoted as by `strconv.QuoteRune`.
pub(super) fn quote_rune(code: i64) -> String {
    let character = u32::try_from(code).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    quote_with(character.encode_utf8(&mut [0; 4]), '\'')
}

fn quote_with(text: &str, mark: char) -> String {
    let mut quoted = String::from(mark);
    for character in text.chars() {
        match character {
            _ if character == mark => quoted.extend(['\\', mark]),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            ' '..='~' => quoted.push(character),
            _ if (character as u32) < 0x80 => quoted.push_str(&format!("\\x{:02x}", character as u32)),
            _ if character.is_control() || (character.is_whitespace()) => {
                quoted.push_str(&format!("\\u{:04x}", character as u32));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push(mark);
    quoted
}

/// Formats nanoseconds as `time.Duration.String` does.
pub(super) fn duration(nanoseconds: i64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < SECOND {
        let (unit, size) = match total {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("\u{b5}s", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(total, size));
    }
    let (hours, minutes) = (total / (3600 * SECOND), total / (60 * SECOND) % 60);
    let seconds = decimal(total % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// Formats `value / unit` without trailing zeros.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, mut rest) = (value / unit, value % unit);
    let mut text = whole.to_string();
    if rest == 0 {
        return text;
    }
    text.push('.');
    let mut unit = unit / 10;
    while rest > 0 {
        text.push_str(&(rest / unit).to_string());
        rest %= unit;
        unit = (unit / 10).max(1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let items = ["a b".to_owned(), "q\"\\\n\u{1}é".to_owned()];
        assert_eq!(quoted_list(&items), r#"["a b" "q\"\\\n\x01é"]"#);
        assert_eq!(plain_list(&items[..1]), "[a b]");
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn runes() {
        let check = |code: i64, expected: &str| assert_eq!(quote_rune(code), expected);
        check(0, r"'\x00'");
        check(10, r"'\n'");
        check(39, r"'\''");
        check(34, "'\"'");
        check(65, "'A'");
    }

    #[test]
    fn durations() {
        let check = |nanoseconds: i64, expected: &str| assert_eq!(duration(nanoseconds), expected);
        check(0, "0s");
        check(30_000_000_000, "30s");
        check(90_000_000_000, "1m30s");
        check(3_600_000_000_000, "1h0m0s");
        check(1_500_000_000, "1.5s");
        check(1_050_000, "1.05ms");
        check(999, "999ns");
        check(-1_001, "-1.001\u{b5}s");
    }
}
