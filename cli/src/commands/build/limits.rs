//! Limits of RUN steps: size of /dev/shm, ulimits, memory and processors.

use crate::error::CliError;
use clap::Args;
use kiln_builder::RunLimits;

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

/// Limits that Linux supports, by Docker's names.
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

/// Parses a size with a suffix of b, k, m, g or t as Docker does: powers of 1024, `64m`, `64MB` and `64MiB` alike.
fn bytes(flag: &str, text: &str) -> Result<i64, CliError> {
    let invalid = || {
        CliError::Flags(
            format!("invalid argument {text:?} for {flag:?} flag: invalid size: '{text}'"),
            vec!["write a number with b, k, m or g, such as 64m".to_owned()],
        )
    };
    let trimmed = text.trim().to_ascii_lowercase();
    let end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(invalid()),
    };
    let value = number * 1024f64.powi(power);
    if value.is_finite() && value < i64::MAX as f64 { Ok(value as i64) } else { Err(invalid()) }
}

/// Parses `NAME=SOFT[:HARD]`, in which -1 is no limit.
fn ulimit(text: &str) -> Result<(String, u64, u64), CliError> {
    let invalid = |reason: &str| {
        CliError::Flags(
            format!("invalid argument {text:?} for \"--ulimit\" flag: {reason}"),
            vec!["write NAME=SOFT[:HARD], such as nofile=1024:2048".to_owned()],
        )
    };
    let (name, values) = text.split_once('=').ok_or_else(|| invalid("invalid ulimit argument"))?;
    let name = name.trim().to_ascii_lowercase();
    if !ULIMITS.contains(&name.as_str()) {
        return Err(invalid(&format!("invalid ulimit type: {name}")));
    }
    let number = |text: &str| match text.trim().parse::<i64>() {
        Ok(-1) => Ok(u64::MAX),
        Ok(number) if number >= 0 => Ok(number.cast_unsigned()),
        _ => Err(invalid("limits are numbers")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err(invalid("ulimit soft limit must be less than or equal to hard limit"));
    }
    Ok((name, soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [("0", 0), ("512", 512), ("64m", 64 << 20), ("1.5k", 1536), ("2GiB", 2 << 30)]
        {
            assert_eq!(bytes("--shm-size", text).ok(), Some(expected), "{text}");
        }
        for text in ["", "m", "1x", "-1", "1e3"] {
            assert!(bytes("--shm-size", text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits() {
        assert_eq!(ulimit("nofile=5:6").ok(), Some(("nofile".to_owned(), 5, 6)));
        assert_eq!(ulimit("core=-1").ok(), Some(("core".to_owned(), u64::MAX, u64::MAX)));
        for text in ["nofile", "nofile=x", "nofile=6:5", "files=1", "nofile=-2"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }
}
