//! `kiln create`.

use super::run::{Flags, ImageFlags};
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::Containers;
use std::ffi::OsString;

/// Create a container without starting it.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Create {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    from: ImageFlags,
    /// Image of the container
    image: String,
    /// Program, or arguments for the image's program
    #[arg(allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Describes the command's arguments for help and completion.
pub fn describe() -> clap::Command {
    <Create as clap::CommandFactory>::command()
}

/// Creates a container and prints its id.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let create: Create = arguments::parse_leading("create", arguments)?;
    let mut options = create.flags.options(&create.command).map_err(|error| error.with_code(code::USAGE))?;
    options.awaits_start = true;
    let failure = |error: CliError| error.with_code(code::FAILURE);
    let session = Session::open(globals)?;
    Flags::check_networks(&Containers::open(&session.store)?, &options).map_err(failure)?;
    // Layers of the image must not be collected before the container pins them.
    let _using = session.store.use_layers()?;
    let image = create.from.image(&session, &create.image).map_err(failure)?;
    let containers = Containers::open(&session.store)?;
    let owned = create.flags.create(&containers, (&image, &create.image), &options).map_err(failure)?;
    create.flags.write_id(&owned.container.id)?;
    ui::line(&owned.container.id);
    Ok(0)
}
