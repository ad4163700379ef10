//! Limits of RUN steps: size of /dev/shm, ulimits, memory and processors.

use crate::error::CliError;
use clap::Args;
use kiln_builder::RunLimits;
use kiln_engine::quantity;
use kiln_engine::settings::{Ulimit, limits};

/// Flags that limit RUN.
#[derive(Debug, Default, Args)]
pub(super) struct LimitFlags {
    /// Set the size of /dev/shm in RUN steps, such as 128m [default: 64m]
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Set a ulimit of RUN steps; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Create the cgroups of RUN steps in this cgroup
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<String>,
    /// Limit the memory of a RUN step, such as 512m [default: no limit]
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Set the weight of a RUN step when processors are contended [default: 1024]
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Limit the processor time of a RUN step in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Set the length of that period [default: 100000]
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Run RUN steps on these processors, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Allocate the memory of RUN steps from these NUMA nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Set limits by key: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    #[arg(long, value_name = "KEY=VALUE,…")]
    resource: Vec<String>,
}

impl LimitFlags {
    /// Limits from all flags.
    pub(super) fn read(&self) -> Result<RunLimits, CliError> {
        let size = |flag, text: &Option<String>| text.as_ref().map(|text| bytes(flag, text)).transpose();
        let mut limits = RunLimits {
            shm_size: size("--shm-size", &self.shm_size)?.map(i64::cast_unsigned),
            ulimits: self.ulimit.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
            memory: size("--memory", &self.memory)?,
            memory_swap: self.memory_swap.as_ref().map(|text| swap(text)).transpose()?,
            cpu_shares: self.cpu_shares,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpus: self.cpuset_cpus.clone(),
            memory_nodes: self.cpuset_mems.clone(),
            cgroup_parent: self.cgroup_parent.clone().filter(|name| !name.is_empty()),
        };
        for pair in self.resource.iter().flat_map(|list| list.split(',')) {
            set_resource(&mut limits, pair)?;
        }
        if limits.memory.is_some()
            && limits.memory_swap.is_some_and(|swap| swap >= 0 && Some(swap) < limits.memory)
        {
            return Err(CliError::failed("--memory-swap is less than --memory")
                .hint("it counts memory and swap together"));
        }
        Ok(limits)
    }
}

fn set_resource(limits: &mut RunLimits, pair: &str) -> Result<(), CliError> {
    let invalid = || {
        CliError::Flags(
            format!("invalid value {pair:?} for --resource"),
            vec!["write KEY=VALUE, with memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems".to_owned()],
        )
    };
    let (key, value) = pair.split_once('=').ok_or_else(invalid)?;
    let number = || value.parse::<i64>().map_err(|_| invalid());
    match key.trim() {
        "memory" => limits.memory = Some(bytes("--resource memory", value)?),
        "memory-swap" => limits.memory_swap = Some(swap(value)?),
        "cpu-shares" => limits.cpu_shares = Some(number()?.cast_unsigned()),
        "cpu-period" => limits.cpu_period = Some(number()?.cast_unsigned()),
        "cpu-quota" => limits.cpu_quota = Some(number()?),
        "cpuset-cpus" => limits.cpus = Some(value.to_owned()),
        "cpuset-mems" => limits.memory_nodes = Some(value.to_owned()),
        _ => return Err(invalid()),
    }
    Ok(())
}

/// Parses a size, or `-1` for no limit.
fn swap(text: &str) -> Result<i64, CliError> {
    if text == "-1" { Ok(-1) } else { bytes("--memory-swap", text) }
}

/// Parses a size such as `64m`.
fn bytes(flag: &str, text: &str) -> Result<i64, CliError> {
    quantity::bytes(text).map_err(|error| {
        CliError::Flags(
            format!("invalid argument {text:?} for {flag:?} flag: {error}"),
            vec!["write a number with b, k, m or g, such as 64m".to_owned()],
        )
    })
}

/// Parses `NAME=SOFT[:HARD]`, in which -1 is no limit.
fn ulimit(text: &str) -> Result<(String, u64, u64), CliError> {
    let read = limits::ulimit(text).map_err(|error| {
        CliError::Flags(
            error.to_string(),
            vec!["write NAME=SOFT[:HARD], such as nofile=1024:2048".to_owned()],
        )
    });
    read.map(|Ulimit { name, soft, hard }| (name, soft, hard))
}
