//! Settings of a container, computed from its image's defaults and the user's options.
//!
//! Options that say the same before and after the creation of a container have one type for both, in a module each.

pub mod attachment;
pub mod devices;
mod health;
pub mod limits;
mod namespaces;
pub mod ports;
pub mod privileges;
pub mod resolution;

pub use attachment::Attachment;
pub use devices::{DeviceError, DeviceNode, Devices};
pub use health::{HealthError, HealthOptions};
pub use limits::{Capacity, DeviceRate, DeviceWeight, LimitError, Limits, Ulimit};
pub use namespaces::{NamespaceError, NamespaceMode, Namespaces, user_mode};
pub use ports::{PortError, PortRequest, Publication};
pub use privileges::{PrivilegeError, Privileges};
pub use resolution::{Resolution, ResolutionError};

use crate::error::EngineError;
use crate::log::LogSettings;
use crate::mount::{MountPoint, MountRequest};
use crate::restart::RestartPolicy;
use crate::secret::{Secret, SecretRequest};
use crate::security::SecurityOptions;
use kiln_image::config::{Healthcheck, RunConfig};
use kiln_runtime::signal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The default `PATH` (moby `daemon/pkg/oci`).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Options of the user for a new container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Name of the container; generated when `None`.
    pub name: Option<String>,
    /// True when it takes the name of another container, which is removed.
    pub replaces: bool,
    /// True when it is removed at its end.
    pub auto_remove: bool,
    /// True when no command starts it at once.
    pub awaits_start: bool,
    /// Arguments, which replace the image's command.
    pub arguments: Vec<String>,
    /// Entrypoint that replaces the image's; an empty one removes it.
    pub entrypoint: Option<String>,
    /// Variables as `NAME=value`, each with precedence over the image's.
    pub environment: Vec<String>,
    /// Working directory; the image's when `None`.
    pub dir: Option<String>,
    /// User as in `USER`; the image's when `None`.
    pub user: Option<String>,
    /// Host name; the first digits of the id when `None`.
    pub hostname: Option<String>,
    /// Labels to add to the image's.
    pub labels: BTreeMap<String, String>,
    /// True for an init process as pid 1, which passes signals on and reaps orphans.
    pub init: bool,
    /// True when it gets a terminal.
    pub tty: bool,
    /// True when standard input stays open.
    pub interactive: bool,
    /// Kind of its network.
    pub network: NetworkMode,
    /// Networks that it is connected to; the default one when there are none.
    pub attachments: Vec<Attachment>,
    /// Confinement beyond the defaults.
    pub security: SecurityOptions,
    /// Whether the program is started again after its end.
    pub restart: RestartPolicy,
    /// True when standard input ends with that of the first command that is attached.
    pub stdin_once: bool,
    /// Way in which output is logged.
    pub log: LogSettings,
    /// Mounts, each with another target.
    pub mounts: Vec<MountRequest>,
    /// Containers whose volumes and host directories are mounted as well, as `NAME[:ro|rw]`.
    pub volumes_from: Vec<String>,
    /// Mounts of anonymous volumes of a container that this one replaces; those of the image give way to them.
    pub kept: Vec<MountPoint>,
    /// Limits of its processes.
    pub limits: Limits,
    /// Privileges of its processes.
    pub privileges: Privileges,
    /// Devices beyond the default ones.
    pub devices: Devices,
    /// Namespaces that it shares.
    pub namespaces: Namespaces,
    /// Names of hosts and name servers.
    pub resolution: Resolution,
    /// Changes to the image's health check.
    pub health: HealthOptions,
    /// Ports besides those that the image exposes, such as `80/tcp`.
    pub exposed: Vec<String>,
    /// Ports of the host that are published for it.
    pub published: Publication,
    /// Annotations of the container.
    pub annotations: BTreeMap<String, String>,
    /// Signal that requests the program to stop; the image's when `None`.
    pub stop_signal: Option<String>,
    /// Time to stop in seconds, -1 for any; the default when `None`.
    pub stop_timeout: Option<i64>,
    /// Time zone by its name, or `local` for the host's; the image's when `None`.
    pub time_zone: Option<String>,
    /// File to which the command wrote the id.
    pub id_file: Option<String>,
    /// Secrets with their values.
    pub secrets: Vec<SecretRequest>,
}

impl RunOptions {
    /// Checks the options for this host. Returns warnings about those without effect.
    ///
    /// # Errors
    /// Fails for options that are out of range, or that contradict each other.
    pub fn check(&self) -> Result<Vec<String>, EngineError> {
        self.privileges.check()?;
        self.health.check()?;
        self.check_namespaces()?;
        if let Some(name) = self.stop_signal.as_ref().filter(|name| signal::parse(name).is_none()) {
            return Err(EngineError::Signal(name.clone()));
        }
        let mut warnings = Vec::new();
        if self.network == NetworkMode::Host && !self.published.is_empty() {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        // Finding out about the host takes some system calls.
        if self.limits != Limits::default() {
            warnings.extend(self.limits.check(&Capacity::detect())?);
        }
        Ok(warnings)
    }

    fn check_namespaces(&self) -> Result<(), EngineError> {
        use NamespaceMode::Private;
        let conflict = |condition: bool, what: &'static str, kind: &'static str| {
            if condition { Err(NamespaceError::Conflict(what, kind)) } else { Ok(()) }
        };
        let shares_names = self.namespaces.uts != Private;
        conflict(shares_names && self.hostname.is_some(), "hostname", "UTS")?;
        conflict(shares_names && !self.resolution.domainname.is_empty(), "domainname", "UTS")?;
        if matches!(self.network, NetworkMode::Container(_)) {
            const KIND: &str = "container type network";
            conflict(self.hostname.is_some(), "hostname", KIND)?;
            conflict(!self.resolution.servers.is_empty(), "dns", KIND)?;
            conflict(!self.resolution.hosts.is_empty(), "custom host-to-IP mapping", KIND)?;
            conflict(!self.exposed.is_empty(), "port exposing", KIND)?;
            conflict(!self.published.is_empty(), "port publishing", KIND)?;
        }
        let host_network = self.network == NetworkMode::Host;
        for name in self.privileges.sysctls.keys() {
            let is_shared = if name.starts_with("net.") {
                host_network
            } else {
                self.namespaces.ipc == NamespaceMode::Host
            };
            if is_shared {
                return Err(PrivilegeError::Shared(name.clone()).into());
            }
        }
        Ok(())
    }
}

/// Network of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Separate network namespace, connected by a bridge.
    #[default]
    Bridge,
    /// Separate network namespace with loopback only.
    None,
    /// Network namespace of the host.
    Host,
    /// Network namespace of another container, by name or id.
    Container(String),
    /// Separate network namespace, connected to networks of users: the name of the first, as it was written.
    User(String),
}

impl NetworkMode {
    /// Name of the mode in Docker's options.
    pub fn name(&self) -> String {
        match self {
            NetworkMode::Bridge => "bridge".to_owned(),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::Container(id) => format!("container:{id}"),
            NetworkMode::User(name) => name.clone(),
        }
    }

    /// True for a separate network namespace that is connected to networks.
    pub fn has_networks(&self) -> bool {
        matches!(self, NetworkMode::Bridge | NetworkMode::User(_))
    }
}

/// Settings that a container runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Host name of the container.
    pub hostname: String,
    /// User as in `USER`; empty for root.
    pub user: String,
    /// Variables as `NAME=value`: the user's first, then the image's.
    pub environment: Vec<String>,
    /// Entrypoint: first part of the arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Command: arguments after the entrypoint, or the program without one.
    pub command: Option<Vec<String>>,
    /// Working directory; empty for the root directory.
    pub dir: String,
    /// Labels of the container and its image.
    pub labels: BTreeMap<String, String>,
    /// Signal that requests the program to stop; `None` for the default.
    pub stop_signal: Option<String>,
    /// True for an init process as pid 1, which passes signals on and reaps orphans.
    #[serde(default)]
    pub init: bool,
    /// True when it has a terminal.
    pub tty: bool,
    /// True when standard input stays open.
    pub interactive: bool,
    /// Kind of its network.
    pub network: NetworkMode,
    /// Networks that it is connected to; `None` in records of older versions: the default one, where its kind has networks.
    #[serde(default)]
    pub attachments: Option<Vec<Attachment>>,
    /// Confinement beyond the defaults.
    #[serde(default)]
    pub security: SecurityOptions,
    /// Mounts besides the default ones.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    /// Containers from which mounts were taken, as written by the user.
    #[serde(default)]
    pub volumes_from: Vec<String>,
    /// Limits of its processes.
    #[serde(default)]
    pub limits: Limits,
    /// Privileges of its processes.
    #[serde(default)]
    pub privileges: Privileges,
    /// Devices beyond the default ones.
    #[serde(default)]
    pub devices: Devices,
    /// Namespaces that it shares; other containers by their ids.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Names of hosts and name servers.
    #[serde(default)]
    pub resolution: Resolution,
    /// Health check; `None` without one.
    #[serde(default)]
    pub health: Option<Healthcheck>,
    /// Ports that it exposes, such as `80/tcp`.
    #[serde(default)]
    pub exposed: BTreeSet<String>,
    /// Ports of the host that are published for it.
    #[serde(default)]
    pub published: Publication,
    /// Mount points of volumes of the image.
    #[serde(default)]
    pub image_volumes: BTreeSet<String>,
    /// Annotations of the container.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Time to stop in seconds, -1 for any; `None` for the default.
    #[serde(default)]
    pub stop_timeout: Option<i64>,
    /// Time zone by its name, or `local`; `None` for the image's.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// File to which the command wrote the id.
    #[serde(default)]
    pub id_file: Option<String>,
    /// Secrets without their values.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Shell of the image for health checks in shell form; empty for the default.
    #[serde(default)]
    pub shell: Vec<String>,
}

impl Settings {
    /// Merges an image's defaults and the user's options.
    ///
    /// # Errors
    /// [`EngineError::NoCommand`] when neither the image nor the user specifies a program.
    pub fn new(image: &RunConfig, options: &RunOptions, id: &str) -> Result<Settings, EngineError> {
        let command = (!options.arguments.is_empty()).then(|| options.arguments.clone());
        let (entrypoint, command) = match &options.entrypoint {
            // A replaced entrypoint has other arguments: the image's command is not used with it.
            Some(entrypoint) => ((!entrypoint.is_empty()).then(|| vec![entrypoint.clone()]), command),
            None => (image.entrypoint.clone(), command.or_else(|| image.cmd.clone())),
        };
        let published = options.published.ports.iter().flat_map(PortRequest::container_ports);
        let settings = Settings {
            hostname: options.hostname.clone().unwrap_or_else(|| id.chars().take(12).collect()),
            user: options.user.clone().unwrap_or_else(|| image.user.clone()),
            environment: merge(&options.environment, &image.env),
            entrypoint,
            command,
            dir: options.dir.clone().unwrap_or_else(|| image.working_dir.clone()),
            labels: image.labels.iter().chain(&options.labels).map(|(k, v)| (k.clone(), v.clone())).collect(),
            stop_signal: options.stop_signal.clone().or_else(|| image.stop_signal.clone()),
            init: options.init,
            tty: options.tty,
            interactive: options.interactive,
            network: options.network.clone(),
            attachments: None,
            security: options.security.clone(),
            mounts: Vec::new(),
            volumes_from: options.volumes_from.clone(),
            limits: options.limits.clone(),
            privileges: options.privileges.clone(),
            devices: options.devices.clone(),
            namespaces: options.namespaces.clone(),
            resolution: options.resolution.clone(),
            health: options.health.merged(image.healthcheck.as_ref()),
            exposed: image.exposed_ports.keys().chain(&options.exposed).cloned().chain(published).collect(),
            published: options.published.clone(),
            image_volumes: image.volumes.keys().cloned().collect(),
            annotations: options.annotations.clone(),
            stop_timeout: options.stop_timeout,
            time_zone: options.time_zone.clone(),
            id_file: options.id_file.clone(),
            secrets: options.secrets.iter().map(|request| request.secret.clone()).collect(),
            shell: image.shell.clone(),
        };
        if settings.arguments().is_empty() {
            return Err(EngineError::NoCommand);
        }
        Ok(settings)
    }

    /// True when ports of the host are published at its start.
    pub(crate) fn publishes(&self) -> bool {
        self.network.has_networks() && !self.published.mappings(&self.exposed, &[]).is_empty()
    }

    /// Program and its arguments.
    pub fn arguments(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.command).flatten().cloned().collect()
    }

    /// Environment of the program, with the defaults.
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
        // `-e NAME` without a value removes a variable.
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

/// Entries of the first list, then those of the second whose names the first lacks.
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
