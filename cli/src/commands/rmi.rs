//! `kiln rmi`.

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::image_events;
use crate::missing;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Container, Containers};
use kiln_image::reference::Reference;
use kiln_image::store::{ImageRecord, Removed, Store, StoreError};
use std::ffi::OsString;

/// Remove images.
#[derive(Debug, Parser)]
struct Rmi {
    /// Remove images that stopped containers use, and do not fail for images that do not exist
    #[arg(short, long)]
    force: bool,
    /// Remove these images: names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Rmi as clap::CommandFactory>::command()
}

/// Removes each image, continues after a failure, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let rmi: Rmi = arguments::parse("rmi", arguments)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    session::warn_of_damaged(&containers)?;
    let mut code = 0;
    for name in &rmi.images {
        match remove(&session.store, &containers, name, rmi.force) {
            Ok(removed) => removed.iter().for_each(show),
            Err(Refused::Missing) => {
                missing::image(&session.store, StoreError::NoSuchImage(familiar(name))).report();
                // With -f it is enough that there is none.
                if !rmi.force {
                    code = code::FAILURE;
                }
            }
            Err(Refused::Because(error)) => {
                error.report();
                code = code::FAILURE;
            }
        }
    }
    Ok(code)
}

enum Refused {
    Missing,
    Because(CliError),
}

impl<E: Into<CliError>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Because(error.into())
    }
}

fn remove(
    store: &Store,
    containers: &Containers<'_>,
    name: &str,
    force: bool,
) -> Result<Vec<Removed>, Refused> {
    let image = match store.resolve(name) {
        Ok(image) => image,
        Err(StoreError::NoSuchImage(_)) => return Err(Refused::Missing),
        Err(error) => return Err(error.into()),
    };
    let tags = store.tags()?.into_iter().filter(|tag| tag.image == image.id).count();
    let by_name = name.parse::<Reference>().ok().filter(|reference| {
        reference.digest().is_none()
            && matches!(store.find(reference), Ok(Some(found)) if found.id == image.id)
    });
    let users = containers.of_image(&image.id)?;
    let told = |removed: Vec<Removed>| {
        image_events::removed(store, &image.id, &removed);
        removed
    };
    if let Some(reference) = by_name {
        // A tag can be removed whenever the image has another one.
        if tags > 1 {
            return Ok(told(store.remove_reference(&reference)?));
        }
        check_users(&users, &image, name, true, force)?;
        return Ok(told(store.remove_reference(&reference)?));
    }
    let conflict = || {
        CliError::failed(format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            text::short(&image.id.to_string())
        ))
        .hint("name the tag to remove, or use -f to remove them all")
    };
    if tags > 1 && !force {
        return Err(conflict().into());
    }
    check_users(&users, &image, name, false, force)?;
    match store.remove_image(&image, if force { usize::MAX } else { 1 }) {
        // Another process has tagged it in the meantime.
        Err(StoreError::ManyTags(_)) => Err(conflict().into()),
        removed => Ok(told(removed?)),
    }
}

fn check_users(
    users: &[Container],
    image: &ImageRecord,
    name: &str,
    by_name: bool,
    force: bool,
) -> Result<(), CliError> {
    let short = text::short(&image.id.to_string());
    let running = users.iter().find(|container| container.state.is_running());
    if let Some(container) = running {
        let (what, id) = (if by_name { name } else { &short }, text::short(&container.id));
        let message = if by_name {
            format!(
                "conflict: unable to remove repository reference \"{what}\" (must force) - container {id} is using its referenced image {short}"
            )
        } else {
            format!(
                "conflict: unable to delete {what} (cannot be forced) - image is being used by running container {id}"
            )
        };
        // The layers of a running container stay when the tag is removed.
        return if by_name && force { Ok(()) } else { Err(CliError::failed(message)) };
    }
    let Some(container) = users.first().filter(|_| !force) else { return Ok(()) };
    let id = text::short(&container.id);
    let message = if by_name {
        format!(
            "conflict: unable to remove repository reference \"{name}\" (must force) - container {id} is using its referenced image {short}"
        )
    } else {
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {id}"
        )
    };
    Err(CliError::failed(message).hint(format!("remove the container first (kiln rm {id}), or use -f")))
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.or_latest().familiar())
}

fn show(removed: &Removed) {
    match removed {
        Removed::Untagged(name) => ui::line(&format!("Untagged: {name}")),
        Removed::Deleted(id) => ui::line(&format!("Deleted: {id}")),
    }
}
