//! `--filter` of commands on images, as the reference reads it.

use crate::conditions;
use crate::error::CliError;
use kiln_engine::Container;
use kiln_image::reference::Reference;
use kiln_image::store::{ImageRecord, Store};
use std::collections::BTreeMap;
use std::time::Duration;

/// Conditions that the images of a command must meet.
#[derive(Debug, Default)]
pub struct Filter {
    dangling: Option<bool>,
    /// Created before or after this image.
    before: Option<String>,
    since: Option<String>,
    /// Seconds since 1970.
    until: Option<i64>,
    labels: Vec<(String, Option<String>)>,
    other_labels: Vec<(String, Option<String>)>,
    references: Vec<String>,
}

/// Keys that `images` accepts.
pub const OF_LIST: &[&str] = &["dangling", "before", "since", "until", "label", "reference"];

/// Keys that `image prune` accepts.
pub const OF_PRUNE: &[&str] = &["dangling", "until", "label", "label!"];

/// Keys that commands accept that remove containers.
pub const OF_CONTAINERS: &[&str] = &["until", "label", "label!"];

impl Filter {
    /// Reads `KEY=VALUE` texts with keys that the command knows.
    ///
    /// # Errors
    ///
    /// Fails for other keys and for invalid values.
    pub fn read(texts: &[String], keys: &[&'static str]) -> Result<Filter, CliError> {
        let mut filter = Filter::default();
        for (key, value) in conditions::read(texts, keys)? {
            filter.set(key, value)?;
        }
        Ok(filter)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), CliError> {
        match key {
            "dangling" => {
                let new = switch("dangling", value)?;
                if self.dangling.is_some_and(|known| known != new) {
                    return Err(CliError::failed("invalid filter 'dangling': it is both true and false"));
                }
                self.dangling = Some(new);
            }
            "before" => self.before = Some(value.to_owned()),
            "since" => self.since = Some(value.to_owned()),
            "until" => {
                let until = moment(value, jiff::Timestamp::now().as_second());
                self.until = Some(until.ok_or_else(|| {
                    CliError::failed(format!("failed to parse value as time or duration: {value:?}"))
                        .hint("write a time such as 2026-01-31T12:00:00, or an age such as 24h")
                })?);
            }
            "label" => self.labels.push(label(value)),
            "label!" => self.other_labels.push(label(value)),
            _ => self.references.push(value.to_owned()),
        }
        Ok(())
    }

    /// Value of `dangling`; `None` when it is not among the filters.
    pub fn dangling(&self) -> Option<bool> {
        self.dangling
    }

    /// True when there are `reference` filters.
    pub fn has_references(&self) -> bool {
        !self.references.is_empty()
    }

    /// True for a name that one of the patterns matches; without patterns, for all.
    pub fn takes_name(&self, name: &Reference) -> bool {
        let texts = [name.familiar(), name.familiar_repository()];
        let is_match = |pattern: &String| texts.iter().any(|text| matches(pattern, text));
        self.references.is_empty() || self.references.iter().any(is_match)
    }

    /// Images that meet all filters but `reference` and `dangling`, in their order.
    pub fn take(&self, store: &Store, images: Vec<ImageRecord>) -> Result<Vec<ImageRecord>, CliError> {
        let created = |name: &Option<String>| match name {
            Some(name) => Ok::<_, CliError>(Some(seconds(&store.resolve(name)?.created))),
            None => Ok(None),
        };
        let (before, since) = (created(&self.before)?, created(&self.since)?);
        let mut taken = Vec::new();
        for image in images {
            let time = seconds(&image.created);
            let is_in_time = before.is_none_or(|before| time < before)
                && since.is_none_or(|since| time > since)
                && self.until.is_none_or(|until| time.is_some_and(|time| time.as_second() < until));
            if is_in_time && self.takes_labels_of(store, &image)? {
                taken.push(image);
            }
        }
        Ok(taken)
    }

    /// True for labels that meet the filter `label`.
    pub fn takes_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|wanted| has_label(labels, wanted))
            && !self.other_labels.iter().any(|other| has_label(labels, other))
    }

    /// True when there is a filter `until`.
    pub fn has_until(&self) -> bool {
        self.until.is_some()
    }

    /// True for a container that meets the filters `until` and `label`.
    pub fn takes_container(&self, container: &Container) -> bool {
        self.takes_one(&container.created, &container.settings.labels)
    }

    /// True for an object that meets the filters `until` and `label`.
    pub fn takes_one(&self, created: &str, labels: &BTreeMap<String, String>) -> bool {
        let created = seconds(created);
        self.until.is_none_or(|until| created.is_some_and(|time| time.as_second() < until))
            && self.takes_labels(labels)
    }

    fn takes_labels_of(&self, store: &Store, image: &ImageRecord) -> Result<bool, CliError> {
        if self.labels.is_empty() && self.other_labels.is_empty() {
            return Ok(true);
        }
        let config = store.read_image(image.clone())?.config;
        Ok(self.takes_labels(&config.config.labels))
    }
}

/// Reads a condition that is true or false.
///
/// # Errors
///
/// Fails for other values.
pub fn switch(key: &str, value: &str) -> Result<bool, CliError> {
    match value.to_lowercase().as_str() {
        "true" | "1" | "t" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => Err(CliError::failed(format!("invalid filter '{key}={value}'"))
            .hint(format!("write {key}=true or {key}=false"))),
    }
}

/// Name and value of a condition on labels; `None` for any value.
pub fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// True when there is a wanted label.
pub fn has_label(labels: &BTreeMap<String, String>, (name, value): &(String, Option<String>)) -> bool {
    let found = labels.get(name);
    found.is_some_and(|found| value.as_ref().is_none_or(|value| found == value))
}

fn seconds(time: &str) -> Option<jiff::Timestamp> {
    time.parse().ok()
}

/// Seconds since 1970 of a time or of a duration before now (Docker's `GetTimestamp`, in UTC).
fn moment(text: &str, now: i64) -> Option<i64> {
    if let Some(age) = duration(text) {
        return now.checked_sub(i64::try_from(age.as_secs()).ok()?);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_second());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if let (Ok(seconds), Ok(_)) = (whole.parse::<i64>(), fraction.parse::<u32>()) {
        return Some(seconds);
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// A duration as Go writes it: `1h30m`, `1.5h`, `90s`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &after[..length])?;
        seconds += number * factor;
        rest = &after[length..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

/// Whether a shell pattern matches a whole name; `*`, `?` and `[…]` match no `/` (Go's `path.Match`).
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    matches_from(&pattern, &name)
}

fn matches_from(pattern: &[char], name: &[char]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => {
            let longest = name.iter().position(|c| *c == '/').unwrap_or(name.len());
            (0..=longest).any(|length| matches_from(rest, &name[length..]))
        }
        Some((first, rest)) => {
            let Some((character, others)) = name.split_first() else { return false };
            match first {
                '?' => *character != '/' && matches_from(rest, others),
                '[' => match class(rest, *character) {
                    Some((is_in, rest)) => is_in && *character != '/' && matches_from(rest, others),
                    None => false,
                },
                '\\' => rest.first() == Some(character) && matches_from(&rest[1..], others),
                literal => literal == character && matches_from(rest, others),
            }
        }
    }
}

/// Whether a character is in the class whose text follows `[`, and what follows the class.
fn class(pattern: &[char], character: char) -> Option<(bool, &[char])> {
    let is_negated = pattern.first() == Some(&'^');
    let mut at = usize::from(is_negated);
    let mut is_in = false;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' && at > usize::from(is_negated) {
            return Some((is_in != is_negated, &pattern[at + 1..]));
        }
        let high = match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                at += 2;
                *high
            }
            _ => low,
        };
        is_in |= (low..=high).contains(&character);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_shells() {
        for (pattern, name, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("b?sybox:*", "busybox:1", true),
            ("b[a-u]sy", "busy", true),
            ("b[^u]sy", "busy", false),
            ("b[u", "bu", false),
            ("a\\*", "a*", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn times_and_ages() {
        for (text, expected) in [
            ("1h", Some(6400)),
            ("1h30m", Some(4600)),
            ("1.5h", Some(4600)),
            ("100", Some(100)),
            ("100.5", Some(100)),
            ("1970-01-01T00:01:00Z", Some(60)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1970-01-01T00:01:00", Some(60)),
            ("1970-01-02", Some(86400)),
            ("xx", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(moment(text, 10_000), expected, "{text}");
        }
    }

    #[test]
    fn keys_and_values_are_checked() {
        let read = |text: &str, keys| Filter::read(&[text.to_owned()], keys);
        assert_eq!(read("dangling=TRUE", OF_LIST).unwrap().dangling(), Some(true));
        assert!(read("label=a=b", OF_LIST).is_ok() && read("label!=a", OF_PRUNE).is_ok());
        assert!(read("", OF_LIST).is_ok());
        assert!(matches!(read("dangling", OF_LIST), Err(CliError::Flags(..))));
        for wrong in ["label!=a", "dangling=maybe", "nosuch=1", "until=xx"] {
            assert!(matches!(read(wrong, OF_LIST), Err(CliError::Failed { .. })), "{wrong}");
        }
        let both = ["dangling=true".to_owned(), "dangling=0".to_owned()];
        assert!(Filter::read(&both, OF_LIST).is_err());
    }
}
