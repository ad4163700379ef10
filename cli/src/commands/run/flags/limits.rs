//! Flags that limit a container.

use super::refused;
use crate::error::CliError;
use clap::Args;
use kiln_engine::settings::{Limits, limits};

/// Limits of the container.
#[derive(Debug, Default, Args)]
pub(super) struct LimitFlags {
    /// Limit the memory, such as 512m [default: no limit]
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 for unlimited swap [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Leave this memory to the container when the host has little
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Set the inclination to swap, 0 to 100; -1 for the host's
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    memory_swappiness: Option<i64>,
    /// Kill no process of the container for lack of memory
    #[arg(long)]
    oom_kill_disable: bool,
    /// Set the inclination of the kernel to kill the container for lack of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    oom_score_adj: Option<i32>,
    /// Limit the number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,
    /// Set the weight where processors are contended [default: 1024]
    #[arg(short, long, value_name = "WEIGHT", allow_negative_numbers = true)]
    cpu_shares: Option<i64>,
    /// Set the length of a period of processor time [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_period: Option<i64>,
    /// Limit the processor time in each period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Set the length of a period of real-time processor time
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_period: Option<i64>,
    /// Limit the real-time processor time in each period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Run on these processors, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Allocate memory from these nodes, such as 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Limit the number of processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Set the weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Set the weight of block I/O on a device; may be repeated
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Limit the bytes read from a device per second; may be repeated
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_read_bps: Vec<String>,
    /// Limit the bytes written to a device per second; may be repeated
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_write_bps: Vec<String>,
    /// Limit the reads from a device per second; may be repeated
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_read_iops: Vec<String>,
    /// Limit the writes to a device per second; may be repeated
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_write_iops: Vec<String>,
    /// Set a ulimit; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Set the size of /dev/shm, such as 128m [default: 64m]
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Create the container's cgroup below this one
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<String>,
}

impl LimitFlags {
    /// Limits from all flags.
    pub(super) fn read(&self) -> Result<Limits, CliError> {
        self.parse().map_err(refused)
    }

    fn parse(&self) -> Result<Limits, limits::LimitError> {
        let size = |flag: &'static str, text: &Option<String>| {
            text.as_ref().map_or(Ok(0), |text| limits::size(flag, text))
        };
        let byte_rates = |flag: &'static str, list: &[String]| {
            list.iter().map(|text| limits::byte_rate(flag, text)).collect::<Result<Vec<_>, _>>()
        };
        let operation_rates = |flag: &'static str, list: &[String]| {
            list.iter().map(|text| limits::operation_rate(flag, text)).collect::<Result<Vec<_>, _>>()
        };
        let swap = self.memory_swap.as_ref().map(|text| limits::size_or_none("memory-swap", text));
        Ok(Limits {
            memory: size("memory", &self.memory)?,
            memory_swap: swap.transpose()?.unwrap_or(0),
            memory_reservation: size("memory-reservation", &self.memory_reservation)?,
            memory_swappiness: self.memory_swappiness.filter(|value| *value != -1),
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: self.oom_score_adj.unwrap_or(0),
            nano_cpus: self.cpus.as_ref().map_or(Ok(0), |text| limits::processors(text))?,
            cpu_shares: self.cpu_shares.unwrap_or(0),
            cpu_period: self.cpu_period.unwrap_or(0),
            cpu_quota: self.cpu_quota.unwrap_or(0),
            cpu_realtime_period: self.cpu_rt_period.unwrap_or(0),
            cpu_realtime_runtime: self.cpu_rt_runtime.unwrap_or(0),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            pids: self.pids_limit.filter(|limit| *limit != 0),
            block_weight: self.blkio_weight.unwrap_or(0),
            block_weights: self
                .blkio_weight_device
                .iter()
                .map(|text| limits::device_weight(text))
                .collect::<Result<_, _>>()?,
            read_bps: byte_rates("device-read-bps", &self.device_read_bps)?,
            write_bps: byte_rates("device-write-bps", &self.device_write_bps)?,
            read_iops: operation_rates("device-read-iops", &self.device_read_iops)?,
            write_iops: operation_rates("device-write-iops", &self.device_write_iops)?,
            ulimits: self.ulimit.iter().map(|text| limits::ulimit(text)).collect::<Result<_, _>>()?,
            shm_size: size("shm-size", &self.shm_size)?,
            cgroup_parent: self.cgroup_parent.clone().unwrap_or_default(),
        })
    }
}
