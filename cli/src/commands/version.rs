//! `kiln version`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::ui;
use clap::Parser;
use std::ffi::OsString;

/// Show the version.
#[derive(Debug, Parser)]
struct Version {}

/// The line of `kiln --version`.
pub fn short() -> String {
    format!("kiln version {}\n", env!("CARGO_PKG_VERSION"))
}

/// Prints the version, and what it was made for.
pub fn run(_globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let Version {} = arguments::parse("version", arguments)?;
    let platform = kiln_image::platform::Platform::host();
    ui::print(&format!(
        "Client:\n Version:           {}\n OS/Arch:           {platform}\n",
        env!("CARGO_PKG_VERSION")
    ));
    Ok(0)
}
