//! `kiln save`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::image_events;
use crate::missing;
use crate::session::Session;
use clap::Parser;
use kiln_image::archive::{self, ArchiveError, SaveRequest};
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Write images to an archive or a directory.
#[derive(Debug, Parser)]
struct Save {
    /// Write to this file or directory [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write a docker-archive (a tar that is an OCI layout as well) or an oci-dir (an OCI layout as a directory)
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    format: String,
    /// Write these images: names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Save as clap::CommandFactory>::command()
}

/// Writes the images. A file exists only once it is complete.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let save: Save = arguments::parse("save", arguments)?;
    if !["docker-archive", "oci-archive", "oci-dir"].contains(&save.format.as_str()) {
        return Err(CliError::Usage(
            format!("invalid value {:?} for --format", save.format),
            vec!["one of docker-archive, oci-dir".to_owned()],
        ));
    }
    let session = Session::open(globals)?;
    let store = &session.store;
    let requests = save.images.iter().map(|name| request(store, name)).collect::<Result<Vec<_>, _>>()?;
    match (save.format.as_str(), &save.output) {
        ("oci-dir", Some(path)) => archive::save_dir(store, &requests, path)?,
        ("oci-dir", None) => {
            return Err(CliError::failed("--format oci-dir needs a directory").hint("add -o DIRECTORY"));
        }
        (_, Some(path)) => save_file(store, &requests, path)?,
        (_, None) => to_standard_output(|output| archive::save_tar(store, &requests, output))?,
    }
    for request in &requests {
        let id = request.image.id.to_string();
        image_events::add(store, "save", &id, &id);
    }
    Ok(0)
}

/// Writes an archive to standard output, unless that is a terminal.
///
/// # Errors
///
/// Fails for a terminal, when standard output cannot be written, and with the errors of `write`.
pub(super) fn to_standard_output<E: Into<CliError>>(
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), CliError> {
    let output = std::io::stdout();
    if output.is_terminal() {
        return Err(CliError::failed("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let mut output = Destination::new(output.lock(), "standard output");
    let written = write(&mut output);
    output.check(written)
}

/// Image with the names to save: the given name, or all names when the image is given by its id.
fn request(store: &Store, name: &str) -> Result<SaveRequest, CliError> {
    let image = store.resolve(name).map_err(|error| missing::image(store, error))?;
    let reference = name.parse::<Reference>().ok();
    let named = match reference {
        Some(reference) if reference.digest().is_none() => {
            store.find(&reference)?.filter(|found| found.id == image.id).map(|_| reference.or_latest())
        }
        _ => None,
    };
    Ok(SaveRequest::new(image, named.into_iter().collect()))
}

fn save_file(store: &Store, requests: &[SaveRequest], path: &Path) -> Result<(), CliError> {
    write_file(path, |file| archive::save_tar(store, requests, file))
}

/// Writer that keeps the error of its destination.
///
/// What is written is read from the store, whose errors look the same: when the destination of the user is full, the hint
/// must not be to prune the build cache.
pub(super) struct Destination<W> {
    writer: W,
    name: String,
    failed: Option<std::io::Error>,
}

impl<W: Write> Destination<W> {
    pub(super) fn new(writer: W, name: impl Into<String>) -> Destination<W> {
        Destination { writer, name: name.into(), failed: None }
    }

    /// Returns the destination's error in place of the one that it led to.
    ///
    /// # Errors
    ///
    /// Fails when the destination could not be written, or else when `written` is an error.
    pub(super) fn check<T, E: Into<CliError>>(mut self, written: Result<T, E>) -> Result<T, CliError> {
        let written = written.map_err(Into::into);
        let flushed = self.flush();
        match self.failed.or(flushed.err()) {
            Some(error) => Err(cannot_write(&self.name, &error)),
            None => written,
        }
    }

    fn noted<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind != std::io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

impl<W: Write> Write for Destination<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer.write(bytes);
        self.noted(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.writer.flush();
        self.noted(flushed)
    }
}

fn cannot_write(name: &str, error: &std::io::Error) -> CliError {
    let failed = CliError::failed(format!("cannot write to {name}: {error}"));
    match error.kind() {
        std::io::ErrorKind::StorageFull => failed.hint("free some space there, or write to another place"),
        _ => failed,
    }
}

/// Writes an archive to a file, which exists only once it is complete.
///
/// # Errors
///
/// Fails when the file cannot be written, and with the errors of `write`.
pub(super) fn write_file<E: Into<CliError>>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), CliError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = format!("`{}`", path.display());
    if !is_replaceable(path) {
        // A device, or a pipe that another program reads.
        let failed = |error| {
            CliError::failed(format!("cannot open {shown}: {error}"))
                .hint("name a file that can be written, or a path for a new one")
        };
        let file = File::options().write(true).open(path).map_err(failed)?;
        let mut file = Destination::new(file, &shown);
        let written = write(&mut file);
        return file.check(written);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = dir.join(format!(".{name}.{}", std::process::id()));
    let failed = |error: std::io::Error| {
        let failed = cannot_write(&shown, &error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failed.hint(format!("there is no directory `{}`: make it first", dir.display()))
            }
            std::io::ErrorKind::StorageFull => failed,
            _ => failed.hint("check the permissions of the directory"),
        }
    };
    let mut file = Destination::new(File::create_new(&new).map_err(failed)?, &shown);
    let written = write(&mut file);
    let finished = file.check(written).and_then(|()| std::fs::rename(&new, path).map_err(failed));
    if finished.is_err() {
        // The first failure is reported.
        let _ = std::fs::remove_file(&new);
    }
    finished
}

fn is_replaceable(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

impl From<ArchiveError> for CliError {
    fn from(error: ArchiveError) -> CliError {
        if let ArchiveError::Store(error) = error {
            return error.into();
        }
        let failed = CliError::failed(crate::error::chain(&error));
        match error {
            ArchiveError::NotRegular(..) => {
                failed.hint("pipe a stream into `kiln load`, or write it to a file")
            }
            error if error.is_full() => failed.hint(crate::error::FULL),
            _ => failed,
        }
    }
}
