//! What commands on several containers have in common: all are tried, each success is echoed as it was typed.

use crate::arguments::Globals;
use crate::error::{CliError, code};
use crate::missing;
use crate::session::Session;
use crate::ui;
use clap::Args;
use kiln_engine::{Container, Containers, EngineError, Listed};

/// Containers as positional arguments.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Names {
    /// Names in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().map(String::as_str)
    }
}

/// Calls `act` for each container and prints its name; reports failures, and then returns exit code 1.
///
/// # Errors
///
/// Fails when the store cannot be opened.
pub(super) fn sound(
    globals: &Globals,
    names: &Names,
    act: impl Fn(&Containers<'_>, &Container) -> Result<(), CliError>,
) -> Result<u8, CliError> {
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut result = 0;
    for name in &names.containers {
        match find(&containers, name).and_then(|container| act(&containers, &container)) {
            Ok(()) => ui::line(name),
            Err(error) => {
                error.report();
                result = code::FAILURE;
            }
        }
    }
    Ok(result)
}

/// Finds a container whose record can be read.
///
/// # Errors
///
/// Fails when there is none of this name or id, with a near name as hint, and when its record is damaged.
pub(super) fn find(containers: &Containers<'_>, name: &str) -> Result<Box<Container>, CliError> {
    match containers.find(name) {
        Ok(Listed::Sound(container)) => Ok(container),
        Ok(Listed::Damaged(damaged)) => Err(CliError::failed(format!(
            "container {name} is damaged: {}",
            crate::error::chain(&damaged.reason)
        ))
        .hint(format!("`kiln rm {name}` removes it"))),
        Err(error) => Err(missing::container(containers, error)),
    }
}

/// Finds a container and its init process.
///
/// # Errors
///
/// Fails in the cases of [`find`], and when it does not run.
pub(super) fn live(containers: &Containers<'_>, name: &str) -> Result<kiln_engine::Live, CliError> {
    let container = find(containers, name)?;
    containers.live(&container).map_err(|error| match error {
        EngineError::NotRunning(_) => {
            CliError::from(error).hint("only running containers have processes: `kiln ps` lists them")
        }
        error => error.into(),
    })
}
