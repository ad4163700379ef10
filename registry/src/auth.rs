//! Authentication at registries: credentials, challenges, tokens.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tracing::debug;

/// Key of Docker Hub in credential files; older than the name of its registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";

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
    /// The registry requires a scheme that is not supported.
    #[error("{0}: the registry asks for authentication in a way that is not supported: {1}")]
    Challenge(String, String),
    /// The token server refused the request.
    #[error("{0}: the token server refuses: {1}")]
    Token(String, String),
}

/// Credentials for one host.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password for each request.
    Basic(String, String),
    /// An identity token, exchanged for access tokens.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Lookup of credentials in the files and variables that Docker uses.
#[derive(Clone, Debug, Default)]
pub struct Keychain {
    /// Value of the variable `DOCKER_AUTH_CONFIG`.
    pub inline: Option<String>,
    /// Path of Docker's `config.json`.
    pub config: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    auths: BTreeMap<String, AuthEntry>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Keychain {
    /// Credentials for a host; `None` for anonymous access.
    ///
    /// # Errors
    /// Fails when a credential file is malformed or a credential helper fails.
    pub fn find(&self, host: &str) -> Result<Option<Credentials>, AuthError> {
        if let Some(text) = &self.inline
            && let Some(found) = parse(text, "DOCKER_AUTH_CONFIG")?.inline(host)
        {
            return Ok(Some(found));
        }
        let Some(path) = &self.config else { return Ok(None) };
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
        let config = parse(&text, &path.display().to_string())?;
        let keys = keys(host);
        let helper = keys.iter().find_map(|key| config.helpers.get(key)).or(config.store.as_ref());
        match helper.filter(|name| !name.is_empty()) {
            Some(name) => {
                debug!(host, helper = %name, "credentials of a helper");
                ask_helper(name, &keys[0])
            }
            None => Ok(config.inline(host)),
        }
    }
}

fn parse(text: &str, name: &str) -> Result<ConfigFile, AuthError> {
    serde_json::from_str(text).map_err(|error| AuthError::Config(name.to_owned(), error))
}

/// Keys under which a host may be stored, in order of preference.
fn keys(host: &str) -> Vec<String> {
    match host {
        "docker.io" | "registry-1.docker.io" | "index.docker.io" => {
            [HUB_KEY, "docker.io", "index.docker.io"].map(str::to_owned).to_vec()
        }
        _ => vec![
            host.to_owned(),
            format!("https://{host}"),
            format!("https://{host}/v1/"),
            format!("https://{host}/v2/"),
        ],
    }
}

impl ConfigFile {
    fn inline(&self, host: &str) -> Option<Credentials> {
        let entry = keys(host).iter().find_map(|key| self.auths.get(key))?;
        if let Some(token) = entry.identitytoken.clone().filter(|token| !token.is_empty()) {
            return Some(Credentials::Identity(token));
        }
        if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
            return Some(Credentials::Basic(user.clone(), password.clone()));
        }
        let encoded = entry.auth.as_ref()?.trim();
        let decoded = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Credentials::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>, AuthError> {
    let helper = format!("docker-credential-{name}");
    let fail = |reason: String| AuthError::Helper { helper: helper.clone(), reason };
    let spawned = Command::new(&helper)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| fail(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).map_err(|error| fail(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() {
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(fail(text));
    }
    let answer: HelperAnswer = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Basic(answer.username, answer.secret),
    }))
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

    #[test]
    fn credentials_of_config_files_are_found() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"quay.io":{"identitytoken":"t"},"r.example:5000":{"username":"a","password":"b"}}}"#;
        let keychain = Keychain { inline: Some(text.into()), config: None };
        let find = |host: &str| keychain.find(host).unwrap();
        assert_eq!(find("docker.io"), Some(Credentials::Basic("u".into(), "p".into())));
        assert_eq!(find("registry-1.docker.io"), Some(Credentials::Basic("u".into(), "p".into())));
        assert_eq!(find("quay.io"), Some(Credentials::Identity("t".into())));
        assert_eq!(find("r.example:5000"), Some(Credentials::Basic("a".into(), "b".into())));
        assert_eq!(find("other"), None);
        let broken = Keychain { inline: Some("{".into()), config: None };
        assert!(matches!(broken.find("x"), Err(AuthError::Config(..))));
    }
}
