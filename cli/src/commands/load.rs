//! `kiln load`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::image_events;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_image::archive::{self, ArchiveError, Loaded};
use std::ffi::OsString;
use std::io::{BufReader, IsTerminal};
use std::path::{Path, PathBuf};

/// Read images from an archive or a directory.
#[derive(Debug, Parser)]
struct Load {
    /// Read this docker-archive or OCI layout: a tar, also compressed, or a directory [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Show only the images' names
    #[arg(short, long)]
    quiet: bool,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Load as clap::CommandFactory>::command()
}

/// Loads the images and prints their names.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let load: Load = arguments::parse("load", arguments)?;
    if let Some(path) = &load.input {
        // Checked before the store is created.
        std::fs::metadata(path)
            .map_err(|error| CliError::failed(format!("cannot open `{}`: {error}", path.display())))
            .map_err(|error| error.hint("name an archive that `kiln save` or `docker save` wrote"))?;
    }
    if load.input.is_none() && std::io::stdin().is_terminal() {
        return Err(CliError::failed("requested load from stdin, but stdin is empty")
            .hint("name the file: kiln load -i FILE"));
    }
    let session = Session::open(globals)?;
    let loaded = match &load.input {
        Some(path) if is_stream(path) => {
            let file = std::fs::File::open(path)
                .map_err(|error| CliError::failed(format!("cannot open `{}`: {error}", path.display())))?;
            archive::load_stream(&session.store, BufReader::with_capacity(1 << 17, file))
                .map_err(explained)?
        }
        Some(path) => archive::load(&session.store, path).map_err(explained)?,
        None => {
            let input = BufReader::with_capacity(1 << 17, std::io::stdin().lock());
            archive::load_stream(&session.store, input).map_err(explained)?
        }
    };
    for one in &loaded {
        let id = one.image.to_string();
        image_events::add(&session.store, "load", &id, &id);
    }
    loaded.iter().for_each(show);
    Ok(0)
}

/// Adds a hint about the formats that `kiln load` reads, where the error has none.
fn explained(error: ArchiveError) -> CliError {
    let failed = CliError::from(error);
    match failed.has_hints() {
        true => failed,
        false => failed.hint(
            "kiln load reads what `kiln save`, `docker save` or `skopeo copy … oci-archive:` wrote; a tar of files becomes \
             an image with FROM scratch and ADD",
        ),
    }
}

/// True for a file descriptor of the caller, such as the shell's `<(…)`: it may be a pipe, which can be read only once.
fn is_stream(path: &Path) -> bool {
    let is_descriptor = ["/dev/fd/", "/proc/self/fd/"].iter().any(|directory| path.starts_with(directory));
    is_descriptor || path == Path::new("/dev/stdin")
}

fn show(loaded: &Loaded) {
    for (name, before) in &loaded.renamed {
        ui::tell_line(&format!(
            "The image {} already exists, renaming the old one with ID {before} to empty string",
            name.familiar()
        ));
    }
    if loaded.names.is_empty() {
        ui::line(&format!("Loaded image ID: {}", loaded.image));
    }
    loaded.names.iter().for_each(|name| ui::line(&format!("Loaded image: {}", name.familiar())));
}
