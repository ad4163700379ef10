//! Image references as Docker parses them: `[host[:port]/]path[:tag][@digest]`.
//!
//! Rules: distribution/reference `reference.go` and `normalize.go`. References are parsed once and printed in full;
//! they are shortened for display only.

use crate::digest::Digest;
use std::fmt;
use std::str::FromStr;

const DEFAULT_HOST: &str = "docker.io";
const LEGACY_HOST: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest repository name, host included.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
/// Algorithm names at the start of digests.
const DIGEST_ALGORITHMS: [&str; 3] = ["sha256", "sha384", "sha512"];

/// A repository with a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The repository name contains upper case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// The repository name has more than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The text is an image id: 64 hexadecimal digits.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    ImageId(String),
    /// The repository has the name of a digest algorithm, or the form of an image id: such a reference would be taken
    /// for an id.
    #[error(
        "refusing the ambiguous name `{0}`: a digest algorithm or an image id cannot be the name of a repository"
    )]
    Ambiguous(String),
    /// The text violates the grammar of references.
    #[error("invalid reference format")]
    Format,
}

impl Reference {
    /// Host of the registry, `docker.io` by default.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Repository in the registry, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tag; `None` when the reference has none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest; `None` when the reference has none.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and path, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// Repository as users write it: without the default host and `library/`.
    pub fn familiar_repository(&self) -> String {
        if self.host != DEFAULT_HOST {
            return self.repository();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Whole reference as users write it.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_repository();
        self.push_suffix(&mut text);
        text
    }

    /// Reference with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Reference to another tag of the repository, without a digest.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Reference {
        Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// Reference with a digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// Version to request from a registry: the digest if there is one, else the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.repository();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if is_id(text) {
            return Err(ReferenceError::ImageId(text.to_owned()));
        }
        let (host, rest) = split_host(text);
        let name_end = rest.find([':', '@']).unwrap_or(rest.len());
        let (path, suffix) = rest.split_at(name_end);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(path.to_owned()));
        }
        let host = host.ok_or(ReferenceError::Format)?;
        let path = match path.contains('/') {
            false if host == DEFAULT_HOST => format!("{OFFICIAL}{path}"),
            _ => path.to_owned(),
        };
        if !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Format);
        }
        if host.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        let (tag, digest) = split_suffix(suffix)?;
        let reference = Reference { host, path, tag, digest };
        // Docker parses such names, and refuses to tag images with them.
        let name = reference.familiar_repository();
        if DIGEST_ALGORITHMS.contains(&name.as_str()) || is_id(&name) {
            return Err(ReferenceError::Ambiguous(text.to_owned()));
        }
        Ok(reference)
    }
}

/// True for the digits of a complete image id.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Splits off the host, if the first component can only be one; `None` when it looks like one but is invalid.
fn split_host(text: &str) -> (Option<String>, &str) {
    let default = || Some(DEFAULT_HOST.to_owned());
    let Some((first, rest)) = text.split_once('/') else { return (default(), text) };
    let has_upper = first.chars().any(|c| c.is_ascii_uppercase());
    if !first.contains(['.', ':']) && first != "localhost" && !has_upper {
        return (default(), text);
    }
    match first {
        DEFAULT_HOST | LEGACY_HOST => (default(), rest),
        host if is_host(host) => (Some(host.to_owned()), rest),
        _ => (None, rest),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => {
            let valid = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            if !valid {
                return false;
            }
            (None, after.strip_prefix(':').or((!after.is_empty()).then_some("")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    let valid_port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    valid_port && name.is_none_or(|name| name.split('.').all(is_host_label))
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// True for components of the form `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = component.split(alphanumeric).filter(|separator| !separator.is_empty());
    component.starts_with(alphanumeric)
        && component.ends_with(alphanumeric)
        && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn split_suffix(suffix: &str) -> Result<(Option<String>, Option<Digest>), ReferenceError> {
    let (before, digest) = match suffix.split_once('@') {
        Some((before, digest)) => (before, Some(digest.parse().map_err(|_| ReferenceError::Format)?)),
        None => (suffix, None),
    };
    let tag = match before.strip_prefix(':') {
        Some(tag) if is_tag(tag) => Some(tag.to_owned()),
        Some(_) => return Err(ReferenceError::Format),
        None => None,
    };
    Ok((tag, digest))
}

/// True for tags of the form `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
pub fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, full: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (reference.to_string().as_str(), reference.familiar().as_str()),
            (full, familiar),
            "{text}"
        );
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }

    #[test]
    fn names_are_completed_and_shortened() {
        check("busybox", "docker.io/library/busybox", "busybox");
        check("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36");
        check("a/b", "docker.io/a/b", "a/b");
        check("index.docker.io/library/x", "docker.io/library/x", "x");
        check("docker.io/a", "docker.io/library/a", "a");
        check("localhost/a:b", "localhost/a:b", "localhost/a:b");
        check("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c");
        check("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a");
        check("LOCALHOST/x", "LOCALHOST/x", "LOCALHOST/x");
        check("Foo/bar", "Foo/bar", "Foo/bar");
        check("a__b/c--d/e.f:G_1", "docker.io/a__b/c--d/e.f:G_1", "a__b/c--d/e.f:G_1");
        check(&format!("x:1@{DIGEST}"), &format!("docker.io/library/x:1@{DIGEST}"), &format!("x:1@{DIGEST}"));
    }

    #[test]
    fn malformed_references_are_refused() {
        use ReferenceError::{Format, ImageId, TooLong, UpperCase};
        let check =
            |text: &str, error: ReferenceError| assert_eq!(text.parse::<Reference>(), Err(error), "{text}");
        check("Busybox", UpperCase("Busybox".into()));
        check("a/B", UpperCase("a/B".into()));
        check(&"a1".repeat(32), ImageId("a1".repeat(32)));
        check(&vec!["ab"; 90].join("/"), TooLong);
        for text in [
            "",
            ":tag",
            "a:",
            "a//b",
            "-a",
            "a_-b",
            "a...b",
            "a@sha256:12",
            "a:b:c",
            "/a",
            "a/",
            "a b",
            "https://a",
            "a.b-:1/c",
        ] {
            check(text, Format);
        }
    }

    /// References must not look like the digest or the id of an image, under any spelling of the default registry.
    #[test]
    fn names_that_look_like_ids_are_refused() {
        let hex = "a1".repeat(32);
        for name in [
            format!("sha256:{hex}"),
            "sha256".to_owned(),
            "sha256:abc".to_owned(),
            "sha512:latest".to_owned(),
            format!("library/sha256:{hex}"),
            format!("docker.io/sha256:{hex}"),
            format!("docker.io/library/sha256:{hex}"),
            format!("index.docker.io/library/sha256:{hex}"),
            format!("sha256:{hex}@{DIGEST}"),
            format!("{hex}:latest"),
            format!("docker.io/{hex}"),
            format!("docker.io/library/{hex}:x"),
        ] {
            assert_eq!(name.parse::<Reference>(), Err(ReferenceError::Ambiguous(name.clone())), "{name}");
        }
        for name in ["localhost/sha256:a", "a/sha256", "sha256sum", &hex[1..], &format!("a/{hex}")] {
            assert!(name.parse::<Reference>().is_ok(), "{name}");
        }
    }

    #[test]
    fn the_default_tag_is_latest() {
        let reference: Reference = "a".parse().unwrap();
        assert_eq!(reference.clone().or_latest().familiar(), "a:latest");
        assert_eq!(reference.version(), "latest");
    }
}
