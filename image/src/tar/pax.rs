//! PAX extended header records: `length key=value\n`.

/// Key prefix of extended attributes.
pub(super) const XATTR: &str = "SCHILY.xattr.";

/// Splits the data of a PAX header into records; `None` when it is malformed.
pub(super) fn records(mut data: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let blank = data.iter().position(|byte| *byte == b' ')?;
        let digits = std::str::from_utf8(&data[..blank]).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: usize = digits.parse().ok()?;
        if length <= blank + 1 || length > data.len() {
            return None;
        }
        let (record, rest) = data.split_at(length);
        let (end, record) = record[blank + 1..].split_last()?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        if *end != b'\n' {
            return None;
        }
        let key = std::str::from_utf8(&record[..equals]).ok()?;
        let value = &record[equals + 1..];
        if !is_valid(key, value) {
            return None;
        }
        records.push((key.to_owned(), value.to_vec()));
        data = rest;
    }
    Some(records)
}

/// Validates a record as Go does: keys are not empty; names and numbers contain no NUL, nor do other keys.
fn is_valid(key: &str, value: &[u8]) -> bool {
    if key.is_empty() {
        return false;
    }
    match key {
        "path" | "linkpath" | "uname" | "gname" => !value.contains(&0),
        _ => !key.contains('\0'),
    }
}

/// Formats one record with its length.
pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let bare = key.len() + value.len() + 3;
    let mut size = bare + bare.to_string().len();
    let mut text = format!("{size} {key}=").into_bytes();
    if text.len() + value.len() + 1 != size {
        size = text.len() + value.len() + 1;
        text = format!("{size} {key}=").into_bytes();
    }
    text.extend_from_slice(value);
    text.push(b'\n');
    text
}

/// Parses `[-]seconds[.fraction]` as seconds and nanoseconds; the fraction is rounded towards the past.
pub(super) fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || whole.starts_with('+') {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if negative && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_include_their_length() {
        assert_eq!(record("path", b"a"), b"9 path=a\n");
        assert_eq!(record("path", &[b'x'; 90]).len(), 99);
        assert_eq!(record("path", &[b'x'; 91]).len(), 101);
        let data = [record("a", b"1"), record("SCHILY.xattr.b", b"\0\n")].concat();
        assert_eq!(
            records(&data),
            Some(vec![("a".into(), b"1".to_vec()), ("SCHILY.xattr.b".into(), b"\0\n".to_vec())])
        );
        for bad in [&b"6 a=1"[..], b"5 a=1\n", b"x a=1\n", b"99 a=1\n", b"5 =1\n", b"12 path=a\0b\n"] {
            assert_eq!(records(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_are_rounded_towards_the_past() {
        assert_eq!(time(b"1700000000.123"), Some((1_700_000_000, 123_000_000)));
        assert_eq!(time(b"-5.5"), Some((-6, 500_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"1.2345678919"), Some((1, 234_567_891)));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b"1.x"), None);
    }
}
