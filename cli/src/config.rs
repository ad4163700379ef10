//! Settings: the command line takes precedence over the environment, and that over the configuration files.
//!
//! `/etc/kiln/config.json` and then `$XDG_CONFIG_HOME/kiln/config.json` (or `~/.config/kiln/config.json`) are
//! read; `KILN_CONFIG` names one file instead of both.

use crate::arguments::Globals;
use crate::commands::lint::levels;
use crate::error::CliError;
use kiln_parser::lint::Level;
use kiln_registry::{Keychain, Mirrors, Proxies, Settings, WaitListener};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Default directory of the store.
const DEFAULT_ROOT: &str = "/var/lib/kiln";
/// Directory of state that does not survive a boot.
pub const STATE: &str = "/run/kiln";

/// Content of a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    root: Option<PathBuf>,
    registry_mirrors: Option<Vec<String>>,
    /// Levels of lint rules, by name: off, warning or error.
    lint: Option<BTreeMap<String, String>>,
}

/// Settings of a command, merged from all sources.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the store.
    pub root: PathBuf,
    /// Settings of the registry client.
    pub registry: Settings,
    /// Levels of lint rules, by name in lower case.
    pub lint: BTreeMap<String, Level>,
}

impl Config {
    /// Reads the configuration files and the environment.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or parsed, and for invalid values.
    pub fn read(globals: &Globals) -> Result<Config, CliError> {
        let mut merged = ConfigFile::default();
        for path in config_paths() {
            let file = read_file(&path)?;
            merged.root = file.root.or(merged.root);
            merged.lint = file.lint.or(merged.lint);
            merged.registry_mirrors = file.registry_mirrors.or(merged.registry_mirrors);
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = globals.root.clone().or_else(|| variable("KILN_ROOT").map(PathBuf::from)).or(merged.root);
        let root = root.unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT));
        let root = std::path::absolute(&root)
            .map_err(|error| CliError::failed(format!("cannot use the store {}: {error}", root.display())))?;
        let mirrors = match std::env::var("KILN_REGISTRY_MIRROR") {
            Ok(text) if !text.is_empty() => text,
            _ => merged.registry_mirrors.unwrap_or_default().join(","),
        };
        let mirrors: Mirrors = mirrors.parse().map_err(|error| CliError::failed(format!("{error}")))?;
        let registry = Settings {
            mirrors,
            keychain: keychain(),
            user_agent: user_agent(),
            patience: patience()?,
            proxies: Proxies::from_environment(|name| std::env::var(name).ok()),
            waits: WaitListener::new(crate::ui::tell_wait),
        };
        let lint = merged.lint.unwrap_or_default();
        let lint: Vec<String> = lint.iter().map(|(rule, level)| format!("{rule}={level}")).collect();
        let lint = levels(lint.iter().map(String::as_str))?;
        Ok(Config { root, registry, lint })
    }
}

/// Reads `KILN_NETWORK_TIMEOUT`, in seconds; `None` when it is not set.
fn patience() -> Result<Option<Duration>, CliError> {
    const NAME: &str = "KILN_NETWORK_TIMEOUT";
    let Some(text) = std::env::var_os(NAME).filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse::<u32>().ok());
    match seconds.filter(|seconds| (1..=86400).contains(seconds)) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        None => Err(CliError::failed(format!("invalid {NAME} {text:?}: expected seconds from 1 to 86400"))
            .hint("it is how long a server may send nothing; without it, 30")),
    }
}

fn user_agent() -> String {
    format!("kiln/{}", env!("CARGO_PKG_VERSION"))
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

fn config_paths() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("KILN_CONFIG") {
        return vec![path.into()];
    }
    let user = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let user = user.or_else(|| home().map(|home| home.join(".config")));
    let mut paths = vec![PathBuf::from("/etc/kiln/config.json")];
    paths.extend(user.map(|dir| dir.join("kiln/config.json")));
    paths
}

fn read_file(path: &Path) -> Result<ConfigFile, CliError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ConfigFile::default()),
        Err(error) => {
            return Err(CliError::failed(format!("cannot read `{}`: {error}", path.display())));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        CliError::failed(format!("`{}` is no valid configuration: {error}", path.display()))
            .hint("it holds a JSON object with the keys \"root\", \"registry-mirrors\" and \"lint\"")
    })
}

/// Finds credentials where Docker and podman keep them: a file that is named by a variable is the only one.
fn keychain() -> Keychain {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let inline = std::env::var("DOCKER_AUTH_CONFIG").ok().filter(|text| !text.is_empty());
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return Keychain { inline, files: vec![file], path };
    }
    let docker = variable("DOCKER_CONFIG").or_else(|| home().map(|home| home.join(".docker")));
    let podman = [variable("XDG_RUNTIME_DIR"), home().map(|home| home.join(".config"))];
    let podman = podman.into_iter().flatten().map(|dir| dir.join("containers/auth.json"));
    let files = docker.map(|dir| dir.join("config.json")).into_iter().chain(podman).collect();
    Keychain { inline, files, path }
}
