//! Image of a new container: found in the store, or pulled.

use crate::error::{CliError, code};
use crate::images::ImageFinder;
use crate::session::Session;
use crate::{missing, pulling, ui};
use clap::Args;
use kiln_image::platform::Platform;
use kiln_image::store::{Image, ImageRecord, Store, StoreError};

/// Flags for the image, for `kiln run` and `kiln create`.
#[derive(Debug, Args)]
pub(in crate::commands) struct ImageFlags {
    /// Pull the image when it is missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: String,
    /// Run the image for this platform, os/architecture [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    pub(in crate::commands) quiet: bool,
}

impl ImageFlags {
    /// Finds the image, and pulls it if the options require that.
    pub(in crate::commands) fn image(&self, session: &Session, name: &str) -> Result<Image, CliError> {
        let store = &session.store;
        let wanted =
            pulling::platform(self.platform.as_deref()).map_err(|error| error.with_code(code::USAGE))?;
        let pull = || {
            let finder = ImageFinder::new(store, &session.config.registry);
            let lines = |text: &str| {
                if !self.quiet {
                    ui::tell_line(text);
                }
            };
            pulling::pull(&finder, name, &wanted, &lines).map_err(|error| {
                let near = missing::near_image(store, name);
                let error =
                    near.iter().fold(error, |error, near| error.hint(format!("did you mean {near}?")));
                error.with_code(code::USAGE)
            })?;
            Ok::<_, CliError>(store.resolve(name)?)
        };
        let record = match (self.pull.as_str(), store.resolve(name)) {
            ("always", _) => pull()?,
            ("missing", Ok(record)) if self.platform.is_some() && !is_for(store, &record, &wanted)? => {
                pull()?
            }
            ("missing" | "never", Ok(record)) => record,
            ("missing", Err(StoreError::NoSuchImage(name))) => {
                if !self.quiet {
                    ui::tell_line(&format!("Unable to find image '{name}' locally"));
                }
                pull()?
            }
            ("missing" | "never", Err(error)) => {
                return Err(missing::image(store, error).with_code(code::USAGE));
            }
            (other, _) => {
                return Err(CliError::Flags(
                    format!(
                        "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
                    ),
                    Vec::new(),
                ));
            }
        };
        let image = store.read_image(record)?;
        let own = image.config.platform();
        if own.distance(&wanted).is_none() && self.platform.is_some() {
            let message = format!(
                "image with reference {name} was found but does not provide the specified platform ({wanted})"
            );
            return Err(CliError::failed(message).with_code(code::USAGE));
        }
        if own.distance(&wanted).is_none() {
            return Err(CliError::failed(format!("the image {} is for {own}, this host is {wanted}", name))
                .hint("programs for other platforms cannot be run yet")
                .with_code(code::USAGE));
        }
        Ok(image)
    }
}

/// True when an image of the store is for a platform.
fn is_for(store: &Store, record: &ImageRecord, wanted: &Platform) -> Result<bool, CliError> {
    Ok(store.read_image(record.clone())?.config.platform().distance(wanted).is_some())
}
