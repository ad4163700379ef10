//! CMD, ENTRYPOINT, SHELL and HEALTHCHECK.

use super::{FlagSet, Rule, Takes, json, tokens};
use crate::ast::{CommandLine, Healthcheck, Kind};
use crate::diagnostic::Diagnostic;
use crate::text::Text;

/// Parses a command in shell or JSON form; empty arguments are an empty shell command.
pub(super) fn cmd(mut rule: Rule<'_, '_>) -> Option<CommandLine> {
    rule.no_flags()?;
    command_line(&mut rule)
}

pub(super) fn command_line(rule: &mut Rule<'_, '_>) -> Option<CommandLine> {
    Some(match rule.json()? {
        Some(strings) => CommandLine::Exec(strings),
        None => {
            warn_of_near_json(rule);
            CommandLine::Shell(rule.args.clone())
        }
    })
}

/// Warns of `['a']` and similar text: it is read as shell text, which is hardly ever intended.
fn warn_of_near_json(rule: &mut Rule<'_, '_>) {
    let text = rule.args.as_str();
    let near =
        text.starts_with('[') && text.ends_with(']') && !text.starts_with("[ ") && !text.starts_with("[[");
    if !near {
        return;
    }
    let hint = if text.contains('\'') && !text.contains('"') {
        "JSON strings take double quotes: write [\"program\", \"argument\"]"
    } else {
        "it is not valid JSON: check quotes, commas and backslashes"
    };
    let message = format!("this looks like the JSON form of {}, but runs as shell text", rule.keyword);
    let span = rule.args.span();
    rule.report(Diagnostic::warning("near-json", span, message).hint(hint));
}

/// Parses SHELL, which has the JSON form only.
pub(super) fn shell(mut rule: Rule<'_, '_>) -> Option<Kind> {
    rule.no_flags()?;
    if rule.args.is_empty() {
        return rule.need_one();
    }
    match rule.json()? {
        Some(strings) if strings.is_empty() => rule.need_one(),
        Some(strings) => Some(Kind::Shell(strings)),
        None => {
            let span = rule.args.span();
            let words: Vec<_> = rule.words().iter().map(|word| format!("{:?}", word.as_str())).collect();
            rule.report(
                Diagnostic::error("shell-not-json", span, "SHELL requires the arguments to be in JSON form")
                    .hint(format!("write SHELL [{}]", words.join(", "))),
            );
            None
        }
    }
}

const TIMING: [(&str, Takes); 5] = [
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];

/// Parses HEALTHCHECK `NONE` or `CMD …`.
pub(super) fn healthcheck(mut rule: Rule<'_, '_>) -> Option<Kind> {
    let text = rule.args.as_str();
    let Some(kind_end) = text.find(char::is_whitespace).or((!text.is_empty()).then_some(text.len())) else {
        return rule.need_one();
    };
    let kind = rule.args.slice(0..kind_end);
    rule.args = rule.args.slice(kind_end..text.len()).trim();
    match kind.as_str().to_ascii_uppercase().as_str() {
        "NONE" if has_no_words(&rule.args) => Some(Kind::Healthcheck(Healthcheck::None)),
        "NONE" => {
            rule.fail("healthcheck-none-arguments", rule.args.span(), "HEALTHCHECK NONE takes no arguments")
        }
        "CMD" => health_command(rule, &kind),
        other => {
            let message = format!("Unknown type \"{other}\" in HEALTHCHECK (try CMD)");
            rule.fail("healthcheck-type", kind.span(), message)
        }
    }
}

/// True for empty text and for a JSON array without strings.
fn has_no_words(args: &Text) -> bool {
    args.is_empty() || matches!(json::form(args), json::Form::Strings(words) if words.is_empty())
}

fn health_command(mut rule: Rule<'_, '_>, kind: &Text) -> Option<Kind> {
    let flags = rule.check_flags(&TIMING)?;
    let command = command_line(&mut rule)?;
    let empty = match &command {
        CommandLine::Shell(text) => text.is_empty(),
        CommandLine::Exec(words) => words.is_empty(),
    };
    if empty {
        return rule.fail("missing-argument", kind.span(), "Missing command after HEALTHCHECK CMD");
    }
    Some(Kind::Healthcheck(Healthcheck::Command {
        command,
        interval: duration(&mut rule, &flags, "interval")?,
        timeout: duration(&mut rule, &flags, "timeout")?,
        start_period: duration(&mut rule, &flags, "start-period")?,
        start_interval: duration(&mut rule, &flags, "start-interval")?,
        retries: retries(&mut rule, &flags)?,
    }))
}

fn duration(rule: &mut Rule<'_, '_>, flags: &FlagSet, name: &str) -> Option<i64> {
    const MILLISECOND: i64 = 1_000_000;
    let Some(value) = flags.value(name).filter(|value| !value.is_empty()) else { return Some(0) };
    match go_duration(value.as_str()) {
        Err(reason) => {
            let message = format!("time: {reason} duration {:?}", value.as_str());
            rule.report(
                Diagnostic::error("invalid-duration", value.span(), message)
                    .hint("write a number with a unit: 500ms, 30s, 5m, 1h30m"),
            );
            None
        }
        Ok(nanoseconds) if nanoseconds != 0 && nanoseconds < MILLISECOND => {
            let message = format!("Interval \"{name}\" cannot be less than 1ms");
            rule.fail("invalid-duration", value.span(), message)
        }
        Ok(nanoseconds) => Some(nanoseconds),
    }
}

fn retries(rule: &mut Rule<'_, '_>, flags: &FlagSet) -> Option<u32> {
    let Some(value) = flags.value("retries").filter(|value| !value.is_empty()) else { return Some(0) };
    match value.as_str().parse::<i32>() {
        Ok(count) if count < 0 => {
            let message = format!("--retries cannot be negative ({count})");
            rule.fail("invalid-retries", value.span(), message)
        }
        Ok(count) => u32::try_from(count).ok(),
        Err(_) => {
            let message = format!("--retries must be a whole number, not {:?}", value.as_str());
            rule.fail("invalid-retries", value.span(), message)
        }
    }
}

/// Parses a duration as Go's `time.ParseDuration`; the result is in nanoseconds.
fn go_duration(text: &str) -> Result<i64, &'static str> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total: f64 = 0.0;
    if rest.is_empty() {
        return Err("invalid");
    }
    while !rest.is_empty() {
        let Ok((after, (number, unit))) = tokens::duration_unit(rest) else {
            return Err("missing unit in");
        };
        let number: f64 = number.parse().map_err(|_| "invalid")?;
        total += number * unit_nanoseconds(unit).ok_or("unknown unit in")?;
        rest = after;
    }
    if total >= i64::MAX as f64 {
        return Err("invalid");
    }
    let total = total as i64;
    Ok(if negative { -total } else { total })
}

fn unit_nanoseconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_parsed() {
        assert_eq!(go_duration("1h2m3s"), Ok(3_723_000_000_000));
        assert_eq!(go_duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(go_duration(".5s"), Ok(500_000_000));
        assert_eq!(go_duration("-5ms"), Ok(-5_000_000));
        assert_eq!(go_duration("0"), Ok(0));
        assert_eq!(go_duration("10us"), Ok(10_000));
        for bad in ["", "5", "s", "5x", "1.s.", "+", "1e3s"] {
            assert!(go_duration(bad).is_err(), "{bad}");
        }
    }
}
