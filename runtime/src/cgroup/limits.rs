//! Limits of the OCI runtime specification as values of cgroup files.

use oci_spec::runtime::LinuxResources;
use std::borrow::Cow;

/// Name of a cgroup file, and the value to write.
pub(super) type File = (Cow<'static, str>, String);

/// One limit: its controller, and file and value in the versions that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) limit: &'static str,
    pub(super) controller: &'static str,
    pub(super) unified: Option<File>,
    pub(super) legacy: Option<File>,
}

/// Settings for `resources`, in the order in which they must be written.
pub(super) fn settings(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    memory(resources, &mut settings);
    cpu(resources, &mut settings);
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let text = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        settings.push(setting("pids", "pids", ("pids.max", text.clone()), ("pids.max", text)));
    }
    block_io(resources, &mut settings);
    others(resources, &mut settings);
    settings
}

fn setting(
    limit: &'static str,
    controller: &'static str,
    unified: (&'static str, String),
    legacy: (&'static str, String),
) -> Setting {
    let file = |(name, value): (&'static str, String)| Some((Cow::Borrowed(name), value));
    Setting { limit, controller, unified: file(unified), legacy: file(legacy) }
}

fn legacy_only(limit: &'static str, controller: &'static str, name: &'static str, value: String) -> Setting {
    Setting { limit, controller, unified: None, legacy: Some((Cow::Borrowed(name), value)) }
}

fn unified_only(limit: &'static str, controller: &'static str, name: &'static str, value: String) -> Setting {
    Setting { limit, controller, unified: Some((Cow::Borrowed(name), value)), legacy: None }
}

fn memory(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(memory) = resources.memory() else { return };
    let text = |limit: i64| if limit < 0 { "max".to_owned() } else { limit.to_string() };
    // A limit of 0 means no limit, as in other runtimes.
    let given = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
    let limit = given(memory.limit());
    if let Some(limit) = limit {
        let legacy = ("memory.limit_in_bytes", limit.to_string());
        settings.push(setting("memory", "memory", ("memory.max", text(limit)), legacy));
    }
    if let Some(reservation) = given(memory.reservation()) {
        let legacy = ("memory.soft_limit_in_bytes", reservation.to_string());
        settings.push(setting("memory reservation", "memory", ("memory.low", text(reservation)), legacy));
    }
    // Without a memory limit there is no swap limit either, unless one is specified.
    let swap = given(memory.swap()).or(limit.filter(|limit| *limit < 0));
    if let Some(swap) = swap {
        // Version 1 counts memory and swap together, version 2 swap alone.
        let alone = if swap < 0 { -1 } else { (swap - memory.limit().unwrap_or(0)).max(0) };
        let legacy = ("memory.memsw.limit_in_bytes", swap.to_string());
        settings.push(setting("memory swap", "memory", ("memory.swap.max", text(alone)), legacy));
    }
    if let Some(bytes) = given(memory.kernel_tcp()) {
        let name = "memory.kmem.tcp.limit_in_bytes";
        settings.push(legacy_only("kernel TCP memory", "memory", name, bytes.to_string()));
    }
    if let Some(swappiness) = memory.swappiness() {
        settings.push(legacy_only("swappiness", "memory", "memory.swappiness", swappiness.to_string()));
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.push(legacy_only("no out-of-memory kills", "memory", "memory.oom_control", "1".to_owned()));
    }
}

fn cpu(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(cpu) = resources.cpu() else { return };
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        let legacy = ("cpu.shares", shares.to_string());
        settings.push(setting("cpu shares", "cpu", ("cpu.weight", weight(shares).to_string()), legacy));
    }
    let period = cpu.period().filter(|period| *period > 0);
    let quota = cpu.quota().filter(|quota| *quota != 0);
    // Version 2 has one file for both, which is written once.
    let unified = |settings: &mut Vec<Setting>| {
        let text = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        let value = match period {
            Some(period) => format!("{text} {period}"),
            None => text,
        };
        settings.push(unified_only("cpu quota", "cpu", "cpu.max", value));
    };
    if let Some(period) = period {
        settings.push(legacy_only("cpu period", "cpu", "cpu.cfs_period_us", period.to_string()));
    }
    if let Some(quota) = quota {
        settings.push(legacy_only("cpu quota", "cpu", "cpu.cfs_quota_us", quota.max(-1).to_string()));
    }
    if period.is_some() || quota.is_some() {
        unified(settings);
    }
    if let Some(burst) = cpu.burst() {
        let burst = burst.to_string();
        settings.push(setting(
            "cpu burst",
            "cpu",
            ("cpu.max.burst", burst.clone()),
            ("cpu.cfs_burst_us", burst),
        ));
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period > 0) {
        settings.push(legacy_only("cpu realtime period", "cpu", "cpu.rt_period_us", period.to_string()));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        settings.push(legacy_only("cpu realtime runtime", "cpu", "cpu.rt_runtime_us", runtime.to_string()));
    }
    if let Some(idle) = cpu.idle() {
        let idle = idle.to_string();
        settings.push(setting("cpu idle", "cpu", ("cpu.idle", idle.clone()), ("cpu.idle", idle)));
    }
    for (list, limit, file) in [(cpu.cpus(), "cpus", "cpuset.cpus"), (cpu.mems(), "mems", "cpuset.mems")] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            settings.push(setting(limit, "cpuset", (file, list.clone()), (file, list.clone())));
        }
    }
}

fn block_io(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(block) = resources.block_io() else { return };
    if let Some(weight) = block.weight().filter(|weight| *weight > 0) {
        let unified = io_weight(u64::from(weight)).to_string();
        settings.push(setting(
            "block I/O weight",
            "io",
            ("io.weight", unified),
            ("blkio.weight", weight.to_string()),
        ));
    }
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let legacy = format!("{}:{} {weight}", device.major(), device.minor());
            settings.push(legacy_only("block I/O weight of a device", "io", "blkio.weight_device", legacy));
        }
    }
    let throttles = [
        (block.throttle_read_bps_device(), "rbps", "blkio.throttle.read_bps_device"),
        (block.throttle_write_bps_device(), "wbps", "blkio.throttle.write_bps_device"),
        (block.throttle_read_iops_device(), "riops", "blkio.throttle.read_iops_device"),
        (block.throttle_write_iops_device(), "wiops", "blkio.throttle.write_iops_device"),
    ];
    for (devices, key, file) in throttles {
        for device in devices.iter().flatten() {
            let (major, minor, rate) = (device.major(), device.minor(), device.rate());
            let rate_text = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            let unified = format!("{major}:{minor} {key}={rate_text}");
            let legacy = format!("{major}:{minor} {rate}");
            settings.push(setting("block I/O rate", "io", ("io.max", unified), (file, legacy)));
        }
    }
}

fn others(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    for page in resources.hugepage_limits().iter().flatten() {
        let size = page.page_size();
        settings.push(Setting {
            limit: "huge pages",
            controller: "hugetlb",
            unified: Some((format!("hugetlb.{size}.max").into(), page.limit().to_string())),
            legacy: Some((format!("hugetlb.{size}.limit_in_bytes").into(), page.limit().to_string())),
        });
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            settings.push(legacy_only("network class", "net_cls", "net_cls.classid", class.to_string()));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            settings.push(legacy_only("network priority", "net_prio", "net_prio.ifpriomap", value));
        }
    }
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by(|a, b| a.0.cmp(b.0));
    for (device, limits) in devices {
        let part = |name: &str, limit: Option<u32>| limit.map(|limit| format!(" {name}={limit}"));
        let parts = [part("hca_handle", limits.hca_handles()), part("hca_object", limits.hca_objects())];
        let value = format!("{device}{}", parts.into_iter().flatten().collect::<String>());
        settings.push(setting("RDMA", "rdma", ("rdma.max", value.clone()), ("rdma.max", value)));
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        settings.push(Setting {
            limit: "unified",
            controller: "",
            unified: Some((file.clone().into(), value.clone())),
            legacy: None,
        });
    }
}

/// Converts a version 1 weight of block I/O (10 to 1000) to a version 2 weight (1 to 10000).
fn io_weight(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// Converts version 1 shares (2 to 262144, default 1024) to a version 2 weight (1 to 10000, default 100), by the curve
/// that crun and runc use: shares 1024 become 100.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144) as f64;
    let log = shares.log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_for_both_versions() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":1000,"swap":3000},"cpu":{"shares":1024,"quota":50000,"period":100000},"pids":{"limit":7}}"#,
        )
        .unwrap();
        let settings = settings(&resources);
        let file = |file: &Option<File>| {
            file.as_ref().map_or("-".to_owned(), |(name, value)| format!("{name}={value}"))
        };
        let shown: Vec<_> =
            settings.iter().map(|s| format!("{} {}", file(&s.unified), file(&s.legacy))).collect();
        let expected = [
            "memory.max=1000 memory.limit_in_bytes=1000",
            "memory.swap.max=2000 memory.memsw.limit_in_bytes=3000",
            "cpu.weight=100 cpu.shares=1024",
            "- cpu.cfs_period_us=100000",
            "- cpu.cfs_quota_us=50000",
            "cpu.max=50000 100000 -",
            "pids.max=7 pids.max=7",
        ];
        assert_eq!(shown, expected);
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }
}
