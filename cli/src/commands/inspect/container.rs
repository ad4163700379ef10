//! A container as `docker inspect` shows it (Docker Engine API, ContainerInspectResponse).
//!
//! Fields of features that Kiln lacks have the value that Docker shows when the feature is
//! not used.

mod host;
mod networks;

use super::image::{GraphDriver, zero_time};
use host::{HostConfig, ShownMount};
use kiln_engine::{Container, Containers, Damaged, Health, State};
use kiln_image::config::{Empty, Healthcheck};
use networks::NetworkSettings;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Container object of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    id: String,
    created: String,
    path: String,
    args: Vec<String>,
    state: ShownState,
    image: String,
    resolv_conf_path: String,
    hostname_path: String,
    hosts_path: String,
    log_path: String,
    name: String,
    restart_count: u32,
    driver: &'static str,
    platform: &'static str,
    mount_label: &'static str,
    process_label: &'static str,
    app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    exec_ids: Option<Vec<String>>,
    host_config: HostConfig,
    graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
    mounts: Vec<ShownMount>,
    config: Config,
    network_settings: NetworkSettings,
}

/// Container whose record cannot be read.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedDamage {
    id: String,
    created: String,
    state: ShownState,
    name: String,
}

impl InspectedDamage {
    /// The object of a damaged container.
    pub fn new(damaged: &Damaged) -> InspectedDamage {
        let state = ShownState {
            status: "dead",
            running: false,
            paused: false,
            restarting: false,
            oom_killed: false,
            dead: true,
            pid: 0,
            exit_code: 0,
            error: crate::error::chain(&damaged.reason),
            started_at: zero_time(),
            finished_at: zero_time(),
            health: None,
        };
        InspectedDamage {
            id: damaged.id.clone(),
            created: damaged.created.clone(),
            state,
            name: format!("/{}", damaged.name),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownState {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: i32,
    exit_code: i32,
    error: String,
    started_at: String,
    finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    exposed_ports: BTreeMap<String, Empty>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Option<Vec<String>>,
    image: String,
    healthcheck: Option<Healthcheck>,
    volumes: Option<BTreeMap<String, Empty>>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    on_build: Option<Vec<String>>,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout: Option<i64>,
}

impl Inspected {
    /// Reads the details of a container.
    pub fn new(container: &Container, all: &Containers<'_>) -> Inspected {
        let dir = all.dir_of(container);
        let etc = |name: &str| dir.join("etc").join(name).display().to_string();
        let mut arguments = container.settings.arguments().into_iter();
        Inspected {
            id: container.id.clone(),
            created: container.created.clone(),
            path: arguments.next().unwrap_or_default(),
            args: arguments.collect(),
            state: ShownState::new(&container.state, all.health(container)),
            image: container.image.to_string(),
            resolv_conf_path: etc("resolv.conf"),
            hostname_path: etc("hostname"),
            hosts_path: etc("hosts"),
            log_path: dir.join("json.log").display().to_string(),
            name: format!("/{}", container.name),
            restart_count: container.restarts,
            driver: "overlay2",
            platform: "linux",
            mount_label: "",
            process_label: "",
            app_armor_profile: container.profile.clone(),
            exec_ids: None,
            host_config: HostConfig::new(container),
            graph_driver: graph_driver(&dir),
            size_rw: None,
            size_root_fs: None,
            mounts: ShownMount::all(container, all),
            config: Config::new(container),
            network_settings: NetworkSettings::new(container, all),
        }
    }
}

impl Inspected {
    /// Adds the sizes of the container's own files, and of these with its image's.
    pub fn with_sizes(mut self, own: u64, image: u64) -> Inspected {
        (self.size_rw, self.size_root_fs) = (Some(own), Some(own + image));
        self
    }
}

fn graph_driver(dir: &Path) -> GraphDriver {
    let path = |name: &str| dir.join("layer").join(name).display().to_string();
    let data = [("UpperDir", path("upper")), ("WorkDir", path("work"))];
    GraphDriver {
        data: data.into_iter().map(|(name, path)| (name.to_owned(), path)).collect(),
        name: "overlay2",
    }
}

impl ShownState {
    fn new(state: &State, health: Option<Health>) -> ShownState {
        let (started, finished) = match state {
            State::Created { .. } => (zero_time(), zero_time()),
            State::Running { started, .. } => (started.clone(), zero_time()),
            State::Restarting { started, finished, .. } | State::Exited { started, finished, .. } => {
                (started.clone(), finished.clone())
            }
        };
        ShownState {
            status: state.status(),
            running: state.is_live(),
            paused: matches!(state, State::Running { paused: true, .. }),
            restarting: matches!(state, State::Restarting { .. }),
            oom_killed: matches!(
                state,
                State::Exited { is_out_of_memory: true, .. } | State::Running { is_out_of_memory: true, .. }
            ),
            dead: false,
            pid: if let State::Running { pid, .. } = state { *pid } else { 0 },
            exit_code: state.code(),
            error: match state {
                State::Created { error: Some(error), .. } | State::Exited { error, .. } => error.clone(),
                _ => String::new(),
            },
            started_at: started,
            finished_at: finished,
            health,
        }
    }
}

impl Config {
    fn new(container: &Container) -> Config {
        let settings = &container.settings;
        Config {
            hostname: settings.hostname.clone(),
            domainname: settings.resolution.domainname.clone(),
            user: settings.user.clone(),
            attach_stdin: container.stdin_once,
            attach_stdout: true,
            attach_stderr: true,
            exposed_ports: settings.exposed.iter().map(|port| (port.clone(), Empty {})).collect(),
            tty: settings.tty,
            open_stdin: settings.interactive,
            stdin_once: container.stdin_once,
            env: settings.environment.clone(),
            cmd: settings.command.clone(),
            image: container.image_name.clone(),
            healthcheck: settings.health.clone(),
            volumes: Some(host::volumes(settings)).filter(|volumes| !volumes.is_empty()),
            working_dir: settings.dir.clone(),
            entrypoint: settings.entrypoint.clone(),
            on_build: None,
            labels: settings.labels.clone(),
            stop_signal: settings.stop_signal.clone(),
            stop_timeout: settings.stop_timeout,
        }
    }
}
