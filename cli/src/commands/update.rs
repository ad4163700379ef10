//! Command `kiln update`.

use super::each;
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::settings::{Limits, limits};
use kiln_engine::{Containers, EngineError, RestartPolicy, Update as Changes, UpdateError};
use std::ffi::OsString;

/// Change limits and restart policies of containers.
#[derive(Debug, Parser)]
struct Update {
    /// Limit the memory, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Leave this memory to the container when the host has little
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory: Option<String>,
    /// Limit the number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,
    /// Set the weight where processors are contended
    #[arg(short, long, value_name = "WEIGHT", allow_negative_numbers = true)]
    cpu_shares: Option<i64>,
    /// Set the length of a period of processor time
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_period: Option<i64>,
    /// Limit the processor time in each period; -1 for no limit
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
    /// Start the program again after its end: no, always, unless-stopped or on-failure[:TIMES]
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[command(flatten)]
    names: each::Names,
}

/// Describes the command's arguments for help and completion.
pub fn describe() -> clap::Command {
    <Update as clap::CommandFactory>::command()
}

/// Changes each container, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let update: Update = arguments::parse("update", arguments)?;
    let changes = update.changes()?;
    if !update.has_flags() {
        return Err(CliError::failed("you must provide one or more flags when using this command")
            .hint("for example: kiln update --memory 512m --memory-swap 1g NAME"));
    }
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut warnings = Vec::new();
    let mut result = 0;
    for name in update.names.iter() {
        let changed = each::find(&containers, name)
            .and_then(|container| containers.update(&container, &changes).map_err(with_hint));
        match changed {
            Ok(more) => {
                ui::line(name);
                warnings.extend(more);
            }
            Err(error) => {
                error.report();
                result = code::FAILURE;
            }
        }
    }
    warnings.dedup();
    warnings.iter().for_each(|warning| ui::tell_line(&format!("WARNING: {warning}")));
    Ok(result)
}

impl Update {
    fn changes(&self) -> Result<Changes, CliError> {
        if self.kernel_memory.is_some() {
            return Err(CliError::failed(
                "--kernel-memory is not supported: Linux has no such limit any more",
            )
            .hint("limit all memory instead: --memory"));
        }
        let refused = |error: &dyn std::error::Error| CliError::Flags(error.to_string(), Vec::new());
        let restart = self.restart.as_deref().map(RestartPolicy::parse).transpose();
        Ok(Changes {
            limits: self.limits().map_err(|error| refused(&error))?,
            restart: restart.map_err(|error| CliError::failed(error.to_string()))?,
        })
    }

    fn limits(&self) -> Result<Limits, limits::LimitError> {
        let size = |flag: &'static str, text: &Option<String>| {
            text.as_ref().map_or(Ok(0), |text| limits::size(flag, text))
        };
        let swap = self.memory_swap.as_ref().map(|text| limits::size_or_none("memory-swap", text));
        Ok(Limits {
            memory: size("memory", &self.memory)?,
            memory_swap: swap.transpose()?.unwrap_or(0),
            memory_reservation: size("memory-reservation", &self.memory_reservation)?,
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
            ..Limits::default()
        })
    }

    fn has_flags(&self) -> bool {
        let texts = [
            &self.memory,
            &self.memory_swap,
            &self.memory_reservation,
            &self.cpus,
            &self.cpuset_cpus,
            &self.cpuset_mems,
            &self.restart,
        ];
        let numbers = [
            self.cpu_shares,
            self.cpu_period,
            self.cpu_quota,
            self.cpu_rt_period,
            self.cpu_rt_runtime,
            self.pids_limit,
        ];
        texts.iter().any(|text| text.is_some())
            || numbers.iter().any(Option::is_some)
            || self.blkio_weight.is_some()
    }
}

/// Adds what to do about a failure.
fn with_hint(error: EngineError) -> CliError {
    let hint = match &error {
        EngineError::Update { reason: UpdateError::AboveSwap, .. } => {
            "add --memory-swap, the limit of memory and swap together; -1 for unlimited swap"
        }
        EngineError::Update { reason: UpdateError::AutoRemove, .. } => {
            "a container of `kiln run --rm` is removed at its end: run it without --rm"
        }
        EngineError::Update { reason: UpdateError::Processors { .. }, .. } => {
            "keep to one of --cpus and --cpu-period with --cpu-quota, or create the container anew"
        }
        _ => return error.into(),
    };
    CliError::from(error).hint(hint)
}
