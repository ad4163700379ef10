//! An image as `docker inspect` shows it (Docker Engine API, ImageInspect).

use crate::error::CliError;
use kiln_image::config::{Empty, Healthcheck, RunConfig};
use kiln_image::reference::Reference;
use kiln_image::store::{Image, Store};
use serde::Serialize;
use std::collections::BTreeMap;

/// Image object of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: String,
    comment: String,
    created: String,
    docker_version: String,
    author: String,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    size: u64,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    metadata: Metadata,
    config: Config,
}

/// Storage of the files: driver and directories.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    /// Directories by role.
    pub data: BTreeMap<String, String>,
    /// Always `overlay2`.
    pub name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    r#type: String,
    layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

/// An image's defaults for containers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    args_escaped: bool,
    cmd: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
    labels: Option<BTreeMap<String, String>>,
    on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shell: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    user: String,
    volumes: Option<BTreeMap<String, Empty>>,
    working_dir: String,
}

impl Inspected {
    /// Reads the details of an image from the store.
    pub fn new(store: &Store, image: Image) -> Result<Inspected, CliError> {
        let Image { record, config } = image;
        let tags: Vec<_> = store.tags()?.into_iter().filter(|tag| tag.image == record.id).collect();
        let newest = tags.iter().map(|tag| tag.updated).max();
        let familiar = |text: &str| text.parse::<Reference>().map_or(text.to_owned(), |name| name.familiar());
        let digests = store.repo_digests(&record.id)?;
        let last = config.history.last();
        let stack = store.stack(&config.rootfs.diff_ids)?;
        let dirs: Vec<String> = stack.dirs().iter().map(|dir| dir.display().to_string()).collect();
        let data = match dirs.split_first() {
            Some((upper, lower)) => BTreeMap::from([
                ("LowerDir".to_owned(), lower.join(":")),
                ("UpperDir".to_owned(), upper.clone()),
            ]),
            None => BTreeMap::new(),
        };
        Ok(Inspected {
            id: record.id.to_string(),
            repo_tags: tags.iter().map(|tag| familiar(&tag.reference)).collect(),
            repo_digests: digests
                .iter()
                .map(|(repository, digest)| familiar(&format!("{repository}@{digest}")))
                .collect(),
            parent: String::new(),
            comment: last.map(|entry| entry.comment.clone()).unwrap_or_default(),
            created: config.created.clone().unwrap_or_default(),
            docker_version: String::new(),
            author: config.author.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os: config.os.clone(),
            size: record.size,
            graph_driver: GraphDriver { data, name: "overlay2" },
            root_fs: RootFs {
                r#type: config.rootfs.kind.clone(),
                layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            metadata: Metadata { last_tag_time: newest.map_or_else(zero_time, time) },
            config: Config::new(config.config),
        })
    }
}

impl Config {
    fn new(config: RunConfig) -> Config {
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        Config {
            args_escaped: config.args_escaped,
            cmd: config.cmd,
            entrypoint: config.entrypoint,
            env: list(config.env),
            exposed_ports: config.exposed_ports,
            healthcheck: config.healthcheck,
            labels: (!config.labels.is_empty()).then_some(config.labels),
            on_build: list(config.on_build),
            shell: config.shell,
            stop_signal: config.stop_signal,
            user: config.user,
            volumes: (!config.volumes.is_empty()).then_some(config.volumes),
            working_dir: config.working_dir,
        }
    }
}

fn time(nanoseconds: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds));
    time.map_or_else(|_| zero_time(), |time| time.to_string())
}

/// Go's zero time, which stands for "never".
pub fn zero_time() -> String {
    "0001-01-01T00:00:00Z".to_owned()
}
