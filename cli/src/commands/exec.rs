//! `kiln exec`.

use super::run::{read_env_file, with_value};
use crate::arguments::{self, Globals};
use crate::attach::Attachment;
use crate::detach_keys::DetachKeys;
use crate::error::{CliError, chain, code};
use crate::missing;
use crate::session::{self, Session};
use crate::signals::Signals;
use clap::Parser;
use kiln_engine::events::ExecEvents;
use kiln_engine::{Containers, EngineError, ExecOptions, Listed, Live, start_code};
use kiln_runtime::container::terminal;
use kiln_runtime::{Process, Spawner};
use rustix::fd::{AsFd, OwnedFd};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Run a program in a running container.
#[derive(Debug, Parser)]
struct Exec {
    /// Let the program run in the background
    #[arg(short, long)]
    detach: bool,
    /// Leave the program of a terminal with these keys [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; without VALUE, to its value here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from FILE, one per line; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set the working directory in the container [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as a user, NAME|UID[:GROUP|GID] [default: the container's]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Give the program all capabilities
    #[arg(long)]
    privileged: bool,
    /// Container to run the program in: name or id
    container: String,
    /// Program to run, and its arguments
    #[arg(required = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Exec as clap::CommandFactory>::command()
}

/// Runs a program in a container; returns its exit code.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let exec: Exec = arguments::parse_leading("exec", arguments)?;
    // Other processes of the container see this program until it runs theirs (CVE-2019-5736).
    kiln_runtime::seal::seal();
    let options = exec.options()?;
    // The engine of the reference reads them, and its errors end with another code than those of flags.
    let keys = DetachKeys::parse(exec.detach_keys.as_deref()).map_err(|error| match error {
        CliError::Flags(message, hints) => CliError::Failed { message, hints, code: code::FAILURE },
        other => other,
    })?;
    let attachment = match exec.detach {
        true => Attachment::none(exec.tty)?,
        false => Attachment::new(exec.tty, exec.interactive, keys)?,
    };
    let spawner = session::start_helper()?;
    let signals = Signals::catch()?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let found = containers.find(&exec.container).map_err(|error| missing::container(&containers, error))?;
    let Listed::Sound(container) = found else {
        return Err(CliError::failed(format!("container {} is damaged", exec.container))
            .hint("remove it with kiln rm"));
    };
    session::adopt(&containers, &container);
    let live = containers.live(&container).map_err(not_running)?;
    let events = ExecEvents::create(&containers, &container, &options.arguments);
    let mut process = live
        .exec(&options, &spawner, &attachment.stdio())
        .map_err(|error| start_error(error, &options.arguments[0], &live))?;
    events.start();
    if exec.detach {
        let console = process.console.take();
        return release(&spawner, process, console.as_ref());
    }
    let console = Arc::new(Mutex::new(None));
    let watched = Arc::clone(&console);
    // Keys of a terminal reach the program as bytes: here only its size is of interest, and a closed terminal.
    signals.listen(move |signal| match signal {
        SIGWINCH => {
            let console = watched.lock().unwrap_or_else(PoisonError::into_inner);
            console.iter().for_each(|console: &Arc<_>| terminal::copy_size(console));
        }
        1 | 2 | 3 | 15 => std::process::exit(128 + signal),
        _ => {}
    });
    let attached = attachment.begin(process.console.take())?;
    *console.lock().unwrap_or_else(PoisonError::into_inner) = attached.console();
    if attached.is_left(process.pidfd()) {
        return release(&spawner, process, attached.console().as_deref());
    }
    let code = process.wait().map_err(|error| CliError::failed(error.to_string()))?;
    attached.finish();
    events.die(code);
    Ok(code as u8)
}

/// Leaves the program running, with the helper as its parent.
fn release(spawner: &Spawner, process: Process, console: Option<&OwnedFd>) -> Result<u8, CliError> {
    let released = spawner.release(process, console.map(AsFd::as_fd));
    released.map(|()| 0).map_err(|error| CliError::failed(error.to_string()))
}

const SIGWINCH: i32 = 28;

impl Exec {
    fn options(&self) -> Result<ExecOptions, CliError> {
        if let Some(dir) = self.workdir.as_ref().filter(|dir| !dir.starts_with('/')) {
            return Err(
                CliError::failed(format!("Cwd must be an absolute path: {dir}")).hint("write -w /DIR")
            );
        }
        let mut environment = Vec::new();
        for path in &self.env_file {
            environment.extend(read_env_file(path).map_err(|error| error.with_code(code::FAILURE))?);
        }
        environment.extend(self.env.iter().cloned());
        Ok(ExecOptions {
            arguments: self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            environment: environment.into_iter().map(with_value).collect::<Result<_, _>>()?,
            dir: self.workdir.clone(),
            user: self.user.clone(),
            tty: self.tty,
            privileged: self.privileged,
        })
    }
}

fn not_running(error: EngineError) -> CliError {
    CliError::from(error).hint("only running containers take further programs: `kiln ps` lists them")
}

/// Names of shells that users try.
const SHELLS: [&str; 7] = ["bash", "/bin/bash", "sh", "/bin/sh", "zsh", "/bin/zsh", "ash"];

/// Hint about the shell that a container has instead of `program`.
fn other_shell(program: &str, live: &Live) -> String {
    match live.shells().first() {
        Some(shell) => {
            let name = shell.rsplit('/').next().unwrap_or(shell);
            format!("the container has no {program}: try {name} (it has {shell})")
        }
        None => format!(
            "the container has no {program}, and no other shell: `kiln cp` and `kiln export` show its files"
        ),
    }
}

/// Describes why the program does not run, with what to do.
fn start_error(error: EngineError, program: &str, live: &Live) -> CliError {
    let code = start_code(&error);
    if matches!(error, EngineError::UnknownCgroups(_)) {
        return CliError::from(error)
            .hint("end it and run it again: its program then has device rules that exec can join");
    }
    let failed = CliError::failed(format!("exec failed: {}", chain(&error)));
    match u8::try_from(code) {
        Ok(code::NOT_FOUND) if SHELLS.contains(&program) => {
            failed.with_code(code::NOT_FOUND).hint(other_shell(program, live))
        }
        Ok(code::NOT_FOUND) => {
            failed.with_code(code::NOT_FOUND).hint("check the name of the program, and that the image has it")
        }
        Ok(code::NOT_EXECUTABLE) => failed.with_code(code::NOT_EXECUTABLE).hint(
            "is it a program or a script with `#!`, executable for this user, and made for this platform?",
        ),
        _ => failed.with_code(code::FAILURE),
    }
}
