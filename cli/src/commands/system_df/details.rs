//! `kiln system df --verbose`: tables of all images, containers and layers of the build cache.

use super::{Used, UsedImage};
use crate::error::CliError;
use crate::text;
use kiln_image::digest::DiffId;
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use std::fmt::Write;

const COMMAND_WIDTH: usize = 20;

/// All tables with their headings.
pub(super) fn text(used: &Used, store: &Store) -> Result<String, CliError> {
    let mut out = String::new();
    let mut section = |heading: &str, head: &[&str], rows: &[Vec<String>]| {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = write!(out, "{gap}{heading}\n\n{}", text::table(head, rows));
    };
    let head =
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
    section("Images space usage:", &head, &images(used, store)?);
    let head = ["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"];
    section("Containers space usage:", &head, &containers(used));
    section("Local Volumes space usage:", &["VOLUME NAME", "LINKS", "SIZE"], &volumes(used));
    let total: u64 = used.cache.iter().map(|layer| layer.size).sum::<u64>() + used.cache_dirs.1;
    let heading = format!("Build cache usage: {}", text::size(total));
    section(&heading, &["CACHE ID", "CACHE TYPE", "SIZE", "CREATED"], &cache(used));
    Ok(out)
}

fn images(used: &Used, store: &Store) -> Result<Vec<Vec<String>>, CliError> {
    let tags = store.tags()?;
    let mut rows = Vec::new();
    for image in &used.images {
        let shared = used.size_of(image.layers.iter().filter(|layer| is_shared(used, image, layer)));
        let size = used.size_of(image.layers.iter());
        let names = tags.iter().filter(|tag| tag.image == image.record.id);
        let mut names: Vec<(String, String)> = names.map(|tag| name(&tag.reference)).collect();
        if names.is_empty() {
            names.push(("<none>".to_owned(), "<none>".to_owned()));
        }
        rows.extend(names.into_iter().map(|(repository, tag)| {
            vec![
                repository,
                tag,
                text::short(&image.record.id.to_string()),
                text::age(&image.record.created),
                text::size(size),
                text::size(shared),
                text::size(size - shared),
                image.containers.to_string(),
            ]
        }));
    }
    Ok(rows)
}

/// True for a layer that another image has, too.
fn is_shared(used: &Used, image: &UsedImage, layer: &DiffId) -> bool {
    used.images.iter().any(|other| other.record.id != image.record.id && other.layers.contains(layer))
}

/// Repository and tag of a full reference.
fn name(reference: &str) -> (String, String) {
    match reference.parse::<Reference>() {
        Ok(name) => (name.familiar_repository(), name.tag().unwrap_or("<none>").to_owned()),
        Err(_) => (reference.to_owned(), "<none>".to_owned()),
    }
}

fn containers(used: &Used) -> Vec<Vec<String>> {
    let row = |(container, size): &(kiln_engine::Container, u64)| {
        let command = text::ellipsis(&container.settings.arguments().join(" "), COMMAND_WIDTH);
        vec![
            text::short(&container.id),
            container.image_name.clone(),
            format!("{command:?}"),
            crate::commands::ps::local_volumes(container),
            text::size(*size),
            text::age(&container.created),
            crate::commands::ps::status(&container.state, None),
            container.name.clone(),
        ]
    };
    used.containers.iter().map(row).collect()
}

fn volumes(used: &Used) -> Vec<Vec<String>> {
    let rows = used.volumes.iter();
    rows.map(|(used, size)| {
        vec![used.volume.name.clone(), used.containers.len().to_string(), text::size(*size)]
    })
    .collect()
}

fn cache(used: &Used) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = used
        .cache
        .iter()
        .map(|layer| {
            let created = jiff::Timestamp::from_nanosecond(layer.created.into());
            vec![
                layer.id.chars().take(12).collect(),
                "regular".to_owned(),
                text::size(layer.size),
                text::age(&created.map(|time| time.to_string()).unwrap_or_default()),
            ]
        })
        .collect();
    if used.cache_dirs.0 > 0 {
        let count = used.cache_dirs.0;
        rows.push(vec![
            format!("{count} in caches/"),
            "exec.cachemount".to_owned(),
            text::size(used.cache_dirs.1),
            String::new(),
        ]);
    }
    rows
}
