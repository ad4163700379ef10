//! `--annotation [TYPE[PLATFORM][,TYPE…]:]KEY=VALUE`.

use crate::error::CliError;
use kiln_builder::Annotations;
use kiln_image::platform::Platform;

/// Adds the annotation that `text` describes.
pub(super) fn add(annotations: &mut Annotations, text: &str) -> Result<(), CliError> {
    let invalid = |reason: &str| {
        CliError::failed(format!("invalid annotation {text:?}: {reason}"))
            .hint("write KEY=VALUE, manifest:KEY=VALUE, index:KEY=VALUE or manifest[linux/amd64]:KEY=VALUE")
    };
    let (head, value) = text.split_once('=').ok_or_else(|| invalid("expected key=value"))?;
    // Keys hold colons only behind a type.
    let (types, key) = match head.split_once(':') {
        Some((types, key)) => (types, key),
        None => ("manifest", head),
    };
    if key.is_empty() {
        return Err(invalid("the key is empty"));
    }
    for kind in types.split(',') {
        let (name, platform) = match kind.split_once('[') {
            Some((name, rest)) => {
                let inner = rest.strip_suffix(']').ok_or_else(|| invalid("a bracket is not closed"))?;
                let platform = inner.parse::<Platform>().map_err(|error| invalid(&error.to_string()))?;
                (name, Some(platform))
            }
            None => (kind, None),
        };
        let (key, value) = (key.to_owned(), value.to_owned());
        match (name.trim(), platform) {
            ("manifest", platform) => annotations.manifest.push((platform, key, value)),
            ("manifest-descriptor", platform) => {
                annotations.manifest_descriptor.push((platform, key, value));
            }
            ("index", None) => annotations.index.push((key, value)),
            ("index-descriptor", None) => annotations.index_descriptor.push((key, value)),
            (other, None) => return Err(invalid(&format!("unknown annotation type {other:?}"))),
            (other, Some(_)) => return Err(invalid(&format!("{other:?} takes no platform"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_platforms() {
        let mut found = Annotations::default();
        for text in ["a=b", "index,manifest:c=d=e", "manifest-descriptor[linux/arm64]:f="] {
            add(&mut found, text).unwrap();
        }
        assert_eq!(found.manifest.len(), 2);
        assert_eq!(found.index, [("c".to_owned(), "d=e".to_owned())]);
        assert_eq!(found.manifest_descriptor[0].0, "linux/arm64".parse().ok());
        for text in ["a", "x:a=b", "index[linux/amd64]:a=b", "manifest[linux:a=b", "=b"] {
            assert!(add(&mut Annotations::default(), text).is_err(), "{text}");
        }
    }
}
