//! Grammar of FROM.

use super::{Rule, Takes};
use crate::ast::{From, Kind};
use crate::diagnostic::Diagnostic;
use crate::text::Text;

/// Parses `FROM [--platform=P] IMAGE [AS NAME]`.
pub(super) fn from(mut rule: Rule<'_, '_>) -> Option<Kind> {
    let words = rule.words();
    let (image, naming) = match words.as_slice() {
        [image] => (image, None),
        [image, keyword, name] if keyword.as_str().to_uppercase() == "AS" => (image, Some((keyword, name))),
        _ => return wrong_count(rule, &words),
    };
    if let Some((_, name)) = naming
        && !is_stage_name(&name.as_str().to_lowercase())
    {
        let message = format!(
            "invalid name for build stage: \"{}\", name can't start with a number or contain symbols",
            name.as_str()
        );
        return rule.fail("invalid-stage-name", name.span(), message);
    }
    let flags = rule.check_flags(&[("platform", Takes::Value)])?;
    Some(Kind::From(From {
        image: image.clone(),
        as_keyword: naming.map(|(keyword, _)| keyword.clone()),
        name: naming.map(|(_, name)| name.clone()),
        platform: flags.value("platform").filter(|platform| !platform.is_empty()),
    }))
}

fn wrong_count<T>(mut rule: Rule<'_, '_>, words: &[Text]) -> Option<T> {
    let span = words.get(1).map_or(rule.keyword_span(), |extra| extra.span().cover(rule.args.span()));
    let hint = match words {
        [] => "name an image, an earlier stage, or `scratch`",
        [_, keyword] if keyword.as_str().eq_ignore_ascii_case("as") => "give the stage a name after AS",
        [_, _] => "to name the stage, write FROM image AS name",
        [_, _, comment, ..] if comment.as_str().starts_with('#') => "put the comment on a separate line",
        _ => "write FROM image, or FROM image AS name",
    };
    rule.report(
        Diagnostic::error("from-arguments", span, "FROM requires either one or three arguments").hint(hint),
    );
    None
}

/// True for names that match `^[a-z][a-z0-9-_.]*$`.
fn is_stage_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_lowercase())
        && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}
