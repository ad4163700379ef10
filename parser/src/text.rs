//! Text joined from pieces of the source, with a map back to the source.
//!
//! A Dockerfile instruction may be spread over continued lines with comments in between, and a quoted flag loses its
//! quotes. The text that the grammar reads is then no longer a slice of the file; `Text` keeps a piecewise-linear map
//! so that every diagnostic can still point at the exact word.

use crate::span::Span;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A string with a map from its bytes to bytes of the source.
///
/// Clones and slices share the characters and copy nothing. Two texts are equal when their characters and their spans
/// are.
#[derive(Clone)]
pub struct Text {
    base: Arc<Base>,
    start: u32,
    end: u32,
}

/// The shared characters that texts are slices of.
struct Base {
    value: String,
    map: Map,
}

/// Map from the bytes of a base to offsets in the source.
enum Map {
    /// Offset of byte 0; all others follow it.
    Linear(u32),
    /// Pairs `(base, source)`: bytes from `base` on are at `source` and after.
    Pieces(Vec<(u32, u32)>),
}

impl Text {
    /// Text that is contiguous in the source, from byte `offset` on.
    pub fn verbatim(value: impl Into<String>, offset: usize) -> Text {
        Text::new(value.into(), Map::Linear(Span::at(offset).start))
    }

    fn new(value: String, map: Map) -> Text {
        let end = Span::at(value.len()).end;
        Text { base: Arc::new(Base { value, map }), start: 0, end }
    }

    /// Characters of the text.
    pub fn as_str(&self) -> &str {
        &self.base.value[self.start as usize..self.end as usize]
    }

    /// Characters of the text as an owned string, without the map.
    pub fn into_string(self) -> String {
        self.as_str().to_owned()
    }

    /// Length of the text in bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// True when there are no characters.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Span of the whole text in the source, gaps included.
    pub fn span(&self) -> Span {
        self.span_of(0..self.len())
    }

    /// Span in the source of the bytes `range` of this text, gaps included.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        if range.end <= range.start {
            return Span::at(start);
        }
        let last = range.end.min(self.len()).max(1) - 1;
        Span::new(start, self.source_offset(last) + 1)
    }

    /// Slice of the bytes `range`.
    pub fn slice(&self, range: Range<usize>) -> Text {
        let at = |offset: usize| self.start + Span::at(offset.min(self.len())).start;
        let (start, end) = (at(range.start), at(range.end));
        Text { base: Arc::clone(&self.base), start, end: end.max(start) }
    }

    /// Slice without white space at both ends.
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

/// Builder of a [`Text`] from pieces.
#[derive(Debug, Default)]
pub struct TextBuilder {
    value: String,
    pieces: Vec<(u32, u32)>,
}

impl TextBuilder {
    /// Creates an empty builder.
    pub fn new() -> TextBuilder {
        TextBuilder::default()
    }

    /// Appends characters that are at byte `offset` of the source.
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

    /// Appends the bytes `range` of another text.
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

    /// Finished text; an empty one is at offset `fallback`.
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
    fn spans_refer_to_the_source() {
        let text = continued();
        assert_eq!(text.as_str(), "RUN a   b c");
        assert_eq!(text.span_of(4..5), Span::new(4, 5));
        assert_eq!(text.span_of(8..9), Span::new(10, 11));
        assert_eq!(text.span_of(10..11), Span::new(21, 22));
        assert_eq!(text.span(), Span::new(0, 22));
    }

    #[test]
    fn slices_keep_their_spans() {
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
