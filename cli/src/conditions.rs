//! `--filter KEY=VALUE`, for all commands that have it.

use crate::error::CliError;
use std::collections::BTreeMap;

/// Reads conditions; empty texts are none. Returns pairs of a key, in lower case, and its value.
///
/// # Errors
/// Fails for texts without `=`, and for keys that are not among `keys`.
pub fn read<'a>(
    texts: &'a [String],
    keys: &[&'static str],
) -> Result<Vec<(&'static str, &'a str)>, CliError> {
    let texts = texts.iter().filter(|text| !text.is_empty());
    texts.map(|text| read_one(text, keys)).collect()
}

fn read_one<'a>(text: &'a str, keys: &[&'static str]) -> Result<(&'static str, &'a str), CliError> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(CliError::Flags(
            format!("invalid argument {text:?} for --filter: expected KEY=VALUE"),
            vec![format!("keys: {}", keys.join(", "))],
        ));
    };
    // In `label!=x` the `!` belongs to the key.
    let key = key.trim().to_lowercase();
    match keys.iter().find(|known| **known == key) {
        Some(known) => Ok((known, value.trim())),
        None => {
            Err(CliError::failed(format!("invalid filter '{key}'"))
                .hint(format!("one of {}", keys.join(", "))))
        }
    }
}

/// Conditions by their keys: values of one key are alternatives, conditions of different keys must all hold.
#[derive(Debug, Default)]
pub struct Conditions(BTreeMap<&'static str, Vec<String>>);

impl Conditions {
    /// Groups conditions by their keys.
    pub fn of(pairs: &[(&'static str, &str)]) -> Conditions {
        let mut conditions = Conditions::default();
        for (key, value) in pairs {
            conditions.0.entry(key).or_default().push((*value).to_owned());
        }
        conditions
    }

    /// True when one of a key's values holds, or it has none.
    pub fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| holds(value))
    }

    /// Values of a key; empty when there is no condition with it.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Keys of all conditions.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}
