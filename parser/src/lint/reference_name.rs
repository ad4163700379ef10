//! Validity of image references, by the grammar of github.com/distribution/reference.

/// Longest name of a repository, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;
/// Length of an image id in hexadecimal digits; an id is not a valid name.
const ID: usize = 64;

/// True for texts of the form `[DOMAIN/]PATH[:TAG][@DIGEST]`.
pub(super) fn is_valid(text: &str) -> bool {
    if text.len() == ID && text.bytes().all(is_hex) {
        return false;
    }
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest)),
        None => (text, None),
    };
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", text),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    is_domain(domain)
        && !path.is_empty()
        && path.split('/').all(is_component)
        && domain.len() + 1 + path.len() <= MAX_NAME
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// True when the part before the first slash is a registry instead of the first part of a path.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase()
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_number = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().last()];
        ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => {
            !address.is_empty()
                && address.bytes().all(|byte| is_hex(byte.to_ascii_lowercase()) || byte == b':')
        }
        None => host.split('.').all(is_label),
    };
    is_host && port.is_none_or(is_number)
}

/// True for lower case letters and digits with `.`, `_`, `__` or dashes between them.
fn is_component(component: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    component.starts_with(is_letter)
        && component.ends_with(is_letter)
        && component.split(is_letter).filter(|text| !text.is_empty()).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= MAX_TAG && tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || ".-".contains(c))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let mut parts = algorithm.split(['+', '.', '_', '-']);
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    parts.all(is_name) && hex.len() >= 32 && hex.bytes().all(|byte| is_hex(byte.to_ascii_lowercase()))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn references_are_validated() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for name in
            ["a", "a/b", "a:1", "h:5000/a:1", "localhost/a", "a__b/c-d.e", "[::1]:80/a", "A.b/c", &digest]
        {
            assert!(is_valid(name), "{name}");
        }
        let id = "0".repeat(64);
        for name in [
            "",
            ":1",
            "a:",
            "a@",
            "a/",
            "/a",
            "A",
            "a//b",
            "a..b",
            "a:1:2",
            "a b",
            "h:x/a",
            "a@sha256:1",
            &id,
        ] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
