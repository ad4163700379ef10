//! Command `kiln cp`.

use super::each;
use super::save::to_standard_output;
use crate::arguments::{self, Globals};
use crate::error::{CliError, chain};
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Containers, CopyError, CopyOptions, Place, View, copy, copy_in, copy_out};
use kiln_image::compression;
use kiln_image::layer::{DiffError, Placed};
use kiln_image::tree::Tree;
use std::ffi::OsString;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Copy files between a container and the host.
#[derive(Debug, Parser)]
struct Cp {
    /// Keep the owners of the files, and setuid and setgid bits
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link at the end of the source leads to, not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not report on a terminal what was copied
    #[arg(short, long)]
    quiet: bool,
    /// Source: a path, CONTAINER:PATH, or - for a tar from standard input
    #[arg(value_name = "SOURCE")]
    source: OsString,
    /// Destination: a path, CONTAINER:PATH, or - for a tar to standard output
    #[arg(value_name = "DESTINATION")]
    destination: OsString,
}

/// One end of a copy, as the user wrote it.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    /// Standard input or output.
    Stream,
    /// Path of the host.
    Host(&'a [u8]),
    /// Container and a path in it.
    Container(&'a str, &'a [u8]),
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Cp as clap::CommandFactory>::command()
}

/// Copies a file or directory. When standard output is a terminal, reports the size on standard error.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let cp: Cp = arguments::parse("cp", arguments)?;
    for (argument, name) in [(&cp.source, "source"), (&cp.destination, "destination")] {
        if argument.is_empty() {
            return Err(
                CliError::failed(format!("{name} can not be empty")).hint("write . for this directory")
            );
        }
    }
    let (source, destination) = (end(cp.source.as_bytes()), end(cp.destination.as_bytes()));
    let name = match (&source, &destination) {
        (End::Container(..), End::Container(..)) => {
            return Err(CliError::failed("copying between containers is not supported")
                .hint("use a tar: kiln cp A:/path - | kiln cp - B:/"));
        }
        (End::Container(name, path), _) | (_, End::Container(name, path)) => {
            if path.is_empty() {
                return Err(
                    CliError::failed("the path in the container is empty").hint("write CONTAINER:/PATH")
                );
            }
            *name
        }
        _ => {
            return Err(CliError::failed("must specify at least one container source or destination")
                .hint("write CONTAINER:/PATH on one side"));
        }
    };
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, name)?;
    let view = containers.view(&container)?;
    let placed = cp.copy(&source, &destination, &view)?;
    if let Some(placed) = placed {
        cp.report(&placed);
    }
    Ok(0)
}

/// Splits an argument as Docker does: a path with a slash or a dot in front of its first colon is the host's.
fn end(argument: &[u8]) -> End<'_> {
    if argument == b"-" {
        return End::Stream;
    }
    let colon = argument.iter().position(|byte| *byte == b':').filter(|_| !argument.starts_with(b"/"));
    let split = colon.map(|at| (&argument[..at], &argument[at + 1..]));
    match split.and_then(|(name, path)| Some((std::str::from_utf8(name).ok()?, path))) {
        Some((name, path)) if !name.starts_with('.') => End::Container(name, path),
        _ => End::Host(argument),
    }
}

impl Cp {
    /// Copies; `None` when the destination is a stream.
    fn copy(&self, source: &End<'_>, destination: &End<'_>, view: &View) -> Result<Option<Placed>, CliError> {
        let options = CopyOptions { keeps_owners: self.archive, follows: self.follow_link, owner: None };
        let inside = |name, path| Place { tree: view.tree(), path, container: Some(name) };
        match (source, destination) {
            (End::Container(name, path), End::Stream) => {
                to_standard_output(|output| copy_out(&inside(*name, path), output, options))?;
                Ok(None)
            }
            (End::Stream, End::Container(name, path)) => {
                let input = BufReader::new(std::io::stdin());
                let input = compression::decompressed(input)
                    .map_err(|error| CliError::failed(format!("cannot read standard input: {error}")))?;
                Ok(Some(copy_in(input, &inside(*name, path), options)?))
            }
            (End::Container(name, path), End::Host(host)) => {
                let (tree, host) = host_path(host)?;
                let target = Place { tree: &tree, path: &host, container: None };
                Ok(Some(copy(&inside(*name, path), &target, options)?))
            }
            (End::Host(host), End::Container(name, path)) => {
                let (tree, host) = host_path(host)?;
                let source = Place { tree: &tree, path: &host, container: None };
                Ok(Some(copy(&source, &inside(*name, path), options)?))
            }
            _ => unreachable!("one end, and only one, is a container"),
        }
    }

    fn report(&self, placed: &Placed) {
        for path in &placed.left_out {
            let path = String::from_utf8_lossy(path);
            ui::tell_line(&format!("warning: {path} is a device of the container and was left out"));
        }
        if !self.quiet && ui::answers_to_terminal() {
            let destination = self.destination.to_string_lossy();
            ui::tell_line(&format!("Successfully copied {} to {destination}", text::size(placed.size)));
        }
    }
}

/// Tree of the host, and an absolute path in it.
fn host_path(path: &[u8]) -> Result<(Tree, Vec<u8>), CliError> {
    let failed = |error: &dyn std::error::Error| CliError::failed(format!("cannot open /: {error}"));
    let tree = Tree::open(Path::new("/")).map_err(|error| failed(&error))?;
    if path.starts_with(b"/") {
        return Ok((tree, path.to_vec()));
    }
    let dir = std::env::current_dir()
        .map_err(|error| CliError::failed(format!("cannot determine the working directory: {error}")))?;
    Ok((tree, [dir.as_os_str().as_bytes(), b"/", path].concat()))
}

impl From<CopyError> for CliError {
    fn from(error: CopyError) -> CliError {
        let failed = CliError::failed(chain(&error));
        match &error {
            CopyError::NotInContainer { .. } => {
                failed.hint("paths in a container begin at its root directory")
            }
            CopyError::OfKernel { container, path } => {
                failed.hint(format!("read it in the container: kiln exec {container} cat {path}"))
            }
            CopyError::NoSuchDirectory(_) => failed.hint("make the directory first"),
            CopyError::DirectoryToFile(_) => failed.hint("name a directory, or a path that does not exist"),
            CopyError::MustBeDirectory(_) => failed.hint("a tar is unpacked below a directory: name one"),
            CopyError::Read(DiffError::Changed(_)) => {
                failed.hint("pause the container while its files are copied: kiln pause")
            }
            _ if error.is_busy() => {
                failed.hint("something is mounted there: change the file in the container, by kiln exec")
            }
            _ if error.is_full() => failed.hint("the disk of the destination is full: free some space there"),
            _ => failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_at_the_first_colon() {
        for (argument, expected) in [
            ("-", End::Stream),
            ("web:/etc/a:b", End::Container("web", b"/etc/a:b")),
            ("web:", End::Container("web", b"")),
            ("/a:b", End::Host(b"/a:b")),
            ("./a:b", End::Host(b"./a:b")),
            ("a", End::Host(b"a")),
        ] {
            assert_eq!(end(argument.as_bytes()), expected, "{argument}");
        }
    }
}
