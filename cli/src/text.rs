//! Formats ages, sizes and tables as Docker does.

use crate::visible::{Colors, visible};

/// Formats bytes with three significant digits in decimal units: `1.98MB` (docker/go-units `HumanSize`).
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", three_digits(value), UNITS[unit])
}

/// Formats bytes with four significant digits in binary units: `23.47GiB` (docker/go-units `BytesSize`).
pub fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// Go's `%.4g`, cut to the precision of `HumanSizeWithPrecision(…, 3)`.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Formats a duration in words (docker/go-units `HumanDuration`).
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        i64::MIN..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Formats the age of an RFC 3339 time: `2 hours ago`; empty for an empty time.
pub fn age(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => format!("{} ago", duration(jiff::Timestamp::now().as_second() - time.as_second())),
        Err(_) => String::new(),
    }
}

/// Formats an RFC 3339 time as Go prints it: `2024-01-01 00:00:00 +0000 UTC`.
pub fn date(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => String::new(),
    }
}

/// Formats an RFC 3339 time without fractions of seconds.
pub fn seconds(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => String::new(),
    }
}

/// Formats a table: each column is as wide as its widest cell and three blanks more, at least ten.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    spaced_table(head, rows, 3, 10)
}

/// Formats a table: each column is as wide as its widest cell and three blanks more, at least twenty, as in the output of
/// `top`.
pub fn roomy_table(head: &[&str], rows: &[Vec<String>]) -> String {
    spaced_table(head, rows, 3, 20)
}

/// Formats a table: each column is as wide as its widest cell and one blank more, as in the output of `--call`.
pub fn narrow_table(head: &[&str], rows: &[Vec<String>]) -> String {
    spaced_table(head, rows, 1, 0)
}

/// Formats a table: each column is as wide as its widest cell and three blanks more.
pub fn wide_table(head: &[&str], rows: &[Vec<String>]) -> String {
    spaced_table(head, rows, 3, 0)
}

fn spaced_table(head: &[&str], rows: &[Vec<String>], gap: usize, narrowest: usize) -> String {
    // Widths count the cells with control characters made visible.
    let shown = |cell: &String| visible(cell, Colors::Show).into_owned();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0) + gap
    };
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).max(narrowest)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let last = head.len() - 1;
        let padded = cells.enumerate().map(|(column, cell)| match column {
            _ if column == last => cell.to_owned(),
            _ => format!("{cell:<width$}", width = widths[column]),
        });
        padded.collect::<String>() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Cuts a text to `length` characters, with `…` as the last one when it is longer.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

/// Cuts an id to the twelve digits that tables show.
pub fn short(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0B");
        check(999, "999B");
        check(1000, "1kB");
        check(2_065_517, "2.07MB");
        check(117_000_000, "117MB");
        check(72_900, "72.9kB");
        check(1_500_000_000, "1.5GB");
    }

    #[test]
    fn durations() {
        let check = |seconds: i64, expected: &str| assert_eq!(duration(seconds), expected);
        check(0, "Less than a second");
        check(1, "1 second");
        check(59, "59 seconds");
        check(60, "About a minute");
        check(120, "2 minutes");
        check(3600, "About an hour");
        check(7200, "2 hours");
        check(48 * 3600, "2 days");
        check(15 * 86400, "2 weeks");
        check(90 * 86400, "3 months");
        check(800 * 86400, "2 years");
    }

    #[test]
    fn tables() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["longer cell".to_owned(), "c".to_owned()]];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID            NAME\na             b\nlonger cell   c\n");
        assert_eq!(table(&["ID", "NAME"], &[]), "ID        NAME\n");
        let row = vec!["\u{1b}[2J\u{1b}[1;1Hid".to_owned(), "\u{9b}31m".to_owned()];
        assert_eq!(table(&["ID", "NAME"], &[row]), "ID               NAME\n^[[2J^[[1;1Hid   \\u009b31m\n");
        assert_eq!(ellipsis("\"echo hello world\"", 8), "\"echo h…");
    }
}
