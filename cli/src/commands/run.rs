//! Command `kiln run`: runs a program in a new container.

use crate::arguments::{self, Globals};
use crate::attach::Attachment;
use crate::config::STATE;
use crate::error::{CliError, code};
use crate::images::ImageFinder;
use crate::missing;
use crate::pulling;
use crate::session::{self, Session};
use crate::signals::Signals;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError, NetworkMode, RunOptions, Running, SecurityOptions, start_code};
use kiln_image::platform::Platform;
use kiln_image::store::{Image, StoreError};
use kiln_network::resolv;
use kiln_runtime::container::terminal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Run a program in a new container.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; without VALUE, to its value here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from FILE, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set the working directory in the container [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as a user, NAME|UID[:GROUP|GID] [default: the image's]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Run a first process that passes signals on and reaps orphans
    #[arg(long)]
    init: bool,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Run PROGRAM instead of the image's; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Set the host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Set a label of the container; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Connect the container to a network: bridge, none or host
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    network: String,
    /// Set a security option, NAME=VALUE: apparmor, label, no-new-privileges, seccomp; may be repeated
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Pull the image when it is missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: String,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    /// Image to run
    image: String,
    /// Program, or arguments for the image's program
    #[arg(allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Describes the command's arguments for help and completion.
pub fn describe() -> clap::Command {
    <Run as clap::CommandFactory>::command()
}

/// Creates a container, starts it, and returns its exit code.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let run: Run = arguments::parse_leading("run", arguments)?;
    let options = run.options().map_err(|error| error.with_code(code::USAGE))?;
    let attachment = Attachment::new(run.tty, run.interactive)?;
    let spawner = session::start_helper()?;
    let target = Target::listen(Signals::catch()?);
    let session = Session::open(globals)?;

    // Layers of the image must not be collected before the container pins them.
    let using = session.store.use_layers()?;
    let image = run.image(&session)?;
    run.tell_of_name_servers(&options);
    let containers = Containers::open(&session.store)?;
    let owned = containers.create(&image, &run.image, &options).map_err(create_error)?;
    drop(using);
    target.expect();
    let started = owned.start(&spawner, Path::new(STATE), &attachment.stdio());
    let mut running = match started {
        Ok(running) => running,
        Err(failed) => {
            let (owned, error) = *failed;
            let code = start_code(&error);
            let failed = start_error(&error, code);
            if options.auto_remove {
                owned.remove()?;
            }
            return Err(failed);
        }
    };
    let attached = attachment.begin(running.process.console.take())?;
    target.set(&running, attached.console());
    let code = running.wait()?;
    attached.finish();
    // An exit code has eight bits.
    Ok(code as u8)
}

impl Run {
    fn options(&self) -> Result<RunOptions, CliError> {
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
            arguments: self.command.iter().map(text).collect(),
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

    /// Reports that the container uses public name servers instead of the host's.
    fn tell_of_name_servers(&self, options: &RunOptions) {
        if options.network == NetworkMode::Bridge && !self.quiet && resolv::for_container().is_public {
            ui::tell_line(&format!("warning: {}", resolv::PUBLIC_NOTICE));
        }
    }

    /// Finds the image, and pulls it if the options require that.
    fn image(&self, session: &Session) -> Result<Image, CliError> {
        let store = &session.store;
        let pull = || {
            let finder = ImageFinder::new(store, &session.config.registry);
            let lines = |text: &str| {
                if !self.quiet {
                    ui::tell_line(text);
                }
            };
            pulling::pull(&finder, &self.image, &lines).map_err(|error| {
                let near = missing::near_image(store, &self.image);
                let error =
                    near.iter().fold(error, |error, near| error.hint(format!("did you mean {near}?")));
                error.with_code(code::USAGE)
            })?;
            Ok::<_, CliError>(store.resolve(&self.image)?)
        };
        let record = match (self.pull.as_str(), store.resolve(&self.image)) {
            ("always", _) => pull()?,
            ("missing" | "never", Ok(record)) => record,
            ("missing", Err(StoreError::NoSuchImage(name))) => {
                if !self.quiet {
                    ui::tell_line(&format!("Unable to find image '{name}' locally"));
                }
                pull()?
            }
            ("missing" | "never", Err(error)) => {
                return Err(missing::image(store, error).with_code(code::USAGE));
            }
            (other, _) => {
                return Err(CliError::Flags(
                    format!(
                        "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
                    ),
                    Vec::new(),
                ));
            }
        };
        let image = store.read_image(record)?;
        let (own, host) = (image.config.platform(), Platform::host());
        if own.distance(&host).is_none() {
            return Err(CliError::failed(format!(
                "the image {} is for {own}, this host is {host}",
                self.image
            ))
            .hint("programs for other platforms cannot be run yet")
            .with_code(code::USAGE));
        }
        Ok(image)
    }
}

/// Completes `NAME` with its value in this process; a name without a value stays, and removes the image's variable.
pub(super) fn with_value(entry: String) -> Result<String, CliError> {
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
pub(super) fn read_env_file(path: &Path) -> Result<Vec<String>, CliError> {
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

fn create_error(error: EngineError) -> CliError {
    CliError::from(error).with_code(code::USAGE)
}

/// Error for a container that did not start, with hints.
fn start_error(error: &EngineError, code: i32) -> CliError {
    let message = format!("failed to create task for container: {}", crate::error::chain(error));
    let is_user = ["unable to find user", "unable to find group"].iter().any(|text| message.contains(text));
    let failed = CliError::failed(message).with_code(code as u8);
    match u8::try_from(code) {
        Ok(code::NOT_FOUND) => failed.hint("check the name of the program, and that the image has it (a script also needs the interpreter of its first line)"),
        Ok(code::NOT_EXECUTABLE) => failed.hint("is it a program or a script with `#!`, executable for the container's user, and made for this platform?"),
        _ if error.is_full() => failed.hint(crate::error::FULL),
        _ if is_user => failed.hint("name a user of the image's /etc/passwd, or write a number: --user 1000:1000"),
        _ => failed,
    }
}

/// Recipient of signals, which changes with the state of the start.
#[derive(Clone)]
struct Target {
    shared: Arc<Mutex<Reached>>,
}

/// State of the start, as far as signals need it.
#[derive(Default)]
enum Reached {
    /// No container exists: signals end the command.
    #[default]
    Nothing,
    /// The container is starting; these signals are sent to it afterwards.
    Starting(Vec<i32>),
    /// The program of the container runs.
    Running {
        process: OwnedFd,
        console: Option<Arc<OwnedFd>>,
        /// Number of SIGINT and SIGTERM so far.
        asked: u32,
    },
}

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGWINCH: i32 = 28;
/// Number of requests to end after which the container is killed.
const PATIENCE: u32 = 3;
/// Time for a program to end before the user is shown how to kill it.
const MOMENT: Duration = Duration::from_secs(1);
/// Time for a program to end after its terminal was closed.
const HANG_UP_GRACE: Duration = Duration::from_secs(5);

impl Target {
    fn listen(signals: Signals) -> Target {
        let target = Target { shared: Arc::default() };
        let hearing = target.clone();
        signals.listen(move |signal| hearing.hear(signal));
        target
    }

    /// Directs signals to the container that is being started.
    fn expect(&self) {
        *self.lock() = Reached::Starting(Vec::new());
    }

    fn set(&self, running: &Running<'_>, console: Option<Arc<OwnedFd>>) {
        let Ok(process) = running.process.pidfd().try_clone_to_owned() else { return };
        let before = std::mem::replace(&mut *self.lock(), Reached::Running { process, console, asked: 0 });
        if let Reached::Starting(signals) = before {
            signals.into_iter().for_each(|signal| self.hear(signal));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reached> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, signal: i32) {
        match &mut *self.lock() {
            Reached::Nothing if matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM) => {
                std::process::exit(128 + signal);
            }
            Reached::Nothing => {}
            Reached::Starting(signals) => signals.push(signal),
            Reached::Running { console: Some(console), .. } if signal == SIGWINCH => {
                terminal::copy_size(console)
            }
            Reached::Running { process, asked, console } => {
                *asked += u32::from(matches!(signal, SIGINT | SIGTERM));
                let signal = if *asked >= PATIENCE { SIGKILL } else { signal };
                send(process, signal);
                if let Ok(process) = process.try_clone() {
                    match signal {
                        SIGINT => after(process, MOMENT, told_to_press(PATIENCE - *asked)),
                        // Without its terminal the user can neither see nor end the program.
                        SIGHUP if console.is_some() => {
                            after(process, HANG_UP_GRACE, |process| send(process, SIGKILL))
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

fn send(process: &OwnedFd, signal: i32) {
    if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
        // An ended container needs no signal.
        let _ = rustix::process::pidfd_send_signal(process, signal);
    }
}

/// Calls `act` on a new thread if the process has not ended after `time`.
fn after(process: OwnedFd, time: Duration, act: impl FnOnce(&OwnedFd) + Send + 'static) {
    std::thread::spawn(move || {
        let mut polled = [PollFd::new(&process, PollFlags::IN)];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        // A pidfd is readable when its process has ended.
        if matches!(poll(&mut polled, Some(&time)), Ok(0)) {
            act(&process);
        }
    });
}

/// Shows how often Ctrl-C has to be pressed to kill the container.
fn told_to_press(left: u32) -> impl FnOnce(&OwnedFd) + Send + 'static {
    move |_| {
        let times = if left == 1 { "once".to_owned() } else { format!("{left} times") };
        ui::tell_line(&format!(
            "the program goes on after Ctrl-C: press Ctrl-C {times} more to kill the container"
        ));
    }
}
