//! Source file: its bytes, and the text that the grammar reads.

use crate::span::{LineIndex, Position, Span};
use crate::text::Text;

/// A named text with its line index.
///
/// The grammar works on characters. Bytes that are not UTF-8 are replaced with `\u{1a}`, one for one, so that offsets
/// stay those of the file; [`Source::bytes`] always returns the file unchanged.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: Text,
    original: Option<Vec<u8>>,
    index: LineIndex,
}

impl Source {
    /// Creates a source from a file's bytes and the name that messages show.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Source {
        let (text, original) = match String::from_utf8(bytes.into()) {
            Ok(text) => (text, None),
            Err(error) => {
                let bytes = error.into_bytes();
                (substitute_invalid(&bytes), Some(bytes))
            }
        };
        let index = LineIndex::new(&text);
        Source { name: name.into(), text: Text::verbatim(text, 0), original, index }
    }

    /// Name of the file for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Text with invalid bytes replaced.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// The whole file as a text whose slices have spans.
    pub(crate) fn whole(&self) -> Text {
        self.text.clone()
    }

    /// Original bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.original.as_deref().unwrap_or(self.text().as_bytes())
    }

    /// Offset of the first byte that is not UTF-8; `None` when all are.
    pub fn first_invalid(&self) -> Option<usize> {
        let original = self.original.as_ref()?;
        std::str::from_utf8(original).err().map(|error| error.valid_up_to())
    }

    /// Characters of the text in `span`.
    pub fn slice(&self, span: Span) -> &str {
        self.text().get(span.range()).unwrap_or_default()
    }

    /// Line and column of a byte offset.
    pub fn position(&self, offset: usize) -> Position {
        self.index.position(self.text(), offset)
    }

    /// Line index of the text.
    pub fn lines(&self) -> &LineIndex {
        &self.index
    }
}

fn substitute_invalid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{1a}'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_bytes_keep_offsets_and_are_restored() {
        let source = Source::new("Dockerfile", b"FROM a\xff\xfeb\n".to_vec());
        assert_eq!(source.text(), "FROM a\u{1a}\u{1a}b\n");
        assert_eq!(source.bytes(), b"FROM a\xff\xfeb\n");
        assert_eq!(source.first_invalid(), Some(6));
    }
}
