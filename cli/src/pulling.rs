//! Reports a pull in Docker's lines.

use crate::error::CliError;
use crate::images::ImageFinder;
use crate::missing::NAME;
use crate::text;
use kiln_image::digest::Digest;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_registry::{PullEvent, Pulled};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Platform of `--platform`; this host's without the flag.
///
/// # Errors
///
/// Fails for texts that are no platform.
pub fn platform(text: Option<&str>) -> Result<Platform, CliError> {
    let Some(text) = text else { return Ok(Platform::host()) };
    text.parse().map_err(|error| CliError::failed(format!("failed to parse platform {error}")))
}

/// Pulls an image, and calls `line` with each line of progress. Returns the result and the image's full name.
///
/// # Errors
///
/// Fails for invalid names, and when the image cannot be pulled.
pub fn pull(
    finder: &ImageFinder<'_>,
    name: &str,
    platform: &Platform,
    line: &(dyn Fn(&str) + Sync),
) -> Result<(Pulled, Reference), CliError> {
    let reference: Reference = name
        .parse()
        .map_err(|error| CliError::failed(format!("invalid reference {name:?}: {error}")).hint(NAME))?;
    let reference = reference.or_latest();
    line(&format!("{}: Pulling from {}", reference.version(), reference.path()));
    let begun: Mutex<BTreeSet<Digest>> = Mutex::default();
    let layer = |digest: &Digest, words: &str| line(&format!("{}: {words}", text::short(digest.as_str())));
    let hear = |event: PullEvent| match event {
        PullEvent::Resolved(..) => {}
        PullEvent::Exists(digest) => layer(&digest, "Already exists"),
        PullEvent::Downloading(digest, _) => {
            let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
            if begun.insert(digest.clone()) {
                layer(&digest, "Pulling fs layer");
            }
        }
        PullEvent::Complete(digest) => layer(&digest, "Pull complete"),
    };
    let pulled = finder.pull(&reference, platform, &hear)?;
    line(&format!("Digest: {}", pulled.digest));
    let status = if pulled.is_new { "Downloaded newer image for" } else { "Image is up to date for" };
    line(&format!("Status: {status} {}", reference.familiar()));
    Ok((pulled, reference))
}
