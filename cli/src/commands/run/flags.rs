//! Flags of a new container, for `kiln run` and `kiln create`.

use crate::error::{CliError, code};
use clap::Args;
use kiln_engine::{NetworkMode, RunOptions, SecurityOptions};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Settings of the container.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Remove the container when it has ended
    #[arg(long)]
    pub(super) rm: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Set an environment variable; without VALUE, to its value here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<String>,
    /// Read environment variables from FILE, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// Set the working directory in the container [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<String>,
    /// Run as a user, NAME|UID[:GROUP|GID] [default: the image's]
    #[arg(short, long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// Run a first process that passes signals on and reaps orphans
    #[arg(long)]
    pub(super) init: bool,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Run PROGRAM instead of the image's; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub(super) entrypoint: Option<String>,
    /// Set the host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(super) hostname: Option<String>,
    /// Set a label of the container; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Connect the container to a network: bridge, none or host
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    pub(super) network: String,
    /// Set a security option, NAME=VALUE: apparmor, label, no-new-privileges, seccomp; may be repeated
    #[arg(long, value_name = "OPTION")]
    pub(super) security_opt: Vec<String>,
}

impl Flags {
    /// Converts the flags, with the arguments of the container's program.
    pub(super) fn options(&self, command: &[OsString]) -> Result<RunOptions, CliError> {
        let text = |argument: &OsString| argument.to_string_lossy().into_owned();
        let mut environment = BTreeMap::new();
        let mut order = Vec::new();
        let from_files =
            self.env_file.iter().map(|path| read_env_file(path)).collect::<Result<Vec<_>, _>>()?;
        for entry in from_files.into_iter().flatten().chain(self.env.iter().cloned()) {
            let entry = with_value(entry)?;
            let name = entry.split('=').next().unwrap_or_default().to_owned();
            if environment.insert(name.clone(), entry).is_none() {
                order.push(name);
            }
        }
        let pairs = self.label.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
        Ok(RunOptions {
            name: self.name.clone(),
            auto_remove: self.rm,
            arguments: command.iter().map(text).collect(),
            entrypoint: self.entrypoint.clone(),
            environment: order.iter().filter_map(|name| environment.remove(name)).collect(),
            dir: self.working_dir()?,
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            labels: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            init: self.init,
            tty: self.tty,
            interactive: self.interactive,
            network: self.network_mode()?,
            security: SecurityOptions::parse(&self.security_opt)
                .map_err(|error| CliError::failed(error.to_string()).with_code(code::USAGE))?,
        })
    }

    fn working_dir(&self) -> Result<Option<String>, CliError> {
        match &self.workdir {
            Some(dir) if !dir.starts_with('/') => Err(CliError::failed(format!(
                "the working directory '{dir}' is invalid, it needs to be an absolute path"
            ))
            .with_code(code::USAGE)),
            other => Ok(other.clone()),
        }
    }

    fn network_mode(&self) -> Result<NetworkMode, CliError> {
        match self.network.as_str() {
            "bridge" | "default" => Ok(NetworkMode::Bridge),
            "none" => Ok(NetworkMode::None),
            "host" => Ok(NetworkMode::Host),
            other => Err(CliError::failed(format!("network {other} not found"))
                .hint("kiln run knows the networks bridge, none and host")
                .with_code(code::USAGE)),
        }
    }
}

/// Completes `NAME` with its value in this process; a name without a value stays, and removes the image's variable.
pub(in crate::commands) fn with_value(entry: String) -> Result<String, CliError> {
    if entry.is_empty() || entry.starts_with('=') {
        let message = format!("invalid environment variable: {entry}");
        return Err(CliError::Flags(message, vec!["write -e NAME=VALUE".to_owned()]));
    }
    if entry.contains('=') {
        return Ok(entry);
    }
    Ok(match std::env::var(&entry) {
        Ok(value) => format!("{entry}={value}"),
        Err(_) => entry,
    })
}

/// Lines of an environment file without comments (docker/cli `pkg/kvfile`).
pub(in crate::commands) fn read_env_file(path: &Path) -> Result<Vec<String>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::failed(format!("cannot read `{}`: {error}", path.display())).with_code(code::USAGE)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                let message = format!("`{}`: no variable name on line '{line}'", path.display());
                return Err(CliError::failed(message).with_code(code::USAGE));
            }
            Ok(line.to_owned())
        })
        .collect()
}
