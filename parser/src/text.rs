//! Text that was put together from pieces of the source and still knows where each piece came from.
//!
//! A Dockerfile instruction may be spread over continued lines with comments in between, and a quoted
//! flag loses its quotes. What the grammar then reads is not a slice of the file any more; `Text` keeps
//! a piecewise-linear map so that every diagnostic can still point at the exact word.

use crate::span::Span;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A string with a map from its bytes to bytes of the source.
///
/// Clones and slices share the characters: they cost no copy. Two texts are equal when their characters and their
/// places are.
#[derive(Clone)]
pub struct Text {
    base: Arc<Base>,
    start: u32,
    end: u32,
}

/// What texts are slices of.
struct Base {
    value: String,
    map: Map,
}

/// Where the bytes of a base stand in the source.
enum Map {
    /// Byte 0 stands there, and all others follow.
    Linear(u32),
    /// `(base, source)`: from byte `base` on, bytes stand at `source` and after.
    Pieces(Vec<(u32, u32)>),
}

impl Text {
    /// Text that stands in the source as it is, from byte `offset` on.
    pub fn verbatim(value: impl Into<String>, offset: usize) -> Text {
        Text::new(value.into(), Map::Linear(Span::at(offset).start))
    }

    fn new(value: String, map: Map) -> Text {
        let end = Span::at(value.len()).end;
        Text { base: Arc::new(Base { value, map }), start: 0, end }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.base.value[self.start as usize..self.end as usize]
    }

    /// The characters, forgetting where they came from.
    pub fn into_string(self) -> String {
        self.as_str().to_owned()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// True when there are no characters.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The source bytes of the whole text, gaps included.
    pub fn span(&self) -> Span {
        self.span_of(0..self.len())
    }

    /// The source bytes that the bytes `range` of this text came from, gaps included.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        if range.end <= range.start {
            return Span::at(start);
        }
        let last = range.end.min(self.len()).max(1) - 1;
        Span::new(start, self.source_offset(last) + 1)
    }

    /// The bytes `range` as a text of their own.
    pub fn slice(&self, range: Range<usize>) -> Text {
        let at = |offset: usize| self.start + Span::at(offset.min(self.len())).start;
        let (start, end) = (at(range.start), at(range.end));
        Text { base: Arc::clone(&self.base), start, end: end.max(start) }
    }

    /// Without white space at both ends.
    pub fn trim(&self) -> Text {
        let value = self.as_str();
        let start = value.len() - value.trim_start().len();
        self.slice(start..start + value.trim().len())
    }

    fn source_offset(&self, offset: usize) -> usize {
        let at = self.start + Span::at(offset).start;
        let source = match &self.base.map {
            Map::Linear(first) => first + at,
            Map::Pieces(pieces) => {
                let index = pieces.partition_point(|(start, _)| *start <= at).max(1) - 1;
                let (start, source) = pieces.get(index).copied().unwrap_or((0, 0));
                source + (at - start)
            }
        };
        source as usize
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str() && self.span() == other.span()
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.as_str(), self.span())
    }
}

/// Puts a [`Text`] together from pieces.
#[derive(Debug, Default)]
pub struct TextBuilder {
    value: String,
    pieces: Vec<(u32, u32)>,
}

impl TextBuilder {
    /// An empty builder.
    pub fn new() -> TextBuilder {
        TextBuilder::default()
    }

    /// Appends characters that stand at byte `offset` of the source.
    pub fn push(&mut self, piece: &str, offset: usize) {
        if piece.is_empty() {
            return;
        }
        let logical = Span::at(self.value.len()).start;
        let offset = Span::at(offset).start;
        let continues =
            self.pieces.last().is_some_and(|(start, source)| source + (logical - start) == offset);
        if !continues {
            self.pieces.push((logical, offset));
        }
        self.value.push_str(piece);
    }

    /// Appends bytes `range` of another text.
    pub fn push_text(&mut self, text: &Text, range: Range<usize>) {
        for (at, character) in text.as_str()[range.clone()].char_indices() {
            let mut buffer = [0; 4];
            self.push(character.encode_utf8(&mut buffer), text.source_offset(range.start + at));
        }
    }

    /// True when nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// The finished text; an empty one stands at `fallback`.
    pub fn finish(self, fallback: usize) -> Text {
        let map = match self.pieces.as_slice() {
            [] => Map::Linear(Span::at(fallback).start),
            [(0, source)] => Map::Linear(*source),
            _ => Map::Pieces(self.pieces),
        };
        Text::new(self.value, map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn continued() -> Text {
        let mut builder = TextBuilder::new();
        builder.push("RUN a ", 0);
        builder.push("  b", 8);
        builder.push(" c", 20);
        builder.finish(0)
    }

    #[test]
    fn spans_lead_back_to_the_source() {
        let text = continued();
        assert_eq!(text.as_str(), "RUN a   b c");
        assert_eq!(text.span_of(4..5), Span::new(4, 5));
        assert_eq!(text.span_of(8..9), Span::new(10, 11));
        assert_eq!(text.span_of(10..11), Span::new(21, 22));
        assert_eq!(text.span(), Span::new(0, 22));
    }

    #[test]
    fn slices_keep_their_places() {
        let text = continued();
        let tail = text.slice(8..11);
        assert_eq!(tail.as_str(), "b c");
        assert_eq!(tail.span_of(0..1), Span::new(10, 11));
        assert_eq!(tail.span_of(2..3), Span::new(21, 22));
        let head = text.slice(0..3);
        assert_eq!(head.span(), Span::new(0, 3));
        assert_eq!(text.slice(11..11).as_str(), "");
    }

    #[test]
    fn pushing_adjacent_pieces_makes_one_segment() {
        let mut builder = TextBuilder::new();
        builder.push("ab", 5);
        builder.push("cd", 7);
        assert_eq!(builder.finish(0), Text::verbatim("abcd", 5));
    }
}
