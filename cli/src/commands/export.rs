//! Command `kiln export`.

use super::each;
use super::save::{to_standard_output, write_file};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use clap::Parser;
use kiln_engine::{Containers, EngineError};
use kiln_image::layer::DiffError;
use kiln_image::store::StoreError;
use std::ffi::OsString;
use std::path::PathBuf;

/// Write the files of a container as a tar.
#[derive(Debug, Parser)]
struct Export {
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container to export: name or id
    container: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Export as clap::CommandFactory>::command()
}

/// Writes the tar. A file exists only once it is complete.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let export: Export = arguments::parse("export", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, &export.container)?;
    match &export.output {
        Some(path) => write_file(path, |file| containers.export(&container, file).map_err(with_hint))?,
        None => to_standard_output(|output| containers.export(&container, output).map_err(with_hint))?,
    }
    containers.event(&container, "export", &[]);
    Ok(0)
}

fn with_hint(error: EngineError) -> CliError {
    match &error {
        EngineError::Store(StoreError::Diff(DiffError::Changed(_))) => {
            CliError::from(error).hint("pause the container while its files are read: kiln pause")
        }
        _ => error.into(),
    }
}
