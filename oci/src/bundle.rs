//! Bundle: a directory with the container's configuration.

use crate::error::OciError;
use oci_spec::runtime::{Process, Spec};
use std::fs;
use std::path::{Path, PathBuf};

/// Largest configuration in bytes: a larger one is a mistake, or an attack.
const MAX_CONFIG: u64 = 16 << 20;

/// Bundle with its parsed configuration.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute path of its directory.
    pub(crate) dir: PathBuf,
    pub(crate) spec: Spec,
    /// Text of the configuration.
    pub(crate) text: Vec<u8>,
    /// Warnings about ignored parts of the configuration.
    pub(crate) warnings: Vec<String>,
}

impl Bundle {
    /// Reads the bundle in `dir`; `config` may name another file in it.
    pub(crate) fn read(dir: &str, config: Option<&str>) -> Result<Bundle, OciError> {
        let given = Path::new(dir);
        let dir = fs::canonicalize(given).map_err(OciError::file("open the bundle", given))?;
        let path = dir.join(config.unwrap_or("config.json"));
        let text = read(&path)?;
        let (spec, warnings) = parse(&path, &text)?;
        Ok(Bundle { dir, spec, text, warnings })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OciError> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(OciError::NoConfig(path.to_owned()));
        }
        other => other.map_err(OciError::file("open", path))?,
    };
    // Longer than most configurations, so that one call reads them.
    let mut text = Vec::with_capacity(64 << 10);
    while text.len() as u64 <= MAX_CONFIG {
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text)) {
            Ok(0) => break,
            Ok(_) => text.reserve(1),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(OciError::file("read", path)(errno.into())),
        }
    }
    if text.len() as u64 > MAX_CONFIG {
        let reason = format!("it is larger than {} MiB", MAX_CONFIG >> 20);
        return Err(OciError::Config { path: path.to_owned(), reason });
    }
    Ok(text)
}

/// Parses a configuration; returns also warnings about ignored parts.
pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<(Spec, Vec<String>), OciError> {
    let invalid =
        |error: serde_json::Error| OciError::Config { path: path.to_owned(), reason: error.to_string() };
    check_nul(path, text)?;
    let error = match serde_json::from_slice(text) {
        Ok(mut spec) => {
            leave_out_no_limit(&mut spec, text);
            return Ok((spec, Vec::new()));
        }
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(text) else { return Err(invalid(error)) };
    let filled = value.get_mut("process").is_some_and(|process| fill_in(process) | rename_flags(process));
    // Unknown capabilities (of newer kernels) are ignored, as other runtimes do; all other unknown values are refused.
    let mut unknown = Vec::new();
    let sets = value.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(serde_json::Value::as_array_mut)
    {
        set.retain(|name| {
            let known = name.as_str().is_none_or(|name| kiln_runtime::capability::bit(name).is_some());
            if !known && !unknown.contains(name) {
                unknown.push(name.clone());
            }
            known
        });
    }
    if unknown.is_empty() && !filled {
        return Err(invalid(error));
    }
    let mut spec = serde_json::from_value(value).map_err(invalid)?;
    leave_out_no_limit(&mut spec, text);
    if unknown.is_empty() {
        return Ok((spec, Vec::new()));
    }
    let names: Vec<&str> = unknown.iter().filter_map(serde_json::Value::as_str).collect();
    Ok((spec, vec![format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" "))]))
}

/// Restores an absent pids limit, which means no limit: the specification's Rust types turn it into 0.
fn leave_out_no_limit(spec: &mut Spec, text: &[u8]) {
    let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) else {
        return;
    };
    if resources.pids().as_ref().is_some_and(|pids| pids.limit() == 0) {
        let value: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
        if value.pointer("/linux/resources/pids/limit").is_none_or(serde_json::Value::is_null) {
            resources.set_pids(None);
        }
    }
}

/// Parses a process without a container, as for `exec --process`.
pub(crate) fn parse_process(path: &Path, text: &[u8]) -> Result<Process, OciError> {
    let invalid =
        |error: serde_json::Error| OciError::Config { path: path.to_owned(), reason: error.to_string() };
    check_nul(path, text)?;
    let mut value: serde_json::Value = serde_json::from_slice(text).map_err(invalid)?;
    fill_in(&mut value);
    rename_flags(&mut value);
    serde_json::from_value(value).map_err(invalid)
}

/// Renames two scheduler flags, whose names in the specification differ from those in its Rust types; returns true when
/// one was found.
fn rename_flags(process: &mut serde_json::Value) -> bool {
    const NAMES: [(&str, &str); 2] = [
        ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
        ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
    ];
    let mut renamed = false;
    let flags = process.pointer_mut("/scheduler/flags").and_then(serde_json::Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        if let Some((_, name)) = NAMES.iter().find(|(name, _)| flag.as_str() == Some(name)) {
            *flag = serde_json::Value::from(*name);
            renamed = true;
        }
    }
    renamed
}

/// Refuses NUL characters, which no path, name, argument or variable can contain: the kernel would use only the part
/// before them.
fn check_nul(path: &Path, text: &[u8]) -> Result<(), OciError> {
    const ESCAPE: &[u8] = b"\\u0000";
    let escaped = |at: usize| text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0;
    let found = text.windows(ESCAPE.len()).enumerate().filter(|(_, part)| *part == ESCAPE);
    let Some(at) = found.map(|(at, _)| at).find(|at| escaped(*at)) else { return Ok(()) };
    let line = text[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = at - text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1) + 1;
    let reason = format!("a text with a NUL character in it at line {line} column {column}");
    Err(OciError::Config { path: path.to_owned(), reason })
}

/// Adds the user root where the caller omits the user; returns true when it was added.
fn fill_in(process: &mut serde_json::Value) -> bool {
    let Some(process) = process.as_object_mut().filter(|process| !process.contains_key("user")) else {
        return false;
    };
    process.insert("user".to_owned(), serde_json::json!({"uid": 0, "gid": 0}));
    true
}
