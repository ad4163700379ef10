//! Errors about names that do not exist or are invalid, with suggestions.

use crate::error::CliError;
use crate::{commands, text};
use kiln_engine::{Containers, EngineError, Listed, Networks};
use kiln_image::store::{Store, StoreError};
use kiln_parser::suggest;

/// Hint about the form of an image's name.
pub const NAME: &str = "write [REGISTRY/]NAME[:TAG] with lower case letters, digits, dots, dashes and underscores, such as app:1.0";

/// Converts an error about an image; suggests a name near the missing one.
pub fn image(store: &Store, error: StoreError) -> CliError {
    let near = match &error {
        StoreError::NoSuchImage(name) => near_image(store, name),
        _ => None,
    };
    let is_missing = matches!(error, StoreError::NoSuchImage(_));
    let failed = CliError::from(error);
    match (near, is_missing) {
        (Some(near), _) => failed.hint(format!("did you mean {near}?")),
        (None, true) => failed.hint("`kiln images` lists the images, `kiln pull` fetches others"),
        (None, false) => failed,
    }
}

/// Finds the name of an image in the store that is nearest to `name`; `None` when none is near.
pub fn near_image(store: &Store, name: &str) -> Option<String> {
    let without_latest = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
    let tags = store.tags().ok()?;
    let names: Vec<String> = tags.iter().map(|tag| without_latest(&familiar(&tag.reference))).collect();
    suggest::nearest(&without_latest(name), names.iter().map(String::as_str))
}

fn familiar(reference: &str) -> String {
    reference.parse::<kiln_image::reference::Reference>().map_or(reference.to_owned(), |name| name.familiar())
}

/// Converts an error about a container; suggests a name near the missing one.
pub fn container(containers: &Containers<'_>, error: EngineError) -> CliError {
    let EngineError::NoSuchContainer(name) = &error else { return error.into() };
    let near = near_container(containers, name);
    let hint = near.map_or_else(
        || "`kiln ps -a` lists the containers, those that have ended too".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    CliError::from(error).hint(hint)
}

/// Converts an error about a volume; suggests a name near the missing one.
pub fn volume(containers: &Containers<'_>, error: EngineError) -> CliError {
    let EngineError::NoSuchVolume(name) = &error else { return error.into() };
    let near = near_volume(containers, name);
    let hint = near.map_or_else(
        || "`kiln volume ls` lists the volumes".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    CliError::from(error).hint(hint)
}

/// Finds the name of a volume that is nearest to `name`; `None` when none is near.
pub fn near_volume(containers: &Containers<'_>, name: &str) -> Option<String> {
    let volumes = containers.volumes().ok()?;
    suggest::nearest(name, volumes.iter().map(|used| used.volume.name.as_str()))
}

/// Converts an error about a network; suggests a name near the missing one.
pub fn network(networks: &Networks, error: EngineError) -> CliError {
    let hint = match &error {
        EngineError::NoSuchNetwork(name) => near_network(networks, name).map_or_else(
            || format!("`kiln network ls` lists the networks, `kiln network create {name}` creates this one"),
            |near| format!("did you mean {near}?"),
        ),
        EngineError::NetworkInUse { name, .. } => {
            format!(
                "end its containers first, or disconnect them: `kiln network disconnect {name} CONTAINER`"
            )
        }
        _ => return error.into(),
    };
    CliError::from(error).hint(hint)
}

/// Finds the name of a network that is nearest to `name`; `None` when none is near.
pub fn near_network(networks: &Networks, name: &str) -> Option<String> {
    let all = networks.list().ok()?;
    suggest::nearest(name, all.iter().map(|network| network.name.as_str()))
}

/// Adds to an error about a name in use which container has it, and what to do.
pub fn taken(containers: &Containers<'_>, name: &str, error: CliError) -> CliError {
    let Ok(Some(Listed::Sound(container))) = containers.named(name) else {
        return error.hint(format!("`kiln rm -f {name}` removes the other one"));
    };
    let (id, image) = (text::short(&container.id), &container.image_name);
    let state = commands::ps::status(&container.state, None);
    let remove = if container.state.is_live() { "rm -f" } else { "rm" };
    error
        .hint(format!("it is {id}, of the image {image}, in the state: {state}"))
        .hint(format!("`kiln {remove} {name}` removes it, `run --replace` does so first"))
}

/// Finds the name of a container that is nearest to `name`; `None` when none is near.
pub fn near_container(containers: &Containers<'_>, name: &str) -> Option<String> {
    let listed = containers.list().ok()?;
    let names: Vec<&str> = listed
        .iter()
        .map(|one| match one {
            Listed::Sound(container) => container.name.as_str(),
            Listed::Damaged(damaged) => damaged.name.as_str(),
        })
        .collect();
    suggest::nearest(name, names)
}
