//! Heredoc words: the words of a line that announce a body, and their options.

use super::tokens;
use crate::expand::{self, NoVariables, Quotes, Rules};
use crate::span::Span;
use crate::text::Text;

/// A heredoc word without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) name: String,
    pub(crate) expand: bool,
    pub(crate) strip_tabs: bool,
    pub(crate) descriptor: u32,
}

/// Parses `word` as a heredoc marker such as `<<EOF` or `3<<-"EOF"`; `None` for other words.
pub(crate) fn marker(word: &str) -> Option<Marker> {
    let (_, (descriptor, strip_tabs, rest)) = tokens::heredoc_marker(word).ok()?;
    let unquoted = single_word(rest, Quotes::Remove)?;
    let quoted = single_word(rest, Quotes::Keep)?;
    let quotes = |text: &str| text.chars().filter(|c| matches!(c, '\'' | '"')).count();
    let expand = quotes(&unquoted) == quotes(&quoted);
    Some(Marker { name: unquoted, expand, strip_tabs, descriptor: descriptor.parse().unwrap_or(0) })
}

/// Markers of a whole logical line with their spans, in order.
pub(super) fn markers(line: &Text) -> Vec<(Marker, Span)> {
    if !line.as_str().contains("<<") {
        return Vec::new();
    }
    let rules = Rules { quotes: Quotes::Keep, keep_escapes: true, keep_unset: true, escape: '\\' };
    let Ok(words) = expand::expand_words(line.as_str(), &NoVariables, rules) else { return Vec::new() };
    let spanned = words.value.into_iter().filter_map(|word| {
        let end = (word.at + word.text.len()).min(line.as_str().len());
        Some((marker(&word.text)?, line.span_of(word.at..end)))
    });
    spanned.collect()
}

fn single_word(text: &str, quotes: Quotes) -> Option<String> {
    let rules = Rules { quotes, keep_escapes: false, keep_unset: true, escape: '\\' };
    let mut words = expand::expand_words(text, &NoVariables, rules).ok()?.value;
    let word = words.pop()?;
    words.is_empty().then_some(word.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<(&str, bool, bool, u32)>) {
        let found = marker(word);
        let shown = found.as_ref().map(|m| (m.name.as_str(), m.expand, m.strip_tabs, m.descriptor));
        assert_eq!(shown, expected, "{word}");
    }

    #[test]
    fn heredoc_words_are_recognised() {
        check("<<EOF", Some(("EOF", true, false, 0)));
        check("3<<-EOF", Some(("EOF", true, true, 3)));
        check("<<'EOF'", Some(("EOF", false, false, 0)));
        check("<<E\"O\"F", Some(("EOF", false, false, 0)));
        check("<< EOF", Some(("EOF", true, false, 0)));
        check("<<$EOF", Some(("$EOF", true, false, 0)));
        check("<<", None);
        check("<<-", None);
        check("<<EOF cat", None);
        check("a<<EOF", None);
        check("<<<EOF", None);
        check("<<'EOF", None);
    }
}
