//! Command `kiln run`: runs a program in a new container.

mod flags;
mod image;
mod signals;
mod trouble;

pub(super) use flags::{Flags, address, read_env_file, refuse_options, with_value};
pub(super) use image::ImageFlags;
pub(super) use signals::Target;
pub(super) use trouble::Trouble;

use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::detach_keys::DetachKeys;
use crate::error::{CliError, code};
use crate::foreground::{self, Ended, Foreground};
use crate::session::{self, Session};
use crate::signals::Signals;
use crate::ui;
use clap::Parser;
use kiln_engine::{Attach, Attached, Container, Containers, Listed, RunOptions, StartFailure, StartOptions};
use kiln_network::resolv;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Run a program in a new container.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Let the container run in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Attach only to these streams: stdin, stdout or stderr; may be repeated
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Leave the container with these keys [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the program
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Wait in the background until the container is healthy, or runs where it has no health check
    #[arg(long)]
    wait: bool,
    /// Fail when the container is not healthy after this number of seconds
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    from: ImageFlags,
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

/// Creates a container and starts it. In the foreground, returns its exit code.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let run: Run = arguments::parse_leading("run", arguments)?;
    let streams = Streams::parse(&run.attach, run.flags.interactive)?;
    if run.detach && streams.are_given {
        return Err(CliError::failed("conflicting options: cannot specify both --attach and --detach"));
    }
    let options = run.options(&streams).map_err(|error| error.with_code(code::USAGE))?;
    let keys = DetachKeys::parse(run.detach_keys.as_deref())?;
    let foreground = streams.foreground(run.flags.tty, keys);
    if !run.detach {
        foreground.check()?;
    }
    let monitor = session::start_monitor()?;
    let target = Target::listen(Signals::catch()?, run.sig_proxy);
    let session = Session::open(globals)?;
    Flags::check_networks(&Containers::open(&session.store)?, &options)?;

    // Layers of the image must not be collected before the container pins them.
    let using = session.store.use_layers()?;
    let image = run.from.image(&session, &run.image)?;
    run.tell_of_name_servers(&options);
    let containers = Containers::open(&session.store)?;
    let owned = run.flags.create(&containers, (&image, &run.image), &options);
    let owned = owned.map_err(|error| error.with_code(code::USAGE))?;
    drop(using);
    let container = owned.container.clone();
    let id = container.id.clone();
    run.flags.write_id(&id)?;
    target.expect();
    let trouble = Trouble::expect(&containers, &owned.container, !run.detach);
    let attach = (!run.detach).then_some(Attach { input: foreground.input });
    let options = StartOptions { state: Path::new(STATE), size: foreground::own_size(), attach };
    let started = monitor.start(&containers, owned, &options);
    let connection = Arc::new(started.map_err(|failure| start_error(&failure))?);
    if run.detach {
        ui::line(&id);
        tell_of_exposure(&containers, &id);
        target.leave();
        return run.wait_until_ready(&containers, &container).map(|()| 0);
    }
    target.set(&connection, run.flags.tty);
    let ended = foreground.run(&connection)?;
    exit_code(ended, &connection, &trouble)
}

/// Prints at which addresses other hosts reach a container that has just started.
fn tell_of_exposure(containers: &Containers<'_>, id: &str) {
    if ui::is_terminal()
        && let Ok(Listed::Sound(container)) = containers.find(id)
    {
        super::ports::tell_of_exposure(&container);
    }
}

/// Exit code of a command that was attached to a container.
pub(super) fn exit_code(ended: Ended, connection: &Attached, trouble: &Trouble) -> Result<u8, CliError> {
    match ended {
        Ended::Exited { code, is_out_of_memory } => {
            connection.wait_for_close();
            trouble.explain(code, is_out_of_memory);
            // An exit code has eight bits.
            Ok(code as u8)
        }
        Ended::Detached => Ok(0),
        Ended::Gone => Err(CliError::failed("the monitor of the container was killed")
            .hint("`kiln ps` shows whether the program still runs, `kiln rm -f` ends it")
            .with_code(code::USAGE)),
    }
}

/// Streams that a command is attached to.
pub(super) struct Streams {
    input: bool,
    stdout: bool,
    stderr: bool,
    are_given: bool,
}

impl Streams {
    /// Reads the flags `-a` and `-i`: without `-a`, both outputs; with `-i`, always the input.
    fn parse(given: &[String], interactive: bool) -> Result<Streams, CliError> {
        let mut streams = Streams {
            input: interactive,
            stdout: given.is_empty(),
            stderr: given.is_empty(),
            are_given: !given.is_empty(),
        };
        for name in given {
            match name.to_ascii_lowercase().as_str() {
                "stdin" => streams.input = true,
                "stdout" => streams.stdout = true,
                "stderr" => streams.stderr = true,
                _ => {
                    let message = format!(
                        "invalid argument \"{name}\" for \"-a, --attach\": valid streams are STDIN, STDOUT and STDERR"
                    );
                    return Err(CliError::Flags(message, Vec::new()));
                }
            }
        }
        Ok(streams)
    }

    fn foreground(&self, terminal: bool, keys: DetachKeys) -> Foreground {
        Foreground { terminal, input: self.input, stdout: self.stdout, stderr: self.stderr, keys }
    }
}

impl Run {
    fn options(&self, streams: &Streams) -> Result<RunOptions, CliError> {
        if self.wait_timeout.is_some() && !self.wait {
            return Err(
                CliError::failed("--wait-timeout is for containers that are waited for").hint("add --wait")
            );
        }
        if self.wait && !self.detach {
            return Err(CliError::failed("--wait is for containers in the background").hint("add -d"));
        }
        // Before the image is pulled.
        if let Some(name) = &self.flags.name {
            kiln_engine::check_name(name)?;
        }
        let mut options = self.flags.options(&self.command)?;
        options.interactive |= streams.input;
        options.stdin_once = options.interactive && !self.detach;
        Ok(options)
    }

    /// Waits for the container as `--wait` asks for.
    fn wait_until_ready(&self, containers: &Containers<'_>, container: &Container) -> Result<(), CliError> {
        if !self.wait {
            return Ok(());
        }
        // A time beyond the clock is no limit.
        let deadline =
            self.wait_timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        super::wait::until_ready(containers, container, deadline)
    }

    /// Reports that the container uses public name servers instead of the host's.
    fn tell_of_name_servers(&self, options: &RunOptions) {
        let asks_hosts = options.network.has_networks() && options.resolution.servers.is_empty();
        if asks_hosts && !self.from.quiet && resolv::for_container().is_public {
            ui::tell_line(&format!("warning: {}", resolv::PUBLIC_NOTICE));
        }
    }
}

/// Error for a container that did not start, with hints.
pub(super) fn start_error(failure: &StartFailure) -> CliError {
    let message = format!("failed to create task for container: {failure}");
    let is_user = ["unable to find user", "unable to find group"].iter().any(|text| message.contains(text));
    let failed = CliError::failed(message).with_code(failure.code as u8);
    match u8::try_from(failure.code) {
        Ok(code::NOT_FOUND) => failed.hint("check the name of the program, and that the image has it (a script also needs the interpreter of its first line)"),
        Ok(code::NOT_EXECUTABLE) => failed.hint("is it a program or a script with `#!`, executable for the container's user, and made for this platform?"),
        _ if failure.is_full => failed.hint(crate::error::FULL),
        _ if failure.free_port.is_some() => {
            // A port that was to be open to this host alone stays so.
            let free = failure.free_port.map_or_else(String::new, |free| match free.ip().is_unspecified() {
                true => free.port().to_string(),
                false => free.to_string(),
            });
            failed.hint(format!("publish another port of the host: {free} is free (-p {free}:PORT)"))
        }
        _ if is_user => failed.hint("name a user of the image's /etc/passwd, or write a number: --user 1000:1000"),
        _ => failed,
    }
}
