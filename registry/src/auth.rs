//! Authentication at registries: challenges and their answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Failure to authenticate at a registry.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A credential file is malformed.
    #[error("cannot read credentials from {0}")]
    Config(String, #[source] serde_json::Error),
    /// A credential helper failed.
    #[error("the credential helper `{helper}` failed: {reason}")]
    Helper {
        /// Name of the helper program.
        helper: String,
        /// Error output of the helper.
        reason: String,
    },
    /// A credential file cannot be written.
    #[error("cannot write credentials to `{}`", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// There is no file for credentials.
    #[error("there is no file for credentials: set DOCKER_CONFIG, REGISTRY_AUTH_FILE or HOME")]
    NoFile,
    /// The registry requires a scheme that is not supported.
    #[error("{0}: the registry asks for authentication in a way that is not supported: {1}")]
    Challenge(String, String),
    /// The token server refused the request.
    #[error("{0}: the token server refuses: {1}")]
    Token(String, String),
}

/// Authentication that a registry requires (RFC 7235, distribution `docs/spec/auth/token.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// Address of the token server.
        realm: String,
        /// Service that the token is for.
        service: String,
        /// Scope that the token must have.
        scope: String,
    },
}

impl Challenge {
    /// Parses `WWW-Authenticate`; of several challenges, the one for a token is preferred. `None` for other schemes.
    pub(crate) fn parse(header: &str) -> Option<Challenge> {
        let lower = header.to_ascii_lowercase();
        if let Some(at) = lower.find("bearer ") {
            let parameters = parameters(&header[at + "bearer ".len()..]);
            let get = |name: &str| parameters.get(name).cloned().unwrap_or_default();
            let realm = get("realm");
            return (!realm.is_empty()).then(|| Challenge::Bearer {
                realm,
                service: get("service"),
                scope: get("scope"),
            });
        }
        lower.contains("basic").then_some(Challenge::Basic)
    }
}

/// Parses `name="value", name=value`; commas and escapes are allowed inside quotes.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, character)) = characters.next() {
                match character {
                    '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    other => value.push(other),
                }
            }
            (value, &quoted[end..])
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        found.insert(name, value);
        rest = tail;
    }
    found
}

/// Value of an `Authorization` header of the form `Basic …`.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: "registry.docker.io".into(),
            scope: "repository:library/busybox:pull,push".into(),
        };
        assert_eq!(Challenge::parse(header), Some(expected.clone()));
        assert_eq!(Challenge::parse(&format!("Basic realm=\"x\", {header}")), Some(expected));
        assert_eq!(Challenge::parse("Basic realm=\"a\\\"b\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
    }
}
