//! Limits of a container: memory, processors, processes, block I/O, ulimits (docker/cli `opts`, moby
//! `daemon/daemon_unix.go`).

use crate::quantity;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType,
};
use serde::{Deserialize, Serialize};

/// Least memory of a container, in bytes.
const LEAST_MEMORY: i64 = 6 << 20;
/// Period for `--cpus`, in microseconds.
const PERIOD: u64 = 100_000;
/// Billionths of a processor in one.
const NANO: i64 = 1_000_000_000;

/// Names of ulimits; those of the kernel in lower case.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Limits of a container; 0 and empty texts are no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Limit of memory, in bytes.
    pub memory: i64,
    /// Memory and swap together, in bytes; -1 for unlimited swap, 0 for twice the memory.
    pub memory_swap: i64,
    /// Memory that is left to the container when the host has little, in bytes.
    pub memory_reservation: i64,
    /// Inclination to swap, 0 to 100; `None` for the host's.
    pub memory_swappiness: Option<i64>,
    /// True when no process is killed for lack of memory.
    pub oom_kill_disable: bool,
    /// Inclination of the kernel to kill the container for lack of memory, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Number of processors, in billionths.
    pub nano_cpus: i64,
    /// Weight where processors are contended.
    pub cpu_shares: i64,
    /// Length of a period of processor time, in microseconds.
    pub cpu_period: i64,
    /// Processor time in each period, in microseconds.
    pub cpu_quota: i64,
    /// Length of a period of real-time processor time, in microseconds.
    pub cpu_realtime_period: i64,
    /// Real-time processor time in each period, in microseconds.
    pub cpu_realtime_runtime: i64,
    /// Processors to run on, such as `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes to allocate from, such as `0-1`.
    pub cpuset_mems: String,
    /// Number of processes and threads; `None` and -1 for no limit.
    pub pids: Option<i64>,
    /// Weight of block I/O, 10 to 1000.
    pub block_weight: u16,
    /// Weights of block I/O on single devices.
    pub block_weights: Vec<DeviceWeight>,
    /// Bytes read from devices, per second.
    pub read_bps: Vec<DeviceRate>,
    /// Bytes written to devices, per second.
    pub write_bps: Vec<DeviceRate>,
    /// Reads from devices, per second.
    pub read_iops: Vec<DeviceRate>,
    /// Writes to devices, per second.
    pub write_iops: Vec<DeviceRate>,
    /// Limits of single processes.
    pub ulimits: Vec<Ulimit>,
    /// Size of /dev/shm, in bytes.
    pub shm_size: i64,
    /// Cgroup below which the container's cgroup is created.
    pub cgroup_parent: String,
}

/// Weight of block I/O on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWeight {
    /// Path of the block device.
    pub path: String,
    /// Weight, 10 to 1000.
    pub weight: u16,
}

/// Rate of block I/O on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// Path of the block device.
    pub path: String,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// Limit of single processes (setrlimit(2)); `u64::MAX` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name, such as `nofile`.
    pub name: String,
    /// Limit in force, in the unit of the resource.
    pub soft: u64,
    /// Limit up to which programs may raise it.
    pub hard: u64,
}

/// Largest number that a kernel of 64 bits takes as a limit of processes (`PID_MAX_LIMIT`).
const MOST_PIDS: i64 = 4 << 20;

/// Facts about a host on which limits depend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Numbers of the processors.
    pub processors: Vec<u32>,
    /// Numbers of the memory nodes.
    pub memory_nodes: Vec<u32>,
    /// True when memory cgroups count swap.
    pub counts_swap: bool,
    /// True when memory cgroups are of version 2.
    pub is_unified: bool,
    /// True when this process may set any limit of processes.
    pub can_raise_limits: bool,
}

/// A limit that cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Value of a flag that cannot be read.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {reason}")]
    Value {
        /// Name of the flag, without dashes.
        flag: &'static str,
        /// Value as its user wrote it.
        value: String,
        /// Reason why it is invalid.
        reason: String,
    },
    /// Less memory than a program needs.
    #[error("Minimum {0} allowed is 6MB")]
    LittleMemory(&'static str),
    /// A limit of memory and swap below that of memory.
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    /// A limit of memory and swap without one of memory.
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapAlone,
    /// A reservation above the limit.
    #[error("Minimum memory limit can not be less than memory reservation limit, see usage")]
    ReservationAboveLimit,
    /// A swappiness out of range.
    #[error("invalid value: {0}, valid memory swappiness range is 0-100")]
    Swappiness(i64),
    /// A score out of range.
    #[error("Invalid value {0}, range for oom score adj is [-1000, 1000]")]
    OomScore(i64),
    /// Two flags for one limit.
    #[error("Conflicting options: Nano CPUs and CPU {0} cannot both be set")]
    CpusTwice(&'static str),
    /// More processors than the host has.
    #[error("range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available")]
    Cpus(usize),
    /// A period out of range.
    #[error("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")]
    Period,
    /// A quota out of range.
    #[error("CPU cfs quota can not be less than 1ms (i.e. 1000)")]
    Quota,
    /// More real-time processor time than its period.
    #[error("cpu real-time runtime cannot be higher than cpu real-time period")]
    Realtime,
    /// Shares below zero are none.
    #[error("shares cannot be negative: {0}")]
    Shares(i64),
    /// A malformed list of processors or memory nodes.
    #[error("Invalid value {1} for cpuset {0}")]
    List(&'static str, String),
    /// Processors or memory nodes that the host lacks.
    #[error("Requested {what} are not available - requested {wanted}, available: {available}")]
    NotAvailable {
        /// Kind: CPUs or memory nodes.
        what: &'static str,
        /// List as its user wrote it.
        wanted: String,
        /// List of the host.
        available: String,
    },
    /// A weight out of range.
    #[error("Range of blkio weight is from 10 to 1000")]
    Weight,
    /// More processes than a kernel has ids for (`PID_MAX_LIMIT`).
    #[error("Invalid value {0}, the limit of processes is at most {most}: use -1 for no limit", most = MOST_PIDS)]
    Pids(i64),
    /// A negative size of /dev/shm.
    #[error("SHM size can not be less than 0")]
    Shm,
}

impl Limits {
    /// True when a cgroup has to enforce something.
    pub(crate) fn need_cgroup(&self) -> bool {
        let processes = Limits { oom_score_adj: 0, ulimits: Vec::new(), shm_size: 0, ..self.clone() };
        processes != Limits::default()
    }

    /// Checks the limits for a host. Returns warnings about those that it cannot enforce.
    ///
    /// # Errors
    /// Fails for limits that are out of range, that contradict each other, or that the host does not have.
    pub fn check(&self, capacity: &Capacity) -> Result<Vec<String>, LimitError> {
        self.check_memory()?;
        self.check_processors(capacity)?;
        if self.block_weight != 0 && !(10..=1000).contains(&self.block_weight) {
            return Err(LimitError::Weight);
        }
        if self.shm_size < 0 {
            return Err(LimitError::Shm);
        }
        if let Some(pids) = self.pids.filter(|pids| *pids > MOST_PIDS) {
            return Err(LimitError::Pids(pids));
        }
        Ok(self.warnings(capacity))
    }

    fn check_memory(&self) -> Result<(), LimitError> {
        if self.memory > 0 && self.memory < LEAST_MEMORY {
            return Err(LimitError::LittleMemory("memory limit"));
        }
        if self.memory_swap > 0 && self.memory == 0 {
            return Err(LimitError::SwapAlone);
        }
        if self.memory_swap > 0 && self.memory_swap < self.memory {
            return Err(LimitError::SwapBelowMemory);
        }
        if let Some(swappiness) = self.memory_swappiness.filter(|value| !(0..=100).contains(value)) {
            return Err(LimitError::Swappiness(swappiness));
        }
        if self.memory_reservation > 0 && self.memory_reservation < LEAST_MEMORY {
            return Err(LimitError::LittleMemory("memory reservation"));
        }
        if self.memory > 0 && self.memory_reservation > self.memory {
            return Err(LimitError::ReservationAboveLimit);
        }
        if !(-1000..=1000).contains(&self.oom_score_adj) {
            return Err(LimitError::OomScore(self.oom_score_adj.into()));
        }
        Ok(())
    }

    fn check_processors(&self, capacity: &Capacity) -> Result<(), LimitError> {
        if self.nano_cpus != 0 {
            for (value, name) in [(self.cpu_period, "Period"), (self.cpu_quota, "Quota")] {
                if value != 0 {
                    return Err(LimitError::CpusTwice(name));
                }
            }
            let most = capacity.processors.len();
            if self.nano_cpus < NANO / 100 || self.nano_cpus > NANO * most as i64 {
                return Err(LimitError::Cpus(most));
            }
        }
        if self.cpu_shares < 0 {
            return Err(LimitError::Shares(self.cpu_shares));
        }
        if self.cpu_period != 0 && !(1000..=1_000_000).contains(&self.cpu_period) {
            return Err(LimitError::Period);
        }
        if self.cpu_quota > 0 && self.cpu_quota < 1000 {
            return Err(LimitError::Quota);
        }
        if self.cpu_realtime_period > 0 && self.cpu_realtime_runtime > self.cpu_realtime_period {
            return Err(LimitError::Realtime);
        }
        check_list("cpus", "CPUs", &self.cpuset_cpus, &capacity.processors)?;
        check_list("mems", "memory nodes", &self.cpuset_mems, &capacity.memory_nodes)
    }

    fn warnings(&self, capacity: &Capacity) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |condition: bool, text: &str| {
            if condition {
                warnings.push(text.to_owned());
            }
        };
        warn(
            (self.memory > 0 || self.memory_swap != 0) && !capacity.counts_swap,
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        );
        warn(
            self.memory_swappiness.is_some() && capacity.is_unified,
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        );
        warn(
            self.oom_kill_disable && capacity.is_unified,
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        );
        warn(
            self.oom_kill_disable && self.memory == 0,
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
        );
        if !capacity.can_raise_limits {
            for ulimit in &self.ulimits {
                let most = current_limit(&ulimit.name);
                warn(
                    ulimit.hard > most,
                    &format!(
                        "this process may not raise the limit {}: it is {most} in the container",
                        ulimit.name
                    ),
                );
            }
        }
        warnings
    }

    /// Limits that a cgroup enforces, on a host with this capacity. `numbers` finds the numbers of a block device.
    ///
    /// # Errors
    /// Fails with the error of `numbers`.
    pub(crate) fn resources<E>(
        &self,
        capacity: &Capacity,
        numbers: impl Fn(&str) -> Result<(i64, i64), E>,
    ) -> Result<LinuxResources, E> {
        let given = |value: i64| (value != 0).then_some(value);
        let mut memory = LinuxMemory::default();
        let swap = match self.memory_swap {
            _ if !capacity.counts_swap => None,
            0 => given(self.memory.saturating_mul(2)),
            swap => Some(swap),
        };
        memory
            .set_limit(given(self.memory))
            .set_swap(swap)
            .set_reservation(given(self.memory_reservation))
            .set_swappiness(self.memory_swappiness.filter(|_| !capacity.is_unified).map(i64::cast_unsigned))
            .set_disable_oom_killer((self.oom_kill_disable && !capacity.is_unified).then_some(true));
        let mut resources = LinuxResources::default();
        resources
            .set_memory(Some(memory))
            .set_cpu(Some(self.cpu()))
            .set_block_io(Some(self.block_io(numbers)?));
        if let Some(limit) = self.pids.filter(|limit| *limit != 0) {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
        Ok(resources)
    }

    fn cpu(&self) -> LinuxCpu {
        let given = |value: i64| (value != 0).then_some(value);
        let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let text = |list: &String| (!list.is_empty()).then(|| list.clone());
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(positive(self.cpu_shares))
            .set_period(positive(self.cpu_period))
            .set_quota(given(self.cpu_quota))
            .set_realtime_period(positive(self.cpu_realtime_period))
            .set_realtime_runtime(given(self.cpu_realtime_runtime))
            .set_cpus(text(&self.cpuset_cpus))
            .set_mems(text(&self.cpuset_mems));
        if self.nano_cpus > 0 {
            let quota = i128::from(self.nano_cpus) * i128::from(PERIOD) / i128::from(NANO);
            cpu.set_period(Some(PERIOD)).set_quota(Some(quota as i64));
        }
        cpu
    }

    fn block_io<E>(&self, numbers: impl Fn(&str) -> Result<(i64, i64), E>) -> Result<LinuxBlockIo, E> {
        let rates = |list: &[DeviceRate]| -> Result<Option<Vec<LinuxThrottleDevice>>, E> {
            let convert = |device: &DeviceRate| {
                let (major, minor) = numbers(&device.path)?;
                let built =
                    LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(device.rate).build();
                Ok(built.expect("all fields are set"))
            };
            let list = list.iter().map(convert).collect::<Result<Vec<_>, E>>()?;
            Ok((!list.is_empty()).then_some(list))
        };
        let weight = |device: &DeviceWeight| -> Result<LinuxWeightDevice, E> {
            let (major, minor) = numbers(&device.path)?;
            let built =
                LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(device.weight).build();
            Ok(built.expect("all fields are set"))
        };
        let weights = self.block_weights.iter().map(weight).collect::<Result<Vec<_>, E>>()?;
        let mut block = LinuxBlockIo::default();
        block
            .set_weight((self.block_weight != 0).then_some(self.block_weight))
            .set_weight_device((!weights.is_empty()).then_some(weights))
            .set_throttle_read_bps_device(rates(&self.read_bps)?)
            .set_throttle_write_bps_device(rates(&self.write_bps)?)
            .set_throttle_read_iops_device(rates(&self.read_iops)?)
            .set_throttle_write_iops_device(rates(&self.write_iops)?);
        Ok(block)
    }

    /// Limits of processes for the specification: lowered to the present ones where this process may not raise them.
    pub(crate) fn rlimits(&self, can_raise: bool) -> Option<Vec<PosixRlimit>> {
        let mut limits: Vec<PosixRlimit> = Vec::new();
        for ulimit in &self.ulimits {
            let Ok(kind) = format!("RLIMIT_{}", ulimit.name.to_uppercase()).parse::<PosixRlimitType>() else {
                continue;
            };
            let most = if can_raise { u64::MAX } else { current_limit(&ulimit.name) };
            let (soft, hard) = (ulimit.soft.min(most), ulimit.hard.min(most));
            limits.retain(|old| old.typ() != kind);
            limits.extend(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build());
        }
        (!limits.is_empty()).then_some(limits)
    }
}

impl Capacity {
    /// Facts about this host.
    pub fn detect() -> Capacity {
        let list = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            numbers(text.trim()).filter(|numbers| !numbers.is_empty()).unwrap_or_else(|| vec![0])
        };
        let layout = kiln_runtime::host::Host::get().layout();
        Capacity {
            processors: list("/sys/devices/system/cpu/online"),
            memory_nodes: list("/sys/devices/system/node/online"),
            counts_swap: layout.counts_swap(),
            is_unified: layout.has_unified_memory(),
            can_raise_limits: can_raise_limits(),
        }
    }
}

/// True when this process may raise limits of processes.
pub(crate) fn can_raise_limits() -> bool {
    let bit = kiln_runtime::capability::bit("SYS_RESOURCE");
    bit.is_some_and(|bit| kiln_runtime::capability::permitted() & (1 << bit) != 0)
}

/// Hard limit of this process for a resource; `u64::MAX` for none, and for unknown names.
fn current_limit(name: &str) -> u64 {
    use rustix::process::{Resource, getrlimit};
    let resource = match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return u64::MAX,
    };
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

fn check_list(
    name: &'static str,
    what: &'static str,
    list: &str,
    available: &[u32],
) -> Result<(), LimitError> {
    if list.is_empty() {
        return Ok(());
    }
    let wanted = numbers(list).ok_or_else(|| LimitError::List(name, list.to_owned()))?;
    if wanted.iter().all(|number| available.contains(number)) {
        return Ok(());
    }
    let available: Vec<String> = available.iter().map(ToString::to_string).collect();
    Err(LimitError::NotAvailable { what, wanted: list.to_owned(), available: available.join(",") })
}

/// Numbers in a list such as `0-3,7`; `None` when it is malformed.
fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= 1 << 16 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn invalid(flag: &'static str, value: &str, reason: impl Into<String>) -> LimitError {
    LimitError::Value { flag, value: value.to_owned(), reason: reason.into() }
}

/// Reads a size in bytes, such as `512m`.
///
/// # Errors
/// [`LimitError::Value`] for other texts.
pub fn size(flag: &'static str, text: &str) -> Result<i64, LimitError> {
    quantity::bytes(text).map_err(|error| invalid(flag, text, error.to_string()))
}

/// Reads a size in bytes, or -1 for no limit.
///
/// # Errors
/// [`LimitError::Value`] for other texts.
pub fn size_or_none(flag: &'static str, text: &str) -> Result<i64, LimitError> {
    if text == "-1" { Ok(-1) } else { size(flag, text) }
}

/// Reads a number of processors such as `1.5` or `3/2`, in billionths: any rational number of Go's `big.Rat`.
///
/// # Errors
/// [`LimitError::Value`] for other texts, and for numbers that are no whole billionths.
pub fn processors(text: &str) -> Result<i64, LimitError> {
    let unreadable = || invalid("cpus", text, format!("failed to parse {text} as a rational number"));
    let (numerator, denominator) = rational(text).ok_or_else(unreadable)?;
    let billionths = numerator.checked_mul(i128::from(NANO)).ok_or_else(unreadable)?;
    if billionths % denominator != 0 {
        return Err(invalid("cpus", text, "value is too precise"));
    }
    i64::try_from(billionths / denominator).map_err(|_| unreadable())
}

/// Reads `3/2`, `1.5` or `15e-1` as a fraction.
fn rational(text: &str) -> Option<(i128, i128)> {
    if let Some((above, below)) = text.split_once('/') {
        let (above, below) = (above.parse().ok()?, below.parse::<u32>().ok()?);
        return (below != 0).then_some((above, below.into()));
    }
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let part_is_plain = part.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = number.bytes().any(|byte| byte.is_ascii_digit());
    if !part_is_plain || !has_digits {
        return None;
    }
    let part = part.trim_end_matches('0');
    let digits: i128 = match format!("{whole}{part}").as_str() {
        "" | "-" | "+" => 0,
        digits => digits.parse().ok()?,
    };
    let power = exponent.checked_sub(i32::try_from(part.len()).ok()?)?;
    let factor = 10i128.checked_pow(power.unsigned_abs())?;
    if power < 0 { Some((digits, factor)) } else { Some((digits.checked_mul(factor)?, 1)) }
}

/// Reads `DEVICE:WEIGHT`.
///
/// # Errors
/// [`LimitError::Value`] for other texts.
pub fn device_weight(text: &str) -> Result<DeviceWeight, LimitError> {
    const FLAG: &str = "blkio-weight-device";
    let (path, weight) = device(FLAG, text)?;
    let weight = weight.parse().ok().filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    let weight = weight.ok_or_else(|| invalid(FLAG, text, format!("invalid weight for device: {text}")))?;
    Ok(DeviceWeight { path: path.to_owned(), weight })
}

/// Reads `DEVICE:RATE` in bytes, such as `/dev/sda:1mb`.
///
/// # Errors
/// [`LimitError::Value`] for other texts.
pub fn byte_rate(flag: &'static str, text: &str) -> Result<DeviceRate, LimitError> {
    let (path, rate) = device(flag, text)?;
    let reason = || {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    };
    let rate = quantity::bytes(rate).map_err(|_| invalid(flag, text, reason()))?;
    Ok(DeviceRate { path: path.to_owned(), rate: rate.cast_unsigned() })
}

/// Reads `DEVICE:RATE` in operations.
///
/// # Errors
/// [`LimitError::Value`] for other texts.
pub fn operation_rate(flag: &'static str, text: &str) -> Result<DeviceRate, LimitError> {
    let (path, rate) = device(flag, text)?;
    let reason = || {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )
    };
    let rate = rate.parse().map_err(|_| invalid(flag, text, reason()))?;
    Ok(DeviceRate { path: path.to_owned(), rate })
}

fn device<'a>(flag: &'static str, text: &'a str) -> Result<(&'a str, &'a str), LimitError> {
    let parts = text.split_once(':').filter(|(path, value)| !path.is_empty() && !value.contains(':'));
    let (path, value) = parts.ok_or_else(|| invalid(flag, text, format!("bad format: {text}")))?;
    if !path.starts_with("/dev/") {
        return Err(invalid(flag, text, format!("bad format for device path: {text}")));
    }
    Ok((path, value))
}

/// Reads `NAME=SOFT[:HARD]`, in which -1 is no limit.
///
/// # Errors
/// [`LimitError::Value`] for unknown names and malformed limits.
pub fn ulimit(text: &str) -> Result<Ulimit, LimitError> {
    let wrong = |reason: String| invalid("ulimit", text, reason);
    let parts = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let (name, values) = parts.ok_or_else(|| wrong(format!("invalid ulimit argument: {text}")))?;
    let name = name.trim().to_ascii_lowercase();
    if !ULIMITS.contains(&name.as_str()) {
        return Err(wrong(format!("invalid ulimit type: {name}")));
    }
    let number = |text: &str| match text.trim().parse::<i64>() {
        Ok(-1) => Ok(u64::MAX),
        Ok(number) if number >= 0 => Ok(number.cast_unsigned()),
        _ => Err(wrong("limits are numbers".to_owned())),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        let reason = format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}");
        return Err(wrong(reason));
    }
    Ok(Ulimit { name, soft, hard })
}

#[cfg(test)]
mod tests;
