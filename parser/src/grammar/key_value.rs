//! Grammar of ENV, LABEL and ARG: `key=value` words.

use super::{Rule, tokens};
use crate::ast::{ArgItem, KeyValue, KeyValues, Kind};
use crate::diagnostic::Diagnostic;
use crate::text::Text;

/// Parses ENV and LABEL, in the form `k=v …` or the old form `k rest of the line`.
pub(super) fn pairs(mut rule: Rule<'_, '_>) -> Option<KeyValues> {
    rule.no_flags()?;
    let words = quoted_words(&rule);
    let Some(first) = words.first() else { return rule.need_one() };
    if !first.as_str().contains('=') {
        return legacy(rule);
    }
    let mut pairs = Vec::new();
    let mut good = true;
    for word in &words {
        match pair(word) {
            Some(pair) if pair.key.is_empty() => {
                let message = format!("{} names can not be blank", rule.keyword);
                rule.report(Diagnostic::error("blank-name", word.span(), message));
                good = false;
            }
            Some(pair) => pairs.push(pair),
            None => {
                let message = format!(
                    "Syntax error - can't find = in {:?}. Must be of the form: name=value",
                    word.as_str()
                );
                rule.report(
                    Diagnostic::error("missing-equals", word.span(), message)
                        .hint("put a value that holds blanks in double quotes"),
                );
                good = false;
            }
        }
    }
    good.then_some(KeyValues { pairs, legacy: false })
}

fn legacy(mut rule: Rule<'_, '_>) -> Option<KeyValues> {
    let text = rule.args.as_str();
    let (rest, key) = tokens::keyword(text).unwrap_or(("", text));
    if rest.is_empty() {
        let message = format!("{} must have two arguments", rule.keyword);
        return rule.fail("two-arguments", rule.args.span(), message);
    }
    let key = rule.args.slice(tokens::range_in(text, key));
    let value = rule.args.slice(tokens::range_in(text, rest));
    Some(KeyValues { pairs: vec![KeyValue { key, value }], legacy: true })
}

/// Parses ARG; the reference builder ignores its flags.
pub(super) fn arg(mut rule: Rule<'_, '_>) -> Option<Kind> {
    let words = quoted_words(&rule);
    if words.is_empty() {
        return rule.need_one();
    }
    let mut items = Vec::new();
    for word in words {
        match pair(&word) {
            Some(pair) if pair.key.is_empty() => {
                return rule.fail("blank-name", word.span(), "ARG names can not be blank");
            }
            Some(pair) => items.push(ArgItem { key: pair.key, value: Some(pair.value) }),
            None => items.push(ArgItem { key: word, value: None }),
        }
    }
    Some(Kind::Arg(items))
}

fn pair(word: &Text) -> Option<KeyValue> {
    let text = word.as_str();
    let equals = text.find('=')?;
    Some(KeyValue { key: word.slice(0..equals), value: word.slice(equals + 1..text.len()) })
}

/// Arguments split at white space outside quotes.
fn quoted_words(rule: &Rule<'_, '_>) -> Vec<Text> {
    let text = rule.args.as_str();
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        match tokens::word(rule.context.escape)(rest) {
            Ok((after, word)) => {
                words.push(rule.args.slice(tokens::range_in(text, word)));
                rest = after;
            }
            Err(_) => return words,
        }
    }
}
