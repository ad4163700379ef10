//! `--metadata-file`: description of the result, for tools.

use super::output::{Made, failed};
use crate::error::CliError;
use kiln_image::json;
use kiln_image::manifest::Descriptor;
use serde::Serialize;
use std::path::Path;

/// Keys as buildx writes them, in alphabetical order.
#[derive(Serialize)]
struct Metadata {
    #[serde(rename = "buildx.build.ref")]
    build: String,
    #[serde(rename = "containerimage.config.digest", skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    #[serde(rename = "containerimage.descriptor", skip_serializing_if = "Option::is_none")]
    descriptor: Option<Descriptor>,
    #[serde(rename = "containerimage.digest", skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(rename = "image.name", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// Writes the file. Builds whose outputs are only files have no image to describe.
pub(super) fn write(path: &Path, made: &Made<'_>, has_image: bool) -> Result<(), CliError> {
    let outcome = made.outcome;
    let main = outcome.main();
    let descriptor = made.descriptor();
    let names: Vec<String> =
        outcome.last().iter().flat_map(|image| &image.tags).map(ToString::to_string).collect();
    let id = &main.id.0.hex()[..25];
    let metadata = Metadata {
        build: format!("default/default/{id}"),
        config: (has_image && outcome.index.is_none()).then(|| main.id.to_string()),
        digest: has_image.then(|| descriptor.digest.to_string()),
        descriptor: has_image.then_some(descriptor),
        name: (has_image && !names.is_empty()).then(|| names.join(",")),
    };
    std::fs::write(path, json::to_vec_pretty(&metadata)).map_err(|error| failed(path, &error))
}
