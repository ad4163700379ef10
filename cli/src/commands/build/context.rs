//! Where the files and the Dockerfile of a build come from: folders, or standard input.

use crate::error::{BuildFailure, CliError, chain};
use kiln_builder::context::Context;
use kiln_image::compression::{decompressed, is_compressed};
use kiln_image::layer::{extract, is_tar};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Larger Dockerfiles are refused; a little more is read, to know.
const MAX_DOCKERFILE: u64 = (16 << 20) + 1;

/// A context, and the folder that it was unpacked into, which goes with it.
pub(super) struct Opened {
    pub(super) context: Context,
    _unpacked: Option<tempfile::TempDir>,
}

/// Opens the context that the command line names.
pub(super) fn open(folder: &Path, file: Option<&Path>) -> Result<Opened, CliError> {
    let stdin = Path::new("-");
    let named = |result: Result<Context, _>| {
        result.map_err(|error| CliError::Build(Box::new(BuildFailure { error, source: None })))
    };
    match (folder == stdin, file) {
        (true, Some(file)) if file == stdin => Err(CliError::failed(
            "failed to build: invalid argument: can't use stdin for both build context and dockerfile",
        )
        .hint("name the context's folder, or a Dockerfile in the context")),
        (true, file) => from_stdin(file),
        (false, Some(file)) if file == stdin => {
            let context = named(Context::with_dockerfile(folder, read_stdin()?))?;
            Ok(Opened { context, _unpacked: None })
        }
        (false, file) => Ok(Opened { context: named(Context::open(folder, file))?, _unpacked: None }),
    }
}

/// A tar is the context; anything else is a Dockerfile without one.
fn from_stdin(file: Option<&Path>) -> Result<Opened, CliError> {
    let folder = tempfile::Builder::new().prefix("kiln-context-").tempdir().map_err(failed)?;
    let mut input = BufReader::with_capacity(64 << 10, std::io::stdin());
    let start = input.fill_buf().map_err(failed)?;
    let begins_as_tar = is_compressed(start) || is_tar(start);
    let named = |result: Result<Context, _>| {
        result.map_err(|error| CliError::Build(Box::new(BuildFailure { error, source: None })))
    };
    let context = if begins_as_tar {
        let stream = decompressed(input).map_err(failed)?;
        extract(stream, folder.path()).map_err(|error| {
            CliError::failed(format!("cannot unpack the build context: {}", chain(&error)))
                .hint("give a tar, plain or compressed with gzip, bzip2, xz or zstd")
        })?;
        let file: Option<PathBuf> = file.map(|file| folder.path().join(file));
        let mut context = named(Context::open(folder.path(), file.as_deref()))?;
        // Where it was unpacked says nothing about whose steps these are; and no file of it is left out.
        "-".clone_into(&mut context.name);
        context.ignore = kiln_parser::ignore::Patterns::default();
        context
    } else {
        let mut bytes = Vec::new();
        input.take(MAX_DOCKERFILE).read_to_end(&mut bytes).map_err(failed)?;
        named(Context::with_dockerfile(folder.path(), bytes))?
    };
    Ok(Opened { context, _unpacked: Some(folder) })
}

fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_DOCKERFILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn failed(error: std::io::Error) -> CliError {
    CliError::failed(format!("cannot read the build context from standard input: {error}"))
        .hint("pipe a tar or a Dockerfile into the command, or name a folder")
}
