//! Times on the command line, in the forms that Docker takes.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Parses a time: RFC 3339 or a part of it (local time without a zone), seconds since 1970 with or without a fraction,
/// or a duration before `now`, such as `1h30m` (moby `api/types/time`). `None` for other text.
pub fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    // Zero is a number of seconds since 1970.
    if let Some(duration) = duration(text).filter(|_| text != "0") {
        return now.checked_sub(duration).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return unix(text);
    }
    let local = |time: DateTime| time.to_zoned(TimeZone::system()).ok().map(|zoned| zoned.timestamp());
    if let Ok(time) = text.parse::<DateTime>() {
        return local(time);
    }
    // Minutes and seconds may be left out, and the zone may follow a date alone.
    let with_zone = |suffix: &str| format!("{text}{suffix}").parse::<Timestamp>().ok();
    let (day, zone) = match text.strip_suffix('Z') {
        Some(day) => (day, true),
        None => (text, false),
    };
    for rest in ["", ":00", ":00:00", "T00:00:00"] {
        let Ok(time) = format!("{day}{rest}").parse::<DateTime>() else { continue };
        return if zone {
            time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        } else {
            local(time)
        };
    }
    day.parse::<Date>().ok().and_then(|_| with_zone("T00:00:00Z"))
}

/// Seconds since 1970, with a fraction of at most nine digits.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

/// Parses a duration as Go does: numbers with units, as `1h30m`, `1.5s`, `-2ms`.
pub fn duration(text: &str) -> Option<SignedDuration> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| {
            rest.strip_prefix(unit).is_some_and(|after| !after.starts_with(char::is_alphabetic))
        })?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    SignedDuration::try_from_secs_f64(sign * seconds).ok()
}

/// A time as Go's RFC3339Nano with all nine digits, in UTC.
pub fn nano(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_docker_s_forms() {
        let now: Timestamp = "2026-01-02T15:00:00Z".parse().unwrap();
        let check = |text: &str, expected: &str| {
            assert_eq!(parse(text, now).map(|time| time.to_string()).as_deref(), Some(expected), "{text}");
        };
        check("42m", "2026-01-02T14:18:00Z");
        check("1h30m", "2026-01-02T13:30:00Z");
        check("1.5s", "2026-01-02T14:59:58.5Z");
        check("0", "1970-01-01T00:00:00Z");
        check("0s", "2026-01-02T15:00:00Z");
        check("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z");
        check("2026-01-02T03:04:05.25+01:00", "2026-01-02T02:04:05.25Z");
        check("1136073845", "2006-01-01T00:04:05Z");
        check("1136073845.000000001", "2006-01-01T00:04:05.000000001Z");
        check("2006-01-02Z", "2006-01-02T00:00:00Z");
        check("2006-01-02T15Z", "2006-01-02T15:00:00Z");
        for bad in ["", "xx", "1x", "5", "2026-13-01", "1h30", "h", "1..2s"] {
            let is_number = bad == "5";
            assert_eq!(parse(bad, now).is_some(), is_number, "{bad}");
        }
    }
}
