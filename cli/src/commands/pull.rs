//! `kiln pull`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::images::ImageFinder;
use crate::pulling;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use std::ffi::OsString;

/// Download an image from a registry.
#[derive(Debug, Parser)]
struct Pull {
    /// Show only the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Download the image for this platform, os/architecture [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Download this image: [REGISTRY/]NAME[:TAG|@DIGEST]
    image: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Pull as clap::CommandFactory>::command()
}

/// Pulls the image and prints its full name.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let pull: Pull = arguments::parse("pull", arguments)?;
    let session = Session::open(globals)?;
    let finder = ImageFinder::new(&session.store, &session.config.registry);
    let line = |text: &str| {
        if !pull.quiet {
            ui::line(text);
        }
    };
    let platform = pulling::platform(pull.platform.as_deref())?;
    let (_, reference) = pulling::pull(&finder, &pull.image, &platform, &line)?;
    ui::line(&reference.to_string());
    Ok(0)
}
