//! `--annotation`: annotations of manifests, of indexes, and of the descriptors that point to them.

use kiln_image::platform::{Platform, PlatformError};

/// Annotations by the object that carries them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Annotations of manifests: for one platform, or `None` for all.
    pub manifest: Vec<(Option<Platform>, String, String)>,
    /// Annotations of the descriptors of manifests in an index.
    pub manifest_descriptor: Vec<(Option<Platform>, String, String)>,
    /// Annotations of the index.
    pub index: Vec<(String, String)>,
    /// Annotations of the descriptor of the index.
    pub index_descriptor: Vec<(String, String)>,
}

/// A text that is not a valid annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid annotation {text:?}: {reason}")]
pub struct AnnotationError {
    text: String,
    reason: AnnotationFault,
}

/// Reason why a text is not a valid annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum AnnotationFault {
    #[error("expected key=value")]
    NoValue,
    #[error("the key is empty")]
    NoKey,
    #[error("a bracket is not closed")]
    Bracket,
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error("unknown annotation type {0:?}")]
    UnknownType(String),
    #[error("{0:?} takes no platform")]
    NoPlatform(String),
}

impl Annotations {
    /// Adds the annotation of a text `[TYPE[PLATFORM][,TYPE…]:]KEY=VALUE`, with the types manifest,
    /// manifest-descriptor, index and index-descriptor.
    ///
    /// # Errors
    /// Fails for a text of another form, and for a platform after a type that accepts none.
    pub fn add(&mut self, text: &str) -> Result<(), AnnotationError> {
        let invalid = |reason| AnnotationError { text: text.to_owned(), reason };
        let (head, value) = text.split_once('=').ok_or_else(|| invalid(AnnotationFault::NoValue))?;
        // Keys contain colons only after a type.
        let (types, key) = match head.split_once(':') {
            Some((types, key)) => (types, key),
            None => ("manifest", head),
        };
        if key.is_empty() {
            return Err(invalid(AnnotationFault::NoKey));
        }
        types.split(',').try_for_each(|kind| self.add_to(kind, key, value).map_err(invalid))
    }

    fn add_to(&mut self, kind: &str, key: &str, value: &str) -> Result<(), AnnotationFault> {
        let (name, platform) = match kind.split_once('[') {
            Some((name, rest)) => {
                let inner = rest.strip_suffix(']').ok_or(AnnotationFault::Bracket)?;
                (name, Some(inner.parse()?))
            }
            None => (kind, None),
        };
        let (key, value) = (key.to_owned(), value.to_owned());
        match (name.trim(), platform) {
            ("manifest", platform) => self.manifest.push((platform, key, value)),
            ("manifest-descriptor", platform) => self.manifest_descriptor.push((platform, key, value)),
            ("index", None) => self.index.push((key, value)),
            ("index-descriptor", None) => self.index_descriptor.push((key, value)),
            (other, None) => return Err(AnnotationFault::UnknownType(other.to_owned())),
            (other, Some(_)) => return Err(AnnotationFault::NoPlatform(other.to_owned())),
        }
        Ok(())
    }

    /// All keys and values, for the search for secrets.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let on_manifests = self.manifest.iter().chain(&self.manifest_descriptor);
        let on_manifests = on_manifests.map(|(_, name, value)| (name, value));
        let on_index = self.index.iter().chain(&self.index_descriptor).map(|(name, value)| (name, value));
        on_manifests.chain(on_index).flat_map(|(name, value)| [name.as_str(), value.as_str()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_platforms() {
        let mut found = Annotations::default();
        for text in ["a=b", "index,manifest:c=d=e", "manifest-descriptor[linux/arm64]:f="] {
            found.add(text).unwrap();
        }
        assert_eq!(found.manifest.len(), 2);
        assert_eq!(found.index, [("c".to_owned(), "d=e".to_owned())]);
        assert_eq!(found.manifest_descriptor[0].0, "linux/arm64".parse().ok());
        for text in ["a", "x:a=b", "index[linux/amd64]:a=b", "manifest[linux:a=b", "=b"] {
            assert!(Annotations::default().add(text).is_err(), "{text}");
        }
    }
}
