//! Statistics of a container's cgroups, in the format of runc's `events`.

use super::Groups;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// All statistics: bytes, nanoseconds and counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: BlockIo,
    pub hugetlb: BTreeMap<String, HugePages>,
    #[serde(rename = "intel_rdt")]
    pub intel_rdt: BTreeMap<String, String>,
}

/// Use of processor time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
}

/// Processor time used, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct CpuUsage {
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(rename = "percpu_kernel", skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(rename = "percpu_user", skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

/// Throttling by processor time limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
}

/// Memory use by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct Memory {
    pub cache: u64,
    pub usage: MemoryUsage,
    pub swap: MemoryUsage,
    pub kernel: MemoryUsage,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryUsage,
    pub raw: BTreeMap<String, u64>,
}

/// Use of one kind of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct MemoryUsage {
    pub limit: u64,
    pub usage: u64,
    pub max: u64,
    pub failcnt: u64,
}

/// Number of processes and its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct Pids {
    pub current: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Bytes and operations of block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
}

/// One counter of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct BlockIoEntry {
    pub major: u64,
    pub minor: u64,
    pub op: String,
    pub value: u64,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are runc's, and say it")]
pub struct HugePages {
    pub usage: u64,
    pub max: u64,
    pub failcnt: u64,
}

/// Reads the statistics; values that this host does not count are 0.
pub fn read(groups: &Groups) -> Stats {
    let mut stats = Stats::default();
    if let Some(dir) = groups.unified_path() {
        read_unified(dir, &mut stats);
    }
    let legacy = [
        ("cpuacct", read_cpuacct as fn(&Path, &mut Stats)),
        ("cpu", read_cpu),
        ("memory", read_memory),
        ("pids", read_pids),
        ("blkio", read_blkio),
        ("hugetlb", read_hugetlb),
    ];
    for (controller, read) in legacy {
        if let Some(dir) = groups.path_of(controller) {
            read(dir, &mut stats);
        }
    }
    stats
}

/// Number of processes that the kernel has ended in the cgroup for lack of memory; 0 where it does not count them.
pub fn out_of_memory_kills(groups: &Groups) -> u64 {
    let legacy = groups.path_of("memory").map(|dir| table(dir, "memory.oom_control"));
    let unified = groups.unified_path().map(|dir| table(dir, "memory.events"));
    legacy.into_iter().chain(unified).filter_map(|counts| counts.get("oom_kill").copied()).max().unwrap_or(0)
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// Parses lines of a name and a number.
fn table(dir: &Path, file: &str) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    let entry = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

fn read_unified(dir: &Path, stats: &mut Stats) {
    const NANOSECONDS: u64 = 1000;
    let cpu = table(dir, "cpu.stat");
    let microseconds = |name: &str| cpu.get(name).copied().unwrap_or(0) * NANOSECONDS;
    stats.cpu.usage.total = microseconds("usage_usec");
    stats.cpu.usage.user = microseconds("user_usec");
    stats.cpu.usage.kernel = microseconds("system_usec");
    let count = |name: &str| cpu.get(name).copied().unwrap_or(0);
    stats.cpu.throttling = Throttling {
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: microseconds("throttled_usec"),
    };
    let memory = table(dir, "memory.stat");
    if let Some(usage) = number(dir, "memory.current") {
        let events = table(dir, "memory.events");
        stats.memory.cache = memory.get("file").copied().unwrap_or(0);
        stats.memory.usage = MemoryUsage {
            limit: number(dir, "memory.max").unwrap_or(0),
            usage,
            max: number(dir, "memory.peak").unwrap_or(0),
            failcnt: events.get("max").copied().unwrap_or(0),
        };
        stats.memory.swap = MemoryUsage {
            limit: number(dir, "memory.swap.max").unwrap_or(0),
            usage: number(dir, "memory.swap.current").unwrap_or(0),
            max: number(dir, "memory.swap.peak").unwrap_or(0),
            failcnt: 0,
        };
        stats.memory.raw = memory;
    }
    read_pids(dir, stats);
    read_hugetlb(dir, stats);
    let io = fs::read_to_string(dir.join("io.stat")).unwrap_or_default();
    for line in io.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (list, op) = match key {
                "rbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut stats.blkio.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut stats.blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.blkio.io_serviced_recursive, "Write"),
                "dios" => (&mut stats.blkio.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            list.push(BlockIoEntry { major, minor, op: op.to_owned(), value });
        }
    }
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn read_cpuacct(dir: &Path, stats: &mut Stats) {
    let usage = &mut stats.cpu.usage;
    usage.total = number(dir, "cpuacct.usage").unwrap_or(usage.total);
    let each = fs::read_to_string(dir.join("cpuacct.usage_percpu")).unwrap_or_default();
    usage.percpu = each.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // A header line, then one line for each processor: its number, nanoseconds in user mode and in the kernel.
    let all = fs::read_to_string(dir.join("cpuacct.usage_all")).unwrap_or_default();
    let column = |place: usize| {
        let number = |line: &str| line.split_whitespace().nth(place)?.parse().ok();
        all.lines().skip(1).filter_map(number).collect()
    };
    usage.percpu_user = column(1);
    usage.percpu_kernel = column(2);
    usage.user = number(dir, "cpuacct.usage_user").unwrap_or(usage.user);
    usage.kernel = number(dir, "cpuacct.usage_sys").unwrap_or(usage.kernel);
}

fn read_cpu(dir: &Path, stats: &mut Stats) {
    let table = table(dir, "cpu.stat");
    let count = |name: &str| table.get(name).copied().unwrap_or(0);
    stats.cpu.throttling = Throttling {
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: count("throttled_time"),
    };
}

fn read_memory(dir: &Path, stats: &mut Stats) {
    let usage = |prefix: &str| MemoryUsage {
        limit: number(dir, &format!("{prefix}.limit_in_bytes")).unwrap_or(0),
        usage: number(dir, &format!("{prefix}.usage_in_bytes")).unwrap_or(0),
        max: number(dir, &format!("{prefix}.max_usage_in_bytes")).unwrap_or(0),
        failcnt: number(dir, &format!("{prefix}.failcnt")).unwrap_or(0),
    };
    let raw = table(dir, "memory.stat");
    stats.memory = Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: usage("memory"),
        swap: usage("memory.memsw"),
        kernel: usage("memory.kmem"),
        kernel_tcp: usage("memory.kmem.tcp"),
        raw,
    };
}

fn read_pids(dir: &Path, stats: &mut Stats) {
    if let Some(current) = number(dir, "pids.current") {
        stats.pids.current = current;
        stats.pids.limit = number(dir, "pids.max").filter(|limit| *limit != u64::MAX);
    }
}

/// For either version: each size has its own files, and its bytes in use are called `current` or `usage_in_bytes`.
fn read_hugetlb(dir: &Path, stats: &mut Stats) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")).unwrap_or_default();
        let size = name.strip_suffix(".current").or_else(|| name.strip_suffix(".usage_in_bytes"));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let value = |name: &str| number(dir, &format!("hugetlb.{size}.{name}"));
        let pages = HugePages {
            usage: value("current").or_else(|| value("usage_in_bytes")).unwrap_or(0),
            max: value("max_usage_in_bytes").unwrap_or(0),
            failcnt: value("failcnt").unwrap_or_else(|| {
                table(dir, &format!("hugetlb.{size}.events")).get("max").copied().unwrap_or(0)
            }),
        };
        stats.hugetlb.insert(size.to_owned(), pages);
    }
}

fn read_blkio(dir: &Path, stats: &mut Stats) {
    let read = |file: &str| -> Vec<BlockIoEntry> {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let (major, minor) = device(words.next()?)?;
            let op = words.next()?.to_owned();
            Some(BlockIoEntry { major, minor, op, value: words.next()?.parse().ok()? })
        };
        text.lines().filter_map(entry).collect()
    };
    stats.blkio.io_service_bytes_recursive = read("blkio.throttle.io_service_bytes_recursive");
    stats.blkio.io_serviced_recursive = read("blkio.throttle.io_serviced_recursive");
}
