//! Credentials of the user: in the files that Docker and podman have, and in credential helpers.
//!
//! Docker's `config.json` names helpers and has the credentials of others itself; podman's `auth.json` has the same form, and
//! keys for a part of a registry (`quay.io/team`) as well. Files are replaced by a rename, with all keys that are not known
//! here.

mod helper;

use crate::auth::AuthError;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tracing::debug;

/// Key of Docker Hub in credential files; older than the name of its registry.
pub const HUB_KEY: &str = "https://index.docker.io/v1/";

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

/// Lookup of credentials in the files and variables that Docker and podman use.
#[derive(Clone, Debug, Default)]
pub struct Keychain {
    /// Value of the variable `DOCKER_AUTH_CONFIG`.
    pub inline: Option<String>,
    /// Files in the order in which they are read; new credentials are written to the first.
    pub files: Vec<PathBuf>,
    /// Value of the variable `PATH`, for a helper that no file names.
    pub path: OsString,
}

/// Place where credentials are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// File of that path, unencrypted.
    File(PathBuf),
    /// Credential helper of this name: the program `docker-credential-NAME`.
    Helper(String),
}

/// What is known here of a file. Go programs write `null` for what they have none of.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    auths: Option<BTreeMap<String, Option<AuthEntry>>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
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
    /// Credentials for a host and a repository in it; `None` for anonymous access.
    ///
    /// # Errors
    /// Fails when a credential file is malformed or a credential helper fails.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Credentials>, AuthError> {
        if let Some(text) = &self.inline
            && let Some(found) = parse(text, "DOCKER_AUTH_CONFIG")?.inline(host, repository)
        {
            return Ok(Some(found));
        }
        for path in &self.files {
            let Ok(text) = text_of(path) else { continue };
            let config = parse(&text, &path.display().to_string())?;
            let found = match config.helper(host) {
                Some(name) => {
                    debug!(host, helper = %name, "credentials of a helper");
                    helper::get(name, &keys(host)[0])?
                }
                None => config.inline(host, repository),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Keeps the credentials of a user for a host: in the helper that the first file names for it, in a helper that is
    /// installed when that file has no credentials yet, or else in the file.
    ///
    /// # Errors
    /// Fails when the file is malformed or cannot be written, and when the helper fails.
    pub fn store(&self, host: &str, user: &str, credentials: &Credentials) -> Result<Place, AuthError> {
        let path = self.files.first().ok_or(AuthError::NoFile)?;
        let _lock = lock(path)?;
        let (mut whole, config) = read(path)?;
        let name = match config.helper(host) {
            Some(name) => Some(name.to_owned()),
            None if config.auths.as_ref().is_none_or(BTreeMap::is_empty) => helper::installed(&self.path),
            None => None,
        };
        let key = &keys(host)[0];
        if !whole.get("auths").is_some_and(Value::is_object) {
            whole.insert("auths".to_owned(), json!({}));
        }
        let auths = whole["auths"].as_object_mut().expect("the line above makes it one");
        keys(host).iter().for_each(|key| drop(auths.remove(key)));
        let (entry, place) = match &name {
            Some(name) => {
                helper::store(name, key, user, credentials)?;
                (json!({}), Place::Helper(name.clone()))
            }
            None => (entry(user, credentials), Place::File(path.clone())),
        };
        auths.insert(key.clone(), entry);
        if let Some(name) = name.filter(|_| config.helper(host).is_none()) {
            whole.insert("credsStore".to_owned(), Value::String(name));
        }
        replace(path, &whole)?;
        Ok(place)
    }

    /// Forgets the credentials for a host, in all files and their helpers; false when there were none.
    ///
    /// # Errors
    /// Fails when a file is malformed or cannot be written, and when a helper fails.
    pub fn erase(&self, host: &str) -> Result<bool, AuthError> {
        let mut is_erased = false;
        for path in &self.files {
            if !path.exists() {
                continue;
            }
            let _lock = lock(path)?;
            let (mut whole, config) = read(path)?;
            if let Some(name) = config.helper(host) {
                is_erased |= helper::erase(name, &keys(host)[0])?;
            }
            let auths = whole.get_mut("auths").and_then(Value::as_object_mut);
            let removed =
                auths.map(|auths| keys(host).iter().filter(|key| auths.remove(*key).is_some()).count());
            if removed.is_some_and(|number| number > 0) {
                replace(path, &whole)?;
                is_erased = true;
            }
        }
        Ok(is_erased)
    }
}

fn parse(text: &str, name: &str) -> Result<ConfigFile, AuthError> {
    let failed = |error| AuthError::Config(name.to_owned(), error);
    // Some tools write an empty file first.
    let text = if text.trim().is_empty() { "{}" } else { text };
    // Of a key that is there twice the last one counts, as in Go.
    let value: Value = serde_json::from_str(text).map_err(failed)?;
    serde_json::from_value(value).map_err(failed)
}

/// Text of a regular file.
fn text_of(path: &Path) -> io::Result<String> {
    match fs::metadata(path)?.is_file() {
        true => fs::read_to_string(path),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Locks the directory of a file while the file is changed, and creates the directory if it is missing: a login that is made at
/// the same time must not be lost.
fn lock(path: &Path) -> Result<File, AuthError> {
    let failed = |error| AuthError::Write(path.to_owned(), error);
    let target = target_of(path);
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let dir = File::open(dir).map_err(failed)?;
    dir.lock().map_err(failed)?;
    Ok(dir)
}

/// The file that a path leads to, also by links whose target does not exist.
fn target_of(path: &Path) -> PathBuf {
    /// Most links that are followed, as in the kernel.
    const LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new(".")).join(next),
            Err(_) => break,
        }
    }
    target
}

/// Reads a file: all of it, and what is known here. A missing one is empty.
fn read(path: &Path) -> Result<(Map<String, Value>, ConfigFile), AuthError> {
    let name = path.display().to_string();
    let text = match text_of(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(AuthError::Config(name, serde_json::Error::io(error))),
    };
    let config = parse(&text, &name)?;
    let text = if text.trim().is_empty() { "{}" } else { &text };
    let whole = serde_json::from_str(text).map_err(|error| AuthError::Config(name, error))?;
    Ok((whole, config))
}

/// Replaces a file by a rename. Owner and mode are those of the old one, and a new one can be read by its owner alone. A link
/// stays, and its target is replaced.
fn replace(path: &Path, whole: &Map<String, Value>) -> Result<(), AuthError> {
    let failed = |error| AuthError::Write(path.to_owned(), error);
    let target = target_of(path);
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, tabs);
    whole.serialize(&mut writer).map_err(|error| failed(error.into()))?;
    // Under the lock there is one at a time, and one that a killed process has left is used again.
    let new = dir.join(format!(".{}.new", file_name(&target)));
    let written = (|| {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        if let Ok(old) = fs::metadata(&target) {
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
            // Without privileges both are files of the caller.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.sync_all()?;
        fs::rename(&new, &target)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Entry of a file for credentials.
fn entry(user: &str, credentials: &Credentials) -> Value {
    match credentials {
        Credentials::Basic(user, password) => {
            json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
        }
        Credentials::Identity(token) => {
            json!({ "auth": STANDARD.encode(format!("{user}:")), "identitytoken": token })
        }
    }
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

/// Host of a registry as its user wrote it, perhaps as a URL; the key of Docker Hub for all of its names.
pub fn host_of(text: &str) -> String {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

impl ConfigFile {
    /// Helper that has the credentials of a host.
    fn helper(&self, host: &str) -> Option<&str> {
        let helpers = self.helpers.as_ref();
        let named = helpers.and_then(|helpers| keys(host).iter().find_map(|key| helpers.get(key)));
        let named = named.or(self.store.as_ref());
        named.map(String::as_str).filter(|name| !name.is_empty())
    }

    fn inline(&self, host: &str, repository: &str) -> Option<Credentials> {
        // Parts of the repository, the longest first: `HOST/a/b`, `HOST/a`.
        let ends = repository.match_indices('/').map(|(at, _)| at).chain([repository.len()]);
        let mut parts: Vec<String> =
            ends.filter(|end| *end > 0).map(|end| format!("{host}/{}", &repository[..end])).collect();
        parts.reverse();
        let auths = self.auths.as_ref()?;
        parts.iter().chain(&keys(host)).find_map(|key| auths.get(key))?.as_ref()?.credentials()
    }
}

impl AuthEntry {
    fn credentials(&self) -> Option<Credentials> {
        if let Some(token) = self.identitytoken.clone().filter(|token| !token.is_empty()) {
            return Some(Credentials::Identity(token));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Some(Credentials::Basic(user.clone(), password.clone()));
        }
        let encoded = self.auth.as_ref()?.trim();
        let decoded = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Credentials::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic(user.to_owned(), password.to_owned())
    }

    #[test]
    fn credentials_of_config_files_are_found() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"quay.io":{"identitytoken":"t"},
            "r.example:5000":{"username":"a","password":"b"},"r.example:5000/team":{"auth":"dDp0"}}}"#;
        let keychain = Keychain { inline: Some(text.into()), ..Keychain::default() };
        let find = |host: &str, repository: &str| keychain.find(host, repository).unwrap();
        assert_eq!(find("docker.io", ""), Some(basic("u", "p")));
        assert_eq!(find("registry-1.docker.io", "library/busybox"), Some(basic("u", "p")));
        assert_eq!(find("quay.io", "a"), Some(Credentials::Identity("t".into())));
        assert_eq!(find("r.example:5000", "teams/x"), Some(basic("a", "b")));
        assert_eq!(find("r.example:5000", "team/x"), Some(basic("t", "t")));
        assert_eq!(find("other", "x"), None);
        let broken = Keychain { inline: Some("{".into()), ..Keychain::default() };
        assert!(matches!(broken.find("x", ""), Err(AuthError::Config(..))));
    }

    #[test]
    fn credentials_are_kept_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("new/config.json"), dir.path().join("auth.json"));
        let keychain = Keychain { files: vec![first.clone(), second.clone()], ..Keychain::default() };
        assert_eq!(keychain.store("r.example", "u", &basic("u", "p")).unwrap(), Place::File(first.clone()));
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_to_string(&first).unwrap(),
            "{\n\t\"auths\": {\n\t\t\"r.example\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t}\n}"
        );
        // Other keys stay, and older forms of the host's key go.
        fs::write(&first, r#"{"psFormat":"x","auths":{"https://r.example/v1/":{},"a":{"auth":"dTpw"}}}"#)
            .unwrap();
        keychain.store("r.example", "u", &Credentials::Identity("t".into())).unwrap();
        assert_eq!(keychain.find("r.example", "x").unwrap(), Some(Credentials::Identity("t".into())));
        let value: Value = serde_json::from_str(&fs::read_to_string(&first).unwrap()).unwrap();
        assert_eq!(value["psFormat"], "x");
        assert_eq!(value["auths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["a", "r.example"]);
        fs::write(&second, r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#).unwrap();
        assert!(keychain.erase("r.example").unwrap() && !keychain.erase("r.example").unwrap());
        assert_eq!(keychain.find("r.example", "x").unwrap(), None);
        assert_eq!(keychain.find("a", "x").unwrap(), Some(basic("u", "p")));
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "no other file is left");
        fs::write(&first, "{").unwrap();
        assert!(matches!(keychain.store("b", "u", &basic("u", "p")), Err(AuthError::Config(..))));
        assert_eq!(fs::read_to_string(&first).unwrap(), "{");
    }

    #[test]
    fn nothing_is_written_as_null_by_other_programs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let keychain = Keychain { files: vec![path.clone()], ..Keychain::default() };
        for text in [
            r#"{"auths":null,"credHelpers":null,"credsStore":null}"#,
            r#"{"auths":{"r.example":null}}"#,
            r#"{"auths":{},"auths":{"other":{"auth":"dTpw"}}}"#,
            "",
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(keychain.find("r.example", "x").unwrap(), None, "{text}");
            keychain.store("r.example", "u", &basic("u", "p")).unwrap();
            assert_eq!(keychain.find("r.example", "x").unwrap(), Some(basic("u", "p")), "{text}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        keychain.erase("r.example").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "the mode stays");
    }

    #[test]
    fn logins_at_once_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let keychain = Keychain { files: vec![dir.path().join("new/config.json")], ..Keychain::default() };
        std::thread::scope(|scope| {
            for number in 0..8 {
                let keychain = &keychain;
                scope.spawn(move || {
                    keychain.store(&format!("r{number}.example"), "u", &basic("u", "p")).unwrap()
                });
            }
        });
        for number in 0..8 {
            assert_eq!(keychain.find(&format!("r{number}.example"), "").unwrap(), Some(basic("u", "p")));
        }
    }

    #[test]
    fn links_to_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let keychain = Keychain { files: vec![link.clone()], ..Keychain::default() };
        keychain.store("r.example", "u", &basic("u", "p")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("dTpw"));
        // Also one whose target is missing.
        fs::remove_file(&target).unwrap();
        keychain.store("r.example", "u", &basic("u", "p")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && target.exists());
    }

    #[test]
    fn hosts_of_registries() {
        for (text, host) in [
            ("r.example:5000", "r.example:5000"),
            ("https://r.example/v2/", "r.example"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://[::1]:5000/x", "[::1]:5000"),
        ] {
            assert_eq!(host_of(text), host, "{text}");
        }
    }
}
