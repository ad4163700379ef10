//! Text that was put together from pieces of the source and still knows where each piece came from.
//!
//! A Dockerfile instruction may be spread over continued lines with comments in between, and a quoted
//! flag loses its quotes. What the grammar then reads is not a slice of the file any more; `Text` keeps
//! a piecewise-linear map so that every diagnostic can still point at the exact word.

use crate::span::Span;
use std::ops::Range;

/// A string with a map from its bytes to bytes of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    value: String,
    map: Map,
}

/// Segment `(logical, source)`: from byte `logical` of the value on, bytes stand at `source` and after.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Map {
    Linear(u32),
    Pieces(Vec<(u32, u32)>),
}

impl Text {
    /// Text that stands in the source as it is, from byte `offset` on.
    pub fn verbatim(value: impl Into<String>, offset: usize) -> Text {
        Text { value: value.into(), map: Map::Linear(Span::at(offset).start) }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// Takes the characters, forgetting where they came from.
    pub fn into_string(self) -> String {
        self.value
    }

    /// True when there are no characters.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// The source bytes of the whole text, gaps included.
    pub fn span(&self) -> Span {
        self.span_of(0..self.value.len())
    }

    /// The source bytes that the bytes `range` of this text came from, gaps included.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        if range.end <= range.start {
            return Span::at(start);
        }
        let last = range.end.min(self.value.len()).max(1) - 1;
        Span::new(start, self.source_offset(last) + 1)
    }

    /// The bytes `range` as a text of their own.
    pub fn slice(&self, range: Range<usize>) -> Text {
        let value = self.value[range.clone()].to_owned();
        let map = match &self.map {
            Map::Linear(offset) => Map::Linear(offset + Span::at(range.start).start),
            Map::Pieces(pieces) => {
                let first =
                    pieces.partition_point(|(logical, _)| *logical as usize <= range.start).max(1) - 1;
                let last = pieces.partition_point(|(logical, _)| (*logical as usize) < range.end);
                let from = Span::at(range.start).start;
                let shifted = pieces[first..last.max(first + 1)].iter().map(|(logical, source)| {
                    if *logical < from { (0, source + (from - logical)) } else { (logical - from, *source) }
                });
                let mut shifted: Vec<_> = shifted.collect();
                match shifted.as_mut_slice() {
                    [(0, source)] => Map::Linear(*source),
                    _ => Map::Pieces(shifted),
                }
            }
        };
        Text { value, map }
    }

    /// Without white space at both ends.
    pub fn trim(&self) -> Text {
        let start = self.value.len() - self.value.trim_start().len();
        let end = start + self.value.trim().len();
        self.slice(start..end)
    }

    fn source_offset(&self, logical: usize) -> usize {
        let logical = Span::at(logical).start;
        let source = match &self.map {
            Map::Linear(offset) => offset + logical,
            Map::Pieces(pieces) => {
                let index = pieces.partition_point(|(start, _)| *start <= logical).max(1) - 1;
                let (start, source) = pieces.get(index).copied().unwrap_or((0, 0));
                source + (logical - start)
            }
        };
        source as usize
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
        for (at, character) in text.value[range.clone()].char_indices() {
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
        Text { value: self.value, map }
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
