//! Limits of the OCI runtime specification as values of cgroup files.

use oci_spec::runtime::LinuxResources;

/// One limit: its controller, and file and value in either version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) limit: &'static str,
    pub(super) controller: &'static str,
    pub(super) unified: (&'static str, String),
    pub(super) legacy: (&'static str, String),
}

/// The settings that `resources` asks for, in the order in which they must be written.
pub(super) fn settings(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    memory(resources, &mut settings);
    cpu(resources, &mut settings);
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let text = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        settings.push(setting("pids", "pids", ("pids.max", text.clone()), ("pids.max", text)));
    }
    settings
}

fn setting(
    limit: &'static str,
    controller: &'static str,
    unified: (&'static str, String),
    legacy: (&'static str, String),
) -> Setting {
    Setting { limit, controller, unified, legacy }
}

fn memory(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(memory) = resources.memory() else { return };
    let text = |limit: i64| if limit < 0 { "max".to_owned() } else { limit.to_string() };
    if let Some(limit) = memory.limit() {
        let legacy = ("memory.limit_in_bytes", limit.to_string());
        settings.push(setting("memory", "memory", ("memory.max", text(limit)), legacy));
    }
    if let Some(reservation) = memory.reservation() {
        let legacy = ("memory.soft_limit_in_bytes", reservation.to_string());
        settings.push(setting("memory reservation", "memory", ("memory.low", text(reservation)), legacy));
    }
    if let Some(swap) = memory.swap() {
        // Version 1 counts memory and swap together, version 2 swap alone.
        let alone = if swap < 0 { -1 } else { (swap - memory.limit().unwrap_or(0)).max(0) };
        let legacy = ("memory.memsw.limit_in_bytes", swap.to_string());
        settings.push(setting("memory swap", "memory", ("memory.swap.max", text(alone)), legacy));
    }
}

fn cpu(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(cpu) = resources.cpu() else { return };
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        let legacy = ("cpu.shares", shares.to_string());
        settings.push(setting("cpu shares", "cpu", ("cpu.weight", weight(shares).to_string()), legacy));
    }
    let period = cpu.period().filter(|period| *period > 0);
    if let Some(period) = period {
        let quota =
            cpu.quota().filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        let legacy = ("cpu.cfs_period_us", period.to_string());
        settings.push(setting("cpu period", "cpu", ("cpu.max", format!("{quota} {period}")), legacy));
    }
    if let Some(quota) = cpu.quota() {
        let text = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let legacy = ("cpu.cfs_quota_us", quota.to_string());
        let unified = ("cpu.max", format!("{text} {}", period.unwrap_or(100_000)));
        settings.push(setting("cpu quota", "cpu", unified, legacy));
    }
    for (list, limit, file) in [(cpu.cpus(), "cpus", "cpuset.cpus"), (cpu.mems(), "mems", "cpuset.mems")] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            settings.push(setting(limit, "cpuset", (file, list.clone()), (file, list.clone())));
        }
    }
}

/// Version 1 shares (2 to 262144, default 1024) as version 2 weight (1 to 10000, default 100), by the curve
/// that crun and runc use: shares 1024 give 100.
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
        let shown: Vec<_> = settings
            .iter()
            .map(|s| format!("{}={} {}={}", s.unified.0, s.unified.1, s.legacy.0, s.legacy.1))
            .collect();
        let expected = [
            "memory.max=1000 memory.limit_in_bytes=1000",
            "memory.swap.max=2000 memory.memsw.limit_in_bytes=3000",
            "cpu.weight=100 cpu.shares=1024",
            "cpu.max=50000 100000 cpu.cfs_period_us=100000",
            "cpu.max=50000 100000 cpu.cfs_quota_us=50000",
            "pids.max=7 pids.max=7",
        ];
        assert_eq!(shown, expected);
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }
}
