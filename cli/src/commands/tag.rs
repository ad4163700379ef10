//! `kiln tag`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::image_events;
use crate::missing;
use crate::session::Session;
use clap::Parser;
use kiln_image::reference::Reference;
use std::ffi::OsString;

/// Add a name to an image.
#[derive(Debug, Parser)]
struct Tag {
    /// Name this image: a name or an id
    image: String,
    /// Give it this name: [REGISTRY/]NAME[:TAG]
    name: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Tag as clap::CommandFactory>::command()
}

/// Adds a tag to an image.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let tag: Tag = arguments::parse("tag", arguments)?;
    let name: Reference = tag
        .name
        .parse()
        .map_err(|error| CliError::failed(format!("error parsing reference: {:?}: {error}", tag.name)))
        .map_err(|error| error.hint(missing::NAME))?;
    if name.digest().is_some() {
        return Err(CliError::failed("refusing to create a tag with a digest reference")
            .hint("name it as NAME:TAG, without @sha256:…"));
    }
    let session = Session::open(globals)?;
    let image = session.store.resolve(&tag.image).map_err(|error| missing::image(&session.store, error))?;
    let name = name.or_latest();
    session.store.tag(&name, &image.id)?;
    image_events::tagged(&session.store, &image.id, &name);
    Ok(0)
}
