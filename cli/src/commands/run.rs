//! Command `kiln run`: runs a program in a new container.

mod flags;
mod image;
mod signals;

pub(super) use flags::{read_env_file, with_value};

use crate::arguments::{self, Globals};
use crate::attach::Attachment;
use crate::config::STATE;
use crate::error::{CliError, code};
use crate::session::{self, Session};
use crate::signals::Signals;
use crate::ui;
use clap::Parser;
use flags::Flags;
use image::ImageFlags;
use kiln_engine::{Containers, EngineError, NetworkMode, RunOptions, start_code};
use kiln_network::resolv;
use signals::Target;
use std::ffi::OsString;
use std::path::Path;

/// Run a program in a new container.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Run {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
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

/// Creates a container, starts it, and returns its exit code.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let run: Run = arguments::parse_leading("run", arguments)?;
    let options = run.flags.options(&run.command).map_err(|error| error.with_code(code::USAGE))?;
    let attachment = Attachment::new(run.flags.tty, run.flags.interactive)?;
    let spawner = session::start_helper()?;
    let target = Target::listen(Signals::catch()?);
    let session = Session::open(globals)?;

    // Layers of the image must not be collected before the container pins them.
    let using = session.store.use_layers()?;
    let image = run.from.image(&session, &run.image)?;
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
    /// Reports that the container uses public name servers instead of the host's.
    fn tell_of_name_servers(&self, options: &RunOptions) {
        if options.network == NetworkMode::Bridge && !self.from.quiet && resolv::for_container().is_public {
            ui::tell_line(&format!("warning: {}", resolv::PUBLIC_NOTICE));
        }
    }
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
