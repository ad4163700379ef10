//! `kiln image prune`.

use super::images::filter::{Filter, OF_PRUNE};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::image_events;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use kiln_engine::Containers;
use kiln_image::store::{ImageRecord, Removed, StoreError};
use std::ffi::OsString;

/// Remove images that have no name, or all that no container uses.
#[derive(Debug, Parser)]
struct Prune {
    /// Remove all images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
    /// Remove only these: until=TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Prune as clap::CommandFactory>::command()
}

/// Removes the images and prints their names and ids.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let prune: Prune = arguments::parse("image prune", arguments)?;
    let filter = Filter::read(&prune.filter, OF_PRUNE)?;
    if filter.dangling().is_some_and(|dangling| dangling == prune.all) {
        return Err(CliError::failed("the filter dangling contradicts --all").hint(
            "leave the filter out: --all is dangling=false, without it only images without a name go",
        ));
    }
    let session = Session::open(globals)?;
    let question = match prune.all {
        true => "This will remove all images without at least one container associated to them.",
        false => "This will remove all dangling images.",
    };
    if !prune.force && !ui::confirm(&format!("WARNING! {question}"))? {
        return Ok(0);
    }
    let containers = Containers::open(&session.store)?;
    session::warn_of_damaged(&containers)?;
    let before = session.store.layer_bytes()?;
    let removed = remove(&session, &containers, &filter, prune.all)?;
    print(&removed, "");
    let freed = before.saturating_sub(session.store.layer_bytes()?);
    let gap = if removed.is_empty() { "" } else { "\n" };
    ui::line(&format!("{gap}Total reclaimed space: {}", text::size(freed)));
    Ok(0)
}

/// Removes images that no container uses and that meet the filter: those without a name, or with `all` also others.
///
/// # Errors
///
/// Fails when the store cannot be read or written.
pub(super) fn remove(
    session: &Session,
    containers: &Containers<'_>,
    filter: &Filter,
    all: bool,
) -> Result<Vec<Removed>, CliError> {
    let mut removed = Vec::new();
    for image in chosen(session, filter, all)? {
        if containers.of_image(&image.id)?.is_empty() {
            match session.store.remove_image(&image, if all { usize::MAX } else { 0 }) {
                // Another command has tagged it in the meantime.
                Err(StoreError::ManyTags(_)) => {}
                other => {
                    let gone = other?;
                    image_events::removed(&session.store, &image.id, &gone);
                    removed.extend(gone);
                }
            }
        }
    }
    Ok(removed)
}

/// Prints what was removed under a heading, with `gap` in front; without any, nothing.
pub(super) fn print(removed: &[Removed], gap: &str) {
    if !removed.is_empty() {
        ui::line(&format!("{gap}Deleted Images:"));
    }
    for one in removed {
        match one {
            Removed::Untagged(name) => ui::line(&format!("untagged: {name}")),
            Removed::Deleted(id) => ui::line(&format!("deleted: {id}")),
        }
    }
}

fn chosen(session: &Session, filter: &Filter, all: bool) -> Result<Vec<ImageRecord>, CliError> {
    let store = &session.store;
    let mut images = filter.take(store, store.images()?)?;
    if !all {
        let tags = store.tags()?;
        images.retain(|image| !tags.iter().any(|tag| tag.image == image.id));
        let mut nameless = Vec::new();
        for image in images {
            // An image that was pulled by digest has a name.
            if store.repo_digests(&image.id)?.is_empty() {
                nameless.push(image);
            }
        }
        images = nameless;
    }
    Ok(images)
}
