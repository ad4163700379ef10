//! Command `kiln volume export`.

use super::save::{to_standard_output, write_file};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::missing;
use crate::session::Session;
use clap::Parser;
use kiln_engine::{Containers, CopyError, EngineError};
use kiln_image::layer::DiffError;
use std::ffi::OsString;
use std::path::PathBuf;

/// Write the files of a volume as a tar.
#[derive(Debug, Parser)]
struct Export {
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Volume to export
    volume: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Export as clap::CommandFactory>::command()
}

/// Writes the tar. A file exists only once it is complete.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let export: Export = arguments::parse("volume export", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let name = &export.volume;
    // Before the file of the user is made.
    containers.find_volume(name).map_err(|error| missing::volume(&containers, error))?;
    let failed = |error| explained(&containers, error);
    match &export.output {
        Some(path) => write_file(path, |file| containers.export_volume(name, file).map_err(failed))?,
        None => to_standard_output(|output| containers.export_volume(name, output).map_err(failed))?,
    }
    Ok(0)
}

/// Adds advice to a failure to read or write a volume.
pub(super) fn explained(containers: &Containers<'_>, error: CopyError) -> CliError {
    match error {
        CopyError::Engine(error @ EngineError::NotInMemory(_)) => {
            CliError::from(error).hint("start a container that uses it: kiln run -d -v VOLUME:/PATH IMAGE")
        }
        CopyError::Engine(error) => missing::volume(containers, error),
        CopyError::Read(DiffError::Changed(_)) => CliError::failed(crate::error::chain(&error))
            .hint("pause the containers that write to the volume while it is read: kiln pause"),
        CopyError::Write(error) if !error.is_full() => CliError::failed(crate::error::chain(&error))
            .hint("a tar is needed, such as `kiln volume export` writes, plain or compressed"),
        error => error.into(),
    }
}
