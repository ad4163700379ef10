//! Image of a new container: found in the store, or pulled.

use crate::error::{CliError, code};
use crate::images::ImageFinder;
use crate::session::Session;
use crate::{missing, pulling, ui};
use clap::Args;
use kiln_image::platform::Platform;
use kiln_image::store::{Image, StoreError};

/// Flags for the image, for `kiln run` and `kiln create`.
#[derive(Debug, Args)]
pub(in crate::commands) struct ImageFlags {
    /// Pull the image when it is missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: String,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    pub(in crate::commands) quiet: bool,
}

impl ImageFlags {
    /// Finds the image, and pulls it if the options require that.
    pub(in crate::commands) fn image(&self, session: &Session, name: &str) -> Result<Image, CliError> {
        let store = &session.store;
        let pull = || {
            let finder = ImageFinder::new(store, &session.config.registry);
            let lines = |text: &str| {
                if !self.quiet {
                    ui::tell_line(text);
                }
            };
            pulling::pull(&finder, name, &lines).map_err(|error| {
                let near = missing::near_image(store, name);
                let error =
                    near.iter().fold(error, |error, near| error.hint(format!("did you mean {near}?")));
                error.with_code(code::USAGE)
            })?;
            Ok::<_, CliError>(store.resolve(name)?)
        };
        let record = match (self.pull.as_str(), store.resolve(name)) {
            ("always", _) => pull()?,
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
        let (own, host) = (image.config.platform(), Platform::host());
        if own.distance(&host).is_none() {
            return Err(CliError::failed(format!("the image {} is for {own}, this host is {host}", name))
                .hint("programs for other platforms cannot be run yet")
                .with_code(code::USAGE));
        }
        Ok(image)
    }
}
