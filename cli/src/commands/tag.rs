//! `kiln tag`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use clap::Parser;
use kiln_image::reference::Reference;
use std::ffi::OsString;

/// Give an image another name.
#[derive(Debug, Parser)]
struct Tag {
    /// Name or id of the image
    image: String,
    /// New name, NAME[:TAG]
    name: String,
}

/// Sets a tag.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let tag: Tag = arguments::parse("tag", arguments)?;
    let name: Reference = tag
        .name
        .parse()
        .map_err(|error| CliError::failed(format!("error parsing reference: {:?}: {error}", tag.name)))?;
    if name.digest().is_some() {
        return Err(CliError::failed("refusing to create a tag with a digest reference"));
    }
    let session = Session::open(globals)?;
    let image = session.store.resolve(&tag.image)?;
    session.store.tag(&name.or_latest(), &image.id)?;
    Ok(0)
}
