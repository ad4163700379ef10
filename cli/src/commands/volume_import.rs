//! Command `kiln volume import`.

use super::volume_export::explained;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::missing;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::Containers;
use kiln_image::compression;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};

/// Unpack a tar into a volume that exists; files of the same names are replaced.
#[derive(Debug, Parser)]
struct Import {
    /// Volume to unpack into
    volume: String,
    /// Read this tar, also compressed; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Import as clap::CommandFactory>::command()
}

/// Unpacks the tar. Device nodes are left out.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let import: Import = arguments::parse("volume import", arguments)?;
    let input = import.open()?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let name = &import.volume;
    containers.find_volume(name).map_err(|error| {
        let is_missing = matches!(error, kiln_engine::EngineError::NoSuchVolume(_));
        let failed = missing::volume(&containers, error);
        if is_missing { failed.hint(format!("`kiln volume create {name}` creates it")) } else { failed }
    })?;
    let input = compression::decompressed(input)
        .map_err(|error| CliError::failed(format!("cannot read {}: {error}", import.shown())))?;
    let placed = containers.import_volume(name, input).map_err(|error| explained(&containers, error))?;
    for path in &placed.left_out {
        let path = String::from_utf8_lossy(path);
        ui::tell_line(&format!("warning: {path} is a device and was left out"));
    }
    Ok(0)
}

impl Import {
    fn is_standard_input(&self) -> bool {
        self.file == Path::new("-")
    }

    fn shown(&self) -> String {
        match self.is_standard_input() {
            true => "standard input".to_owned(),
            false => format!("`{}`", self.file.display()),
        }
    }

    fn open(&self) -> Result<Box<dyn BufRead>, CliError> {
        if !self.is_standard_input() {
            let file = File::open(&self.file).map_err(|error| {
                CliError::failed(format!("cannot open {}: {error}", self.shown()))
                    .hint("name a tar, such as `kiln volume export` writes, or - for standard input")
            })?;
            return Ok(Box::new(BufReader::with_capacity(1 << 17, file)));
        }
        if std::io::stdin().is_terminal() {
            return Err(CliError::failed("cannot read a tar from a terminal")
                .hint("name the file, or redirect it: kiln volume import VOLUME - < FILE"));
        }
        Ok(Box::new(BufReader::with_capacity(1 << 17, std::io::stdin())))
    }
}
