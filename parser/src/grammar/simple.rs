//! Instructions whose arguments are one value or a plain list.

use super::Rule;
use crate::ast::Kind;
use crate::diagnostic::Diagnostic;
use crate::text::Text;

/// Parses the rest of the line as one value: MAINTAINER, USER, WORKDIR.
pub(super) fn one(mut rule: Rule<'_, '_>) -> Option<Text> {
    rule.no_flags()?;
    if rule.args.is_empty() {
        let message = format!("{} requires exactly one argument", rule.keyword);
        return rule.fail("missing-argument", rule.keyword_span(), message);
    }
    Some(rule.args)
}

/// Parses STOPSIGNAL; the reference builder ignores its flags.
pub(super) fn stopsignal(mut rule: Rule<'_, '_>) -> Option<Kind> {
    rule.flags.clear();
    one(rule).map(Kind::Stopsignal)
}

/// Parses EXPOSE; ports are parsed after expansion.
pub(super) fn expose(mut rule: Rule<'_, '_>) -> Option<Kind> {
    rule.no_flags()?;
    let ports = rule.words();
    if ports.is_empty() {
        return rule.need_one();
    }
    Some(Kind::Expose(ports))
}

/// Parses VOLUME, as JSON or as words.
pub(super) fn volume(mut rule: Rule<'_, '_>) -> Option<Kind> {
    rule.no_flags()?;
    let volumes = match rule.json()? {
        Some(strings) => strings.iter().map(Text::trim).collect(),
        None => rule.words(),
    };
    if volumes.is_empty() {
        return rule.need_one();
    }
    if let Some(empty) = volumes.iter().find(|volume| volume.is_empty()) {
        let message = "VOLUME specified can not be an empty string";
        rule.report(Diagnostic::error("empty-volume", empty.span(), message));
        return None;
    }
    Some(Kind::Volume(volumes))
}
