//! Command `kiln diff`.

use super::each;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::Containers;
use kiln_image::layer::ChangeKind;
use std::ffi::OsString;

/// List the files that a container has added (A), changed (C) or deleted (D).
#[derive(Debug, Parser)]
struct Diff {
    /// Container to look at: name or id
    container: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Diff as clap::CommandFactory>::command()
}

/// Prints a line for each path, sorted by path.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let diff: Diff = arguments::parse("diff", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, &diff.container)?;
    for change in containers.changes(&container)? {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        ui::data_line(&format!("{letter} {}", String::from_utf8_lossy(&change.path)));
    }
    Ok(0)
}
