//! From an image's defaults and a user's wishes to what a container runs like. Pure.

use crate::error::EngineError;
use crate::security::SecurityOptions;
use kiln_image::config::RunConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The default `PATH` (moby `daemon/pkg/oci`).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a user says about a new container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Its name; made up when there is none.
    pub name: Option<String>,
    /// Removed when it ends.
    pub auto_remove: bool,
    /// Arguments: they replace the image's command.
    pub arguments: Vec<String>,
    /// Replaces the image's entrypoint; empty for none.
    pub entrypoint: Option<String>,
    /// `NAME=value`, each counting before the image's.
    pub environment: Vec<String>,
    /// Working directory.
    pub dir: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Host name; the beginning of the id when there is none.
    pub hostname: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its first process is one that passes signals on and reaps orphans.
    pub init: bool,
    /// It gets a terminal.
    pub tty: bool,
    /// Its standard input stays open.
    pub interactive: bool,
    /// What it can reach.
    pub network: NetworkMode,
    /// What confines it.
    pub security: SecurityOptions,
}

/// What a container can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The world, through a network of its own.
    #[default]
    Bridge,
    /// Only itself.
    None,
    /// What the host can reach, as the host.
    Host,
}

impl NetworkMode {
    /// Docker's word for it.
    pub fn name(self) -> &'static str {
        match self {
            NetworkMode::Bridge => "bridge",
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
        }
    }
}

/// What a container runs like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Host name.
    pub hostname: String,
    /// User, as in USER; empty for root.
    pub user: String,
    /// `NAME=value`: the user's first, then those of the image.
    pub environment: Vec<String>,
    /// What is always run.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program.
    pub command: Option<Vec<String>>,
    /// Working directory; empty for the root.
    pub dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// Its first process is one that passes signals on and reaps orphans.
    #[serde(default)]
    pub init: bool,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input stays open.
    pub interactive: bool,
    /// What it can reach.
    pub network: NetworkMode,
    /// What confines it.
    #[serde(default)]
    pub security: SecurityOptions,
}

impl Settings {
    /// Joins an image's defaults and a user's wishes.
    pub fn new(image: &RunConfig, options: &RunOptions, id: &str) -> Result<Settings, EngineError> {
        let command = (!options.arguments.is_empty()).then(|| options.arguments.clone());
        let (entrypoint, command) = match &options.entrypoint {
            // Whoever replaces the entrypoint does not want its arguments either.
            Some(entrypoint) => ((!entrypoint.is_empty()).then(|| vec![entrypoint.clone()]), command),
            None => (image.entrypoint.clone(), command.or_else(|| image.cmd.clone())),
        };
        let settings = Settings {
            hostname: options.hostname.clone().unwrap_or_else(|| id.chars().take(12).collect()),
            user: options.user.clone().unwrap_or_else(|| image.user.clone()),
            environment: merge(&options.environment, &image.env),
            entrypoint,
            command,
            dir: options.dir.clone().unwrap_or_else(|| image.working_dir.clone()),
            labels: image.labels.iter().chain(&options.labels).map(|(k, v)| (k.clone(), v.clone())).collect(),
            stop_signal: image.stop_signal.clone(),
            init: options.init,
            tty: options.tty,
            interactive: options.interactive,
            network: options.network,
            security: options.security.clone(),
        };
        if settings.arguments().is_empty() {
            return Err(EngineError::NoCommand);
        }
        Ok(settings)
    }

    /// The program and its arguments.
    pub fn arguments(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.command).flatten().cloned().collect()
    }

    /// The environment that the program sees.
    pub(crate) fn full_environment(&self) -> Vec<String> {
        let mut defaults = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", self.hostname)];
        if self.tty {
            defaults.push("TERM=xterm".to_owned());
        }
        for entry in &self.environment {
            let same = |old: &&mut String| name_of(old) == name_of(entry);
            match defaults.iter_mut().find(same) {
                Some(old) => old.clone_from(entry),
                None => defaults.push(entry.clone()),
            }
        }
        // `-e NAME` without a value takes a variable away.
        defaults.retain(|entry| entry.contains('='));
        defaults
    }

    /// The environment of a further process: `first`, and the container's variables under other names.
    pub(crate) fn exec_environment(&self, first: &[String], tty: bool) -> Vec<String> {
        let own = Settings { tty, environment: merge(first, &self.environment), ..self.clone() };
        own.full_environment()
    }
}

fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or(entry)
}

/// The first list, and what the second has under other names.
fn merge(first: &[String], second: &[String]) -> Vec<String> {
    let known = |entry: &&String| !first.iter().any(|own| name_of(own) == name_of(entry));
    first.iter().chain(second.iter().filter(known)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> RunConfig {
        RunConfig {
            env: vec!["PATH=/bin".into(), "A=image".into()],
            entrypoint: Some(vec!["/entry".into()]),
            cmd: Some(vec!["default".into()]),
            user: "app".into(),
            working_dir: "/w".into(),
            ..RunConfig::default()
        }
    }

    fn settings(options: &RunOptions) -> Settings {
        Settings::new(&image(), options, "0123456789abcdef").unwrap()
    }

    #[test]
    fn wishes_replace_defaults() {
        let plain = settings(&RunOptions::default());
        assert_eq!(plain.arguments(), ["/entry", "default"]);
        assert_eq!((plain.user.as_str(), plain.dir.as_str()), ("app", "/w"));
        assert_eq!(plain.hostname, "0123456789ab");
        let words = RunOptions { arguments: vec!["a".into(), "b".into()], ..RunOptions::default() };
        assert_eq!(settings(&words).arguments(), ["/entry", "a", "b"]);
        let other = RunOptions { entrypoint: Some("sh".into()), ..RunOptions::default() };
        assert_eq!(settings(&other).arguments(), ["sh"]);
        let none = RunOptions {
            entrypoint: Some(String::new()),
            arguments: vec!["x".into()],
            ..RunOptions::default()
        };
        assert_eq!(settings(&none).arguments(), ["x"]);
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let options = RunOptions { entrypoint: Some(String::new()), ..RunOptions::default() };
        let result = Settings::new(&image(), &options, "id");
        assert!(matches!(result, Err(EngineError::NoCommand)));
    }

    #[test]
    fn environments_are_joined_by_name() {
        let options = RunOptions {
            environment: vec!["A=user".into(), "B=1".into()],
            tty: true,
            ..RunOptions::default()
        };
        let settings = settings(&options);
        assert_eq!(settings.environment, ["A=user", "B=1", "PATH=/bin"]);
        assert_eq!(
            settings.full_environment(),
            ["PATH=/bin", "HOSTNAME=0123456789ab", "TERM=xterm", "A=user", "B=1"]
        );
    }
}
