//! Shell patterns inside `${x#p}`, `${x%p}` and `${x/p/r}`: `*`, `?` and escapes, no brackets.
//!
//! As in the reference builder, whose patterns become regular expressions, neither wildcard matches a
//! line feed.

use super::budget::{Allowance, BudgetExceeded};

/// Cost of one step through a pattern, in bytes copied.
const STEP: usize = 4;

/// A compiled pattern of a modifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Star,
    Any,
    Char(char),
}

/// A backslash before a character that it cannot escape, or at the end of the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid escape '\\{}'", .0.map_or_else(String::new, String::from))]
pub(super) struct InvalidEscape(Option<char>);

impl Pattern {
    /// Compiles `text`; fails for an invalid escape.
    pub(super) fn new(text: &str) -> Result<Pattern, InvalidEscape> {
        let mut parts = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            parts.push(match character {
                '*' => Part::Star,
                '?' => Part::Any,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Part::Char(escaped),
                    other => return Err(InvalidEscape(other)),
                },
                other => Part::Char(other),
            });
        }
        parts.dedup_by(|a, b| *a == Part::Star && *b == Part::Star);
        Ok(Pattern { parts })
    }

    /// End of the shortest or longest match that begins at the start of `value`; `None` without a match.
    pub(super) fn match_prefix(
        &self,
        value: &str,
        longest: bool,
        allowance: &mut Allowance,
    ) -> Result<Option<usize>, BudgetExceeded> {
        let characters: Vec<char> = value.chars().collect();
        let count = match_length(&self.parts, &characters, longest, allowance)?;
        Ok(count.map(|count| characters[..count].iter().map(|c| c.len_utf8()).sum()))
    }

    /// Start of the shortest or longest match that ends at the end of `value`; `None` without a match.
    pub(super) fn match_suffix(
        &self,
        value: &str,
        longest: bool,
        allowance: &mut Allowance,
    ) -> Result<Option<usize>, BudgetExceeded> {
        let characters: Vec<char> = value.chars().rev().collect();
        let parts: Vec<Part> = self.parts.iter().rev().copied().collect();
        let count = match_length(&parts, &characters, longest, allowance)?;
        let matched = |count: usize| characters[..count].iter().map(|c| c.len_utf8()).sum::<usize>();
        Ok(count.map(|count| value.len() - matched(count)))
    }

    /// Replaces the first or every match, each as long as possible. Matches do not overlap, and an empty match directly
    /// after another one does not count.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        allowance: &mut Allowance,
    ) -> Result<String, BudgetExceeded> {
        allowance.work(value.len())?;
        let characters: Vec<char> = value.chars().collect();
        let mut result = String::with_capacity(value.len());
        let mut at = 0;
        let mut after_match = false;
        while at <= characters.len() {
            let count = match_length(&self.parts, &characters[at..], true, allowance)?;
            match count {
                Some(count) if count > 0 || !after_match => {
                    allowance.grow(replacement.len())?;
                    result.push_str(replacement);
                    if !all {
                        let rest = &characters[at + count..];
                        allowance.grow(rest.iter().map(|character| character.len_utf8()).sum())?;
                        result.extend(rest);
                        return Ok(result);
                    }
                    at += count;
                    after_match = count > 0;
                    if count > 0 {
                        continue;
                    }
                }
                _ => {}
            }
            if let Some(character) = characters.get(at) {
                allowance.grow(character.len_utf8())?;
                result.push(*character);
            }
            after_match = false;
            at += 1;
        }
        Ok(result)
    }
}

/// Number of characters in the shortest or longest match at the start of `characters`.
///
/// Follows all paths through the pattern at once: the time is at worst the pattern's length times the text's length,
/// which is spent from the allowance.
fn match_length(
    parts: &[Part],
    characters: &[char],
    longest: bool,
    allowance: &mut Allowance,
) -> Result<Option<usize>, BudgetExceeded> {
    let mut active = vec![false; parts.len() + 1];
    active[0] = true;
    pass_stars(parts, &mut active);
    let mut found = active[parts.len()].then_some(0);
    for (index, character) in characters.iter().enumerate() {
        if found.is_some() && !longest || active.iter().all(|state| !state) {
            break;
        }
        allowance.work(STEP * (parts.len() + 1))?;
        let mut next = vec![false; parts.len() + 1];
        for (state, part) in parts.iter().enumerate().filter(|(state, _)| active[*state]) {
            match part {
                Part::Star if *character != '\n' => next[state] = true,
                Part::Any if *character != '\n' => next[state + 1] = true,
                Part::Char(expected) if expected == character => next[state + 1] = true,
                _ => {}
            }
        }
        pass_stars(parts, &mut next);
        active = next;
        if active[parts.len()] {
            found = Some(index + 1);
        }
    }
    Ok(found)
}

fn pass_stars(parts: &[Part], active: &mut [bool]) {
    for (state, part) in parts.iter().enumerate() {
        if active[state] && *part == Part::Star {
            active[state + 1] = true;
        }
    }
}
