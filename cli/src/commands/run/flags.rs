//! Flags of a new container, for `kiln run` and `kiln create`.

mod life;
mod limits;
mod mounts;
mod names;
mod networks;
mod security;

use crate::error::{CliError, code};
use crate::{missing, ui};
use clap::Args;
use kiln_engine::log::LogSettings;
use kiln_engine::{Containers, EngineError, Owned, RestartPolicy, RunOptions};
use kiln_image::store::Image;
use life::LifeFlags;
use limits::LimitFlags;
use mounts::MountFlags;
use names::NameFlags;
use networks::NetworkFlags;
pub(in crate::commands) use networks::{address, refuse_options};
use security::SecurityFlags;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variable with a socket that tests use as the journal's.
const TEST_SOCKET: &str = "KILN_TEST_JOURNAL_SOCKET";

/// Settings of the container.
#[derive(Debug, Args)]
pub(in crate::commands) struct Flags {
    /// Remove the container when it has ended
    #[arg(long)]
    pub(in crate::commands) rm: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(in crate::commands) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(in crate::commands) tty: bool,
    /// Set an environment variable; without VALUE, to its value here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(in crate::commands) env: Vec<String>,
    /// Read environment variables from FILE, one per line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(in crate::commands) env_file: Vec<PathBuf>,
    /// Set the working directory in the container [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    pub(in crate::commands) workdir: Option<String>,
    /// Run as a user, NAME|UID[:GROUP|GID] [default: the image's]
    #[arg(short, long, value_name = "USER")]
    pub(in crate::commands) user: Option<String>,
    /// Run a first process that passes signals on and reaps orphans
    #[arg(long)]
    pub(in crate::commands) init: bool,
    /// Start the program again after its end: no, always, unless-stopped or on-failure[:TIMES]
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(in crate::commands) restart: String,
    /// Log the output by this driver: json-file, local, journald or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    pub(in crate::commands) log_driver: String,
    /// Set an option of the log, NAME=VALUE: max-size, max-file; of journald: tag, labels, env; may be repeated
    #[arg(long, value_name = "OPTION")]
    pub(in crate::commands) log_opt: Vec<String>,
    /// Write the id of the container to FILE, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(in crate::commands) cidfile: Option<PathBuf>,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    pub(in crate::commands) name: Option<String>,
    /// Remove a container of the same name first, also one that runs
    #[arg(long)]
    pub(in crate::commands) replace: bool,
    /// Run PROGRAM instead of the image's; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub(in crate::commands) entrypoint: Option<String>,
    /// Set the host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(in crate::commands) hostname: Option<String>,
    /// Set a label of the container; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(in crate::commands) label: Vec<String>,
    #[command(flatten)]
    networks: NetworkFlags,
    #[command(flatten)]
    mounts: MountFlags,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    security: SecurityFlags,
    #[command(flatten)]
    names: NameFlags,
    #[command(flatten)]
    life: LifeFlags,
}

impl Flags {
    /// Converts the flags, with the arguments of the container's program.
    pub(in crate::commands) fn options(&self, command: &[OsString]) -> Result<RunOptions, CliError> {
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
        let usage =
            |error: &dyn std::error::Error| CliError::failed(error.to_string()).with_code(code::USAGE);
        let restart = RestartPolicy::parse(&self.restart).map_err(|error| usage(&error))?;
        if self.rm && restart != RestartPolicy::No {
            return Err(CliError::failed("conflicting options: cannot specify both --restart and --rm"));
        }
        if self.replace && self.name.is_none() {
            return Err(refused("cannot replace a container: --replace needs --name"));
        }
        if let Some(path) = self.cidfile.as_ref().filter(|path| path.exists()) {
            return Err(CliError::failed(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            )));
        }
        let pairs = self.label.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
        let mut labels = self.life.labels()?;
        labels.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut options = RunOptions {
            name: self.name.clone(),
            replaces: self.replace,
            auto_remove: self.rm,
            arguments: command.iter().map(text).collect(),
            entrypoint: self.entrypoint.clone(),
            environment: order.iter().filter_map(|name| environment.remove(name)).collect(),
            dir: self.working_dir()?,
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            labels,
            init: self.init,
            tty: self.tty,
            interactive: self.interactive,
            restart,
            stdin_once: self.interactive,
            log: self.log_settings()?,
            id_file: self.cidfile.as_ref().map(|path| path.display().to_string()),
            limits: self.limits.read()?,
            ..RunOptions::default()
        };
        self.mounts.add_to(&mut options)?;
        self.security.add_to(&mut options)?;
        self.names.add_to(&mut options)?;
        self.networks.add_to(&mut options)?;
        self.life.add_to(&mut options)?;
        for warning in options.check().map_err(refused)? {
            ui::tell_line(&format!("WARNING: {warning}"));
        }
        Ok(options)
    }

    /// Creates the container, in place of one of the same name if that is asked for.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be created, or the other one cannot be removed.
    pub(in crate::commands) fn create(
        &self,
        containers: &Containers<'_>,
        image: (&Image, &str),
        options: &RunOptions,
    ) -> Result<Owned, CliError> {
        containers.create(image.0, image.1, options).map_err(|error| in_use(containers, error))
    }

    /// Checks the networks of the new container, before its image is fetched.
    ///
    /// # Errors
    ///
    /// Fails when one does not exist, or lacks what is asked for.
    pub(in crate::commands) fn check_networks(
        containers: &Containers<'_>,
        options: &RunOptions,
    ) -> Result<(), CliError> {
        containers.check_networks(options).map_err(|error| in_use(containers, error).with_code(code::USAGE))
    }

    /// Writes the id of the new container to the file of `--cidfile`.
    ///
    /// # Errors
    ///
    /// Fails when the file exists or cannot be written.
    pub(in crate::commands) fn write_id(&self, id: &str) -> Result<(), CliError> {
        use std::io::Write;
        let Some(path) = &self.cidfile else { return Ok(()) };
        let created = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
        created.and_then(|mut file| file.write_all(id.as_bytes())).map_err(|error| {
            CliError::failed(format!("failed to create the container ID file `{}`: {error}", path.display()))
                .with_code(code::USAGE)
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

    fn log_settings(&self) -> Result<LogSettings, CliError> {
        let settings = LogSettings::parse(&self.log_driver, &self.log_opt);
        let mut settings =
            settings.map_err(|error| CliError::failed(error.to_string()).with_code(code::USAGE))?;
        settings.socket = std::env::var_os(TEST_SOCKET).map(PathBuf::from);
        settings.check_host().map_err(|error| {
            CliError::failed(error.to_string())
                .hint("leave out --log-driver: `kiln logs` reads the default, json-file")
        })?;
        Ok(settings)
    }
}

/// Adds what to do: to a name that is in use which container has it, to the name of a network a near one.
fn in_use(containers: &Containers<'_>, error: EngineError) -> CliError {
    if let (EngineError::NoSuchNetwork(_), Ok(networks)) = (&error, containers.networks()) {
        return missing::network(&networks, error);
    }
    let EngineError::NameTaken { name, .. } = &error else { return error.into() };
    let name = name.clone();
    missing::taken(containers, &name, error.into())
}

/// Error for a flag with a value that cannot be used.
fn refused(error: impl std::fmt::Display) -> CliError {
    CliError::failed(error.to_string()).with_code(code::USAGE)
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
