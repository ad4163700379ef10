//! Command `kiln down`: ends what `kiln up` has left.

use super::stop::{Patience, stop_one};
use super::up::{LABEL, Project};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::image_events;
use crate::session::{self, Session};
use crate::ui;
use clap::Parser;
use kiln_engine::{Container, Containers, Listed};
use kiln_image::reference::Reference;
use kiln_image::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

/// Stop and remove the containers that `kiln up` of a directory has left. Named volumes stay; without any container there is
/// nothing to do, which is no failure.
#[derive(Debug, Parser)]
struct Down {
    /// Remove the anonymous volumes of the containers as well
    #[arg(short, long)]
    volumes: bool,
    /// Remove the images that `kiln up` has built for the directory as well
    #[arg(long)]
    rmi: bool,
    /// Kill the containers after this many seconds; -1 waits for ever [default: the container's, or 10]
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Directory of the project
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Down as clap::CommandFactory>::command()
}

/// Ends the containers of the directory, and prints their names.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let down: Down = arguments::parse("down", arguments)?;
    let project = Project::open(&down.dir, None)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let _lock = project.lock();
    let own = |listed| match listed {
        Listed::Sound(container) if container.settings.labels.get(LABEL) == Some(&project.label()) => {
            Some(*container)
        }
        _ => None,
    };
    let found: Vec<Container> = containers.list()?.into_iter().filter_map(own).collect();
    let mut images = BTreeSet::from([project.image()]);
    for container in &found {
        images.insert(container.image_name.clone());
        session::adopt(&containers, container);
        stop_one(&containers, container, None, &Patience::of(down.timeout))?;
        containers.remove(&Listed::Sound(Box::new(container.clone())), true)?;
        if down.volumes {
            containers.remove_anonymous_volumes(container)?;
        }
        ui::line(&container.name);
    }
    let mut removed = 0;
    let others: Vec<Container> = containers.list()?.into_iter().filter_map(sound).collect();
    for name in images.iter().filter(|_| down.rmi) {
        if let Some(other) = others.iter().find(|other| other.image_name == *name) {
            ui::tell_line(&format!("the image {name} stays: container {} uses it", other.name));
            continue;
        }
        removed += usize::from(remove_image(&session.store, name)?);
    }
    if found.is_empty() && removed == 0 {
        ui::tell_line(&format!("nothing to do: `kiln up` has left nothing of {}", project.label()));
    }
    Ok(0)
}

fn sound(listed: Listed) -> Option<Container> {
    match listed {
        Listed::Sound(container) => Some(*container),
        Listed::Damaged(_) => None,
    }
}

/// Removes a name of an image, and the image with its last name; false when there is none of this name.
fn remove_image(store: &Store, name: &str) -> Result<bool, CliError> {
    let image = match store.resolve(name) {
        Ok(image) => image,
        Err(StoreError::NoSuchImage(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let Ok(reference) = name.parse::<Reference>() else { return Ok(false) };
    let removed = store.remove_reference(&reference)?;
    image_events::removed(store, &image.id, &removed);
    ui::line(name);
    Ok(true)
}
