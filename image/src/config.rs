//! The image config: runtime defaults, history and diff ids.
//!
//! Field order, names and omissions are those of the bytes that the reference builder writes (Docker image spec 1.3 on
//! top of OCI image-spec `config.md`): keys at the top in alphabetical order, those of `config` in the order of
//! Docker's type. Unknown keys are preserved.

use crate::digest::{DiffId, Digest, ImageId};
use crate::json;
use crate::manifest::null_default;
use crate::platform::Platform;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Keys of a JSON object without a field in the struct.
pub type Extra = BTreeMap<String, serde_json::Value>;

/// Config of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Processor architecture in Go's spelling, such as `amd64`.
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    /// Author of the image, from MAINTAINER.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Defaults for containers of the image.
    #[serde(default, deserialize_with = "null_default")]
    pub config: RunConfig,
    /// Creation time, as in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// History, one entry for each instruction.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Operating system in Go's spelling.
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    /// Operating system version; used by Windows only.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Diff ids of the layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// Processor variant, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Keys without a field in this struct.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The `config` object: defaults for containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User and group as stored by USER, such as `app:app`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports from EXPOSE, such as `80/tcp`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment as `NAME=value`, in order.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Program and arguments from ENTRYPOINT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments for the entrypoint, or the default command without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Mount points of volumes, from VOLUME.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory as an absolute path.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Values of the labels, by name.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name or number of the signal that stops a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Legacy flag that CMD sets.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Health check of containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Triggers for images built from this one.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell for the shell form of instructions.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Keys without a field in this struct.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The empty object `{}`: value type of Docker's sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A health check; durations in nanoseconds, 0 for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks, while running.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Longest time a check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time after the start in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks during the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Number of consecutive failures after which a container is unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// One instruction in the history of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Time of the instruction, as in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Text of the instruction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Author of the image at that time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Name of the tool.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the instruction created no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Keys without a field in this struct.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Type of the root file system; always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Diff ids, lowest layer first.
    #[serde(default, deserialize_with = "null_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

impl ImageConfig {
    /// Parses the bytes of a config.
    ///
    /// # Errors
    /// Fails when the bytes are not JSON of the expected shape.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Bytes of this config, and the resulting image id.
    ///
    /// Keys at the top are sorted, known or not: the reference writes a map there.
    pub fn encode(&self) -> (Vec<u8>, ImageId) {
        let unsorted = json::to_vec(self);
        let sorted: BTreeMap<String, &RawValue> =
            serde_json::from_slice(&unsorted).expect("a struct is written as an object");
        let bytes = json::to_vec(&sorted);
        let id = ImageId(Digest::of(&bytes));
        (bytes, id)
    }

    /// Platform of the image. Absent fields default to this host, as in the reference.
    pub fn platform(&self) -> Platform {
        let host = Platform::host();
        let or_host = |own: &str, host: &str| if own.is_empty() { host.to_owned() } else { own.to_owned() };
        let (os, architecture) =
            (or_host(&self.os, &host.os), or_host(&self.architecture, &host.architecture));
        let mut platform = Platform::new(&os, &architecture, self.variant.as_deref());
        platform.os_version.clone_from(&self.os_version);
        platform
    }
}

impl RunConfig {
    /// Value of an environment variable, the last one of several; `None` when it is not set.
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sets an environment variable; an existing one keeps its position.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let place = self.env.iter_mut().find(|old| old.split('=').next() == Some(name));
        match place {
            Some(old) => *old = entry,
            None => self.env.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A config as Docker 28.5 writes it.
    const DOCKER: &str = r#"{"architecture":"amd64","author":"me","config":{"User":"app","ExposedPorts":{"443/tcp":{}},"Env":["PATH=/bin","A=q w"],"Entrypoint":["/bin/sh","-c"],"Cmd":["true"],"Volumes":{"/a":{}},"WorkingDir":"/a/b","Labels":{"b":"x \u0026 y"},"StopSignal":"SIGINT","ArgsEscaped":true,"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000},"OnBuild":["RUN echo x"],"Shell":["/bin/ash","-c"]},"created":"2026-11-22T15:10:53.36974494Z","history":[{"created":"2024-01-01T00:00:00Z","created_by":"base"},{"created":"2026-11-22T15:10:53.286059479Z","created_by":"LABEL b=x \u0026 y","comment":"buildkit.dockerfile.v0","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;

    #[test]
    fn docker_configs_are_preserved_byte_for_byte() {
        let config = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
        let (bytes, id) = config.encode();
        assert_eq!(String::from_utf8(bytes).unwrap(), DOCKER);
        assert_eq!(id.0, Digest::of(DOCKER.as_bytes()));
    }

    #[test]
    fn unknown_keys_are_preserved() {
        let text = r#"{"architecture":"amd64","config":{"Domainname":"d","Env":null},"moby.buildkit.cache.v0":"x","os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        let again = String::from_utf8(config.encode().0).unwrap();
        assert!(again.contains(r#""config":{"Domainname":"d"}"#), "{again}");
        assert!(again.contains(r#""moby.buildkit.cache.v0":"x""#), "{again}");
    }

    #[test]
    fn environment_is_replaced_in_place() {
        let mut config = RunConfig { env: vec!["A=1".into(), "B=2".into()], ..RunConfig::default() };
        config.set_env("A", "3");
        config.set_env("C", "");
        assert_eq!(config.env, ["A=3", "B=2", "C="]);
        assert_eq!((config.env_value("A"), config.env_value("D")), (Some("3"), None));
    }
}
