//! `kiln fmt`.

use super::lint::read;
use crate::arguments::{self, Globals};
use crate::error::{BuildFailure, CliError, code};
use crate::ui;
use clap::Parser;
use kiln_builder::Mistake;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::{Source, format::format, parse};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Format Dockerfiles. Prints one formatted file, or changes files with --write.
#[derive(Debug, Parser)]
struct Fmt {
    /// Print the names of files that are not formatted, and exit with 1 if there are any
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Change the files in place
    #[arg(short, long)]
    write: bool,
    /// Format these Dockerfiles; `-` reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Fmt as clap::CommandFactory>::command()
}

/// Formats the files. Fails at the first one with a syntax error, and leaves that as it is.
pub fn run(_globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let fmt: Fmt = arguments::parse("fmt", arguments)?;
    if fmt.files.len() > 1 && !fmt.check && !fmt.write {
        return Err(CliError::failed("cannot print more than one file")
            .hint("change the files with --write, or look at them with --check"));
    }
    let mut changed = 0;
    for path in &fmt.files {
        let source = read(path)?;
        let text = formatted(&source)?;
        let differs = text.as_bytes() != source.bytes();
        changed += usize::from(differs);
        match (fmt.check, fmt.write) {
            (true, _) if differs => ui::line(source.name()),
            (true, _) => {}
            (_, true) if path != Path::new("-") => {
                if differs {
                    replace(path, text.as_bytes())?;
                }
            }
            _ => ui::data(&text),
        }
    }
    Ok(if fmt.check && changed > 0 { code::FAILURE } else { 0 })
}

fn formatted(source: &Source) -> Result<String, CliError> {
    let parse = parse(source);
    let mut errors: Vec<Diagnostic> = parse.errors().cloned().collect();
    if errors.is_empty() && source.first_invalid().is_some() {
        errors = parse.diagnostics.iter().filter(|it| it.code == "invalid-utf8").cloned().collect();
    }
    if errors.is_empty() {
        return Ok(format(&parse, source));
    }
    let error = Mistake::Syntax(errors).into();
    Err(CliError::Build(Box::new(BuildFailure { error, source: Some(source.clone()), is_shown: false })))
}

/// Replaces a file's content atomically and keeps its mode.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("cannot write `{}`: {error}", path.display()))
            .hint("check the permissions of the file and its directory")
    };
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    let mode = std::fs::metadata(&path).map_err(failed)?.permissions();
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}
