//! `update`: changes the limits of an existing container.

use crate::Globals;
use crate::arguments::{Arguments, Flag, value};
use crate::error::OciError;
use kiln_runtime::cgroup::{self, Groups, stats};
use kiln_runtime::container::cgroup_place;
use kiln_runtime::host::Host;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use std::io::Read;
use std::path::Path;

pub(super) const FLAGS: &[Flag] = &[
    value(&["resources", "r"]),
    value(&["blkio-weight"]),
    value(&["cpu-period"]),
    value(&["cpu-quota"]),
    value(&["cpu-burst"]),
    value(&["cpu-share"]),
    value(&["cpu-rt-period"]),
    value(&["cpu-rt-runtime"]),
    value(&["cpu-idle"]),
    value(&["cpuset-cpus"]),
    value(&["cpuset-mems"]),
    value(&["kernel-memory"]),
    value(&["kernel-memory-tcp"]),
    value(&["memory"]),
    value(&["memory-reservation"]),
    value(&["memory-swap"]),
    value(&["pids-limit"]),
    value(&["l3-cache-schema"]),
    value(&["mem-bw-schema"]),
];

pub(super) fn update(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let mut container = globals.store.open(arguments.id("update")?)?;
    let lines: Vec<String> = ["l3-cache-schema", "mem-bw-schema"]
        .iter()
        .filter_map(|flag| arguments.get(flag).filter(|text| !text.is_empty()).map(str::to_owned))
        .collect();
    if !lines.is_empty() {
        let class = container.record.class.as_ref().ok_or_else(|| {
            OciError::usage("--l3-cache-schema and --mem-bw-schema need a container with `intelRdt`")
        })?;
        class.assign(&lines)?;
    }
    let resources = match arguments.get("resources") {
        Some(path) => from_file(path)?,
        None => from_flags(arguments)?,
    };
    let layout = Host::get().layout();
    let spec = container.config()?;
    let place = cgroup_place(&spec, &container.record.id);
    container.need_groups()?;
    let before = container.record.groups.clone();
    container.record.groups.extend(layout, &place, &resources)?;
    if container.record.groups != before {
        container.save()?;
    }
    for limit in cgroup::without_effect(&resources) {
        globals.log.warn(&format!("{limit} is ignored: Linux has no such limit any more"));
    }
    check_usage(&container.record.groups, &resources)?;
    container.record.groups.apply(layout, Some(&resources))?;
    Ok(0)
}

/// Refuses a memory limit below the current usage, which would kill the container, when the caller requests this check.
fn check_usage(groups: &Groups, resources: &LinuxResources) -> Result<(), OciError> {
    let memory = resources.memory().as_ref();
    let memory = memory.filter(|memory| memory.check_before_update() == Some(true));
    let Some(limit) = memory.and_then(LinuxMemory::limit).and_then(|limit| u64::try_from(limit).ok()) else {
        return Ok(());
    };
    let usage = stats::read(groups).memory.usage.usage;
    if limit == 0 || usage <= limit {
        return Ok(());
    }
    Err(OciError::MemoryInUse { limit, usage })
}

fn from_file(path: &str) -> Result<LinuxResources, OciError> {
    let mut text = Vec::new();
    if path == "-" {
        std::io::stdin()
            .read_to_end(&mut text)
            .map_err(OciError::file("read", Path::new("standard input")))?;
    } else {
        text = std::fs::read(path).map_err(OciError::file("read", Path::new(path)))?;
    }
    let mut resources: LinuxResources = serde_json::from_slice(&text)
        .map_err(|error| OciError::Config { path: path.into(), reason: error.to_string() })?;
    // Device rules stay as they were at the container's creation.
    resources.set_devices(None);
    Ok(resources)
}

fn from_flags(arguments: &Arguments) -> Result<LinuxResources, OciError> {
    let mut memory = LinuxMemory::default();
    let bytes = |name: &str| {
        arguments.get(name).filter(|text| !text.is_empty()).map(|text| size(name, text)).transpose()
    };
    memory
        .set_limit(bytes("memory")?)
        .set_reservation(bytes("memory-reservation")?)
        .set_swap(bytes("memory-swap")?)
        .set_kernel(bytes("kernel-memory")?)
        .set_kernel_tcp(bytes("kernel-memory-tcp")?);
    let mut cpu = LinuxCpu::default();
    let list = |name: &str| arguments.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
    cpu.set_shares(arguments.number("cpu-share")?)
        .set_quota(arguments.number("cpu-quota")?)
        .set_burst(arguments.number("cpu-burst")?)
        .set_period(arguments.number("cpu-period")?)
        .set_realtime_runtime(arguments.number("cpu-rt-runtime")?)
        .set_realtime_period(arguments.number("cpu-rt-period")?)
        .set_idle(arguments.number("cpu-idle")?)
        .set_cpus(list("cpuset-cpus"))
        .set_mems(list("cpuset-mems"));
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_memory(Some(memory)).set_cpu(Some(cpu));
    if let Some(limit) = arguments.number::<i64>("pids-limit")? {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = arguments.number::<u16>("blkio-weight")? {
        let mut block = LinuxBlockIo::default();
        block.set_weight(Some(weight));
        resources.set_block_io(Some(block));
    }
    Ok(resources)
}

/// Parses a size in bytes, with a unit or without; -1 is no limit.
fn size(name: &str, text: &str) -> Result<i64, OciError> {
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let lower = lower.strip_suffix('i').unwrap_or(lower);
    let (number, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let bytes = number.trim().parse::<i64>().ok().filter(|number| *number >= 0);
    bytes
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| OciError::usage(format!("invalid value for {name}: {text:?} is no size such as 512m")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("64k", 65536),
            ("32M", 32 << 20),
            ("1GiB", 1 << 30),
            ("2gb", 2 << 30),
            ("-1", -1),
        ] {
            assert_eq!(size("memory", text).ok(), Some(bytes), "{text}");
        }
        for bad in ["", "x", "-2", "1q", "9999999999999t", "1.5"] {
            assert!(size("memory", bad).is_err(), "{bad}");
        }
    }
}
