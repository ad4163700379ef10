//! Command `kiln rename`.

use super::each;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::missing;
use crate::session::{self, Session};
use clap::Parser;
use kiln_engine::{Containers, EngineError};
use std::ffi::OsString;

/// Rename a container.
#[derive(Debug, Parser)]
struct Rename {
    /// Container to rename: name or id
    container: String,
    /// New name
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Rename as clap::CommandFactory>::command()
}

/// Renames a container; prints nothing.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let rename: Rename = arguments::parse("rename", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, &rename.container)?;
    // The monitor makes the new name known in networks.
    session::adopt(&containers, &container);
    containers.rename(&container, &rename.name).map_err(|error| match &error {
        EngineError::InvalidName(_) => {
            CliError::from(error).hint("a name begins with a letter or digit and has at least two characters")
        }
        EngineError::NameTaken { name, .. } => {
            let name = name.clone();
            missing::taken(&containers, &name, error.into())
        }
        _ => error.into(),
    })?;
    Ok(0)
}
