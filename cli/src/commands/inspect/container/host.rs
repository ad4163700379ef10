//! `HostConfig` and `Mounts` of a container.

use crate::commands::ports::{self, HostPort};
use kiln_engine::log::LogDriver;
use kiln_engine::mount::{Below, Flag, MountPoint, Source};
use kiln_engine::settings::privileges::normal;
use kiln_engine::settings::{DeviceRate, Limits, NamespaceMode, Settings};
use kiln_engine::{Container, Containers};
use kiln_image::config::Empty;
use serde::Serialize;
use std::collections::BTreeMap;

/// Size of /dev/shm without `--shm-size`, in bytes.
const SHM_SIZE: i64 = 64 << 20;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    binds: Option<Vec<String>>,
    #[serde(rename = "ContainerIDFile")]
    container_id_file: String,
    log_config: LogConfig,
    network_mode: String,
    port_bindings: BTreeMap<String, Vec<HostPort>>,
    restart_policy: RestartPolicy,
    auto_remove: bool,
    /// Height and width of the client's terminal on Windows.
    console_size: [u16; 2],
    volumes_from: Option<Vec<String>>,
    annotations: Option<BTreeMap<String, String>>,
    cap_add: Option<Vec<String>>,
    cap_drop: Option<Vec<String>>,
    cgroupns_mode: String,
    dns: Vec<String>,
    dns_options: Vec<String>,
    dns_search: Vec<String>,
    extra_hosts: Option<Vec<String>>,
    group_add: Option<Vec<String>>,
    ipc_mode: String,
    oom_score_adj: i32,
    pid_mode: String,
    privileged: bool,
    publish_all_ports: bool,
    readonly_rootfs: bool,
    security_opt: Option<Vec<String>>,
    tmpfs: Option<BTreeMap<String, String>>,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    shm_size: i64,
    sysctls: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<bool>,
    runtime: &'static str,
    #[serde(flatten)]
    resources: Resources,
    mounts: Option<Vec<AskedMount>>,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LogConfig {
    #[serde(rename = "Type")]
    kind: &'static str,
    config: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: &'static str,
    maximum_retry_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resources {
    cpu_shares: i64,
    memory: i64,
    nano_cpus: i64,
    cgroup_parent: String,
    blkio_weight: u16,
    blkio_weight_device: Vec<Weight>,
    blkio_device_read_bps: Vec<Rate>,
    blkio_device_write_bps: Vec<Rate>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    blkio_device_read_iops: Vec<Rate>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    blkio_device_write_iops: Vec<Rate>,
    cpu_period: i64,
    cpu_quota: i64,
    cpu_realtime_period: i64,
    cpu_realtime_runtime: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    devices: Vec<Device>,
    device_cgroup_rules: Option<Vec<String>>,
    memory_reservation: i64,
    memory_swap: i64,
    memory_swappiness: Option<i64>,
    oom_kill_disable: bool,
    pids_limit: Option<i64>,
    ulimits: Vec<ShownUlimit>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Weight {
    path: String,
    weight: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rate {
    path: String,
    rate: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Device {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownUlimit {
    name: String,
    /// -1 for no limit.
    hard: i64,
    /// -1 for no limit.
    soft: i64,
}

/// A mount as `--mount` asked for it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AskedMount {
    #[serde(rename = "Type")]
    kind: &'static str,
    source: String,
    target: String,
    read_only: bool,
    bind_options: Option<BindOptions>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BindOptions {
    propagation: String,
    non_recursive: bool,
}

/// A mount of the container.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShownMount {
    #[serde(rename = "Type")]
    kind: &'static str,
    name: String,
    source: String,
    destination: String,
    driver: &'static str,
    mode: String,
    #[serde(rename = "RW")]
    rw: bool,
    propagation: String,
}

impl HostConfig {
    pub(super) fn new(container: &Container) -> HostConfig {
        let settings = &container.settings;
        let (privileges, resolution) = (&settings.privileges, &settings.resolution);
        let names = |list: &[String]| list.iter().map(|name| normal(name)).collect::<Vec<_>>();
        let size = settings.limits.shm_size;
        let (masked, readonly) = settings.closed_paths();
        HostConfig {
            binds: some(binds(settings)),
            container_id_file: settings.id_file.clone().unwrap_or_default(),
            log_config: LogConfig {
                kind: match container.log.driver {
                    LogDriver::JsonFile => "json-file",
                    LogDriver::None => "none",
                    LogDriver::Journald => "journald",
                },
                config: container.log.options.clone(),
            },
            network_mode: settings.network.name(),
            port_bindings: ports::wanted(container),
            restart_policy: RestartPolicy {
                name: container.restart.name(),
                maximum_retry_count: container.restart.most(),
            },
            auto_remove: container.auto_remove,
            console_size: [0, 0],
            volumes_from: some(settings.volumes_from.clone()),
            annotations: Some(settings.annotations.clone()).filter(|annotations| !annotations.is_empty()),
            cap_add: some(names(&privileges.cap_add)),
            cap_drop: some(names(&privileges.cap_drop)),
            cgroupns_mode: settings.namespaces.cgroup.text("private"),
            dns: resolution.servers.clone(),
            dns_options: resolution.options.clone(),
            dns_search: resolution.search.clone(),
            extra_hosts: some(resolution.hosts.clone()),
            group_add: some(privileges.group_add.clone()),
            ipc_mode: settings.namespaces.ipc.text("private"),
            oom_score_adj: settings.limits.oom_score_adj,
            pid_mode: settings.namespaces.pid.text(""),
            privileged: privileges.privileged,
            publish_all_ports: settings.published.all,
            readonly_rootfs: privileges.read_only,
            security_opt: some(settings.security.given.clone()),
            tmpfs: Some(tmpfs(settings)).filter(|tmpfs| !tmpfs.is_empty()),
            uts_mode: uts(&settings.namespaces.uts),
            shm_size: if size == 0 { SHM_SIZE } else { size },
            sysctls: Some(privileges.sysctls.clone()).filter(|sysctls| !sysctls.is_empty()),
            init: settings.init.then_some(true),
            runtime: "kiln",
            resources: Resources::new(settings),
            mounts: some(asked(settings)),
            masked_paths: (!privileges.privileged).then_some(masked),
            readonly_paths: (!privileges.privileged).then_some(readonly),
        }
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn uts(mode: &NamespaceMode) -> String {
    mode.text("")
}

impl Resources {
    fn new(settings: &Settings) -> Resources {
        let limits = &settings.limits;
        let rates = |list: &[DeviceRate]| {
            list.iter().map(|device| Rate { path: device.path.clone(), rate: device.rate }).collect()
        };
        Resources {
            cpu_shares: limits.cpu_shares,
            memory: limits.memory,
            nano_cpus: limits.nano_cpus,
            cgroup_parent: limits.cgroup_parent.clone(),
            blkio_weight: limits.block_weight,
            blkio_weight_device: limits
                .block_weights
                .iter()
                .map(|device| Weight { path: device.path.clone(), weight: device.weight })
                .collect(),
            blkio_device_read_bps: rates(&limits.read_bps),
            blkio_device_write_bps: rates(&limits.write_bps),
            blkio_device_read_iops: rates(&limits.read_iops),
            blkio_device_write_iops: rates(&limits.write_iops),
            cpu_period: limits.cpu_period,
            cpu_quota: limits.cpu_quota,
            cpu_realtime_period: limits.cpu_realtime_period,
            cpu_realtime_runtime: limits.cpu_realtime_runtime,
            cpuset_cpus: limits.cpuset_cpus.clone(),
            cpuset_mems: limits.cpuset_mems.clone(),
            devices: devices(settings),
            device_cgroup_rules: some(settings.devices.rules.clone()),
            memory_reservation: limits.memory_reservation,
            memory_swap: swap(limits),
            memory_swappiness: limits.memory_swappiness,
            oom_kill_disable: limits.oom_kill_disable,
            pids_limit: limits.pids,
            ulimits: ulimits(limits),
        }
    }
}

/// Memory and swap together: by default twice the memory.
fn swap(limits: &Limits) -> i64 {
    if limits.memory_swap == 0 { limits.memory.saturating_mul(2) } else { limits.memory_swap }
}

fn devices(settings: &Settings) -> Vec<Device> {
    let shown = settings.devices.nodes.iter().map(|node| Device {
        path_on_host: node.host.clone(),
        path_in_container: node.inside.clone(),
        cgroup_permissions: node.access.clone(),
    });
    shown.collect()
}

fn ulimits(limits: &Limits) -> Vec<ShownUlimit> {
    let value = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    let shown = limits.ulimits.iter().map(|ulimit| ShownUlimit {
        name: ulimit.name.clone(),
        hard: value(ulimit.hard),
        soft: value(ulimit.soft),
    });
    shown.collect()
}

/// Values of `-v` with a source.
fn binds(settings: &Settings) -> Vec<String> {
    let of_flag = settings.mounts.iter().filter(|mount| mount.flag == Flag::Volume);
    let shown = of_flag.filter_map(|mount| {
        let source = match &mount.source {
            Source::Host { path, .. } => path,
            Source::Volume { name, anonymous: false } => name,
            _ => return None,
        };
        let mode = if mount.mode.is_empty() { String::new() } else { format!(":{}", mount.mode) };
        Some(format!("{source}:{}{mode}", mount.target))
    });
    shown.collect()
}

/// Values of `--tmpfs`.
fn tmpfs(settings: &Settings) -> BTreeMap<String, String> {
    let of_flag = settings.mounts.iter().filter(|mount| mount.flag == Flag::Tmpfs);
    let shown = of_flag.filter_map(|mount| match &mount.source {
        Source::Tmpfs(options) => Some((mount.target.clone(), options.join(","))),
        _ => None,
    });
    shown.collect()
}

/// Mount points of volumes without a name: those of the image, and of `-v TARGET`.
pub(super) fn volumes(settings: &Settings) -> BTreeMap<String, Empty> {
    let of_flag = settings.mounts.iter().filter(|mount| mount.flag == Flag::Volume);
    let anonymous =
        of_flag.filter(|mount| mount.anonymous_volume().is_some()).map(|mount| mount.target.clone());
    settings.image_volumes.iter().cloned().chain(anonymous).map(|path| (path, Empty {})).collect()
}

fn asked(settings: &Settings) -> Vec<AskedMount> {
    let of_flag = settings.mounts.iter().filter(|mount| mount.flag == Flag::Mount);
    let shown = of_flag.map(|mount| AskedMount {
        kind: kind(mount),
        source: match &mount.source {
            Source::Host { path, .. } => path.clone(),
            Source::Volume { name, anonymous: false } => name.clone(),
            Source::Image { name, .. } => name.clone(),
            Source::Volume { .. } | Source::Tmpfs(_) => String::new(),
        },
        target: mount.target.clone(),
        read_only: mount.read_only,
        bind_options: (mount.propagation.is_some() || mount.below == Below::Omitted).then(|| BindOptions {
            propagation: mount.propagation.clone().unwrap_or_default(),
            non_recursive: mount.below == Below::Omitted,
        }),
    });
    shown.collect()
}

fn kind(mount: &MountPoint) -> &'static str {
    match mount.source {
        Source::Host { .. } => "bind",
        Source::Volume { .. } => "volume",
        Source::Tmpfs(_) => "tmpfs",
        Source::Image { .. } => "image",
    }
}

impl ShownMount {
    /// All mounts of a container, except those of `--tmpfs`, which Docker lists elsewhere.
    pub(super) fn all(container: &Container, all: &Containers<'_>) -> Vec<ShownMount> {
        let listed = container.settings.mounts.iter().filter(|mount| mount.flag != Flag::Tmpfs);
        listed.map(|mount| ShownMount::new(mount, all)).collect()
    }

    fn new(mount: &MountPoint, all: &Containers<'_>) -> ShownMount {
        let (name, source, driver) = match &mount.source {
            Source::Host { path, .. } => (String::new(), path.clone(), ""),
            Source::Volume { name, .. } => {
                (name.clone(), all.volume_data(name).display().to_string(), "local")
            }
            Source::Tmpfs(_) => (String::new(), String::new(), ""),
            Source::Image { name, .. } => (String::new(), name.clone(), ""),
        };
        let is_bind = matches!(mount.source, Source::Host { .. });
        let default = if is_bind { "rprivate" } else { "" };
        // What Docker shows for a named volume without options.
        let is_named = mount.volume().is_some() && mount.anonymous_volume().is_none();
        let mode = if mount.mode.is_empty() && is_named { "z".to_owned() } else { mount.mode.clone() };
        ShownMount {
            kind: kind(mount),
            name,
            source,
            destination: mount.target.clone(),
            driver,
            mode,
            rw: !mount.read_only,
            propagation: mount.propagation.clone().unwrap_or_else(|| default.to_owned()),
        }
    }
}
