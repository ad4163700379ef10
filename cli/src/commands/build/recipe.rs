//! How images were built, so that they can be built again: the command line and the folder it was given in.

use super::output::Made;
use crate::error::CliError;
use kiln_image::digest::ImageId;
use kiln_image::store::Store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// How an image was built.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recipe {
    /// The folder in which the command was given.
    pub folder: PathBuf,
    /// What followed `build`, as bytes.
    arguments: Vec<Vec<u8>>,
    /// Build arguments with their values, some of which came from the environment.
    #[serde(default)]
    values: BTreeMap<String, String>,
}

impl Recipe {
    /// What followed `build`, and then the values that came from the environment.
    pub fn arguments(&self) -> Vec<OsString> {
        let words = self.arguments.iter().map(|word| OsStr::from_bytes(word).to_owned());
        let values = self.values.iter();
        let values = values.map(|(name, value)| OsString::from(format!("--build-arg={name}={value}")));
        words.chain(values).collect()
    }
}

fn name(image: &ImageId) -> String {
    format!("recipe-{}", image.0.hex())
}

/// Remembers how images were built.
pub(super) fn keep(
    made: &Made<'_>,
    arguments: &[OsString],
    values: &BTreeMap<String, String>,
) -> Result<(), CliError> {
    let recipe = Recipe {
        folder: std::env::current_dir().unwrap_or_default(),
        arguments: arguments.iter().map(|word| word.as_bytes().to_vec()).collect(),
        values: values.clone(),
    };
    let bytes = serde_json::to_vec(&recipe).expect("bytes are JSON");
    for image in &made.outcome.images {
        made.store.put_cache(&name(&image.id), &bytes)?;
    }
    Ok(())
}

/// How an image was built, if it was built here.
pub fn find(store: &Store, image: &ImageId) -> Option<Recipe> {
    serde_json::from_slice(&store.read_cache(&name(image))?).ok()
}
