//! Records of builds that can be repeated: the command line and its working directory.

use crate::credentials::Credentials;
use crate::front::BuildOptions;
use crate::outcome::BuiltImage;
use crate::stage;
use kiln_image::digest::ImageId;
use kiln_image::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Flag whose values may contain secrets.
const FLAG: &str = "--build-arg";

/// Record of an image's build. It contains no secret: it stays on disk as long as the image.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recipe {
    /// Working directory of the command.
    #[serde(rename = "folder")]
    pub dir: PathBuf,
    /// Arguments after `build`, as bytes.
    arguments: Vec<Vec<u8>>,
    /// Build arguments with their values, some of which came from the environment.
    #[serde(default)]
    values: BTreeMap<String, String>,
    /// Names of build arguments whose values contain a secret and are not stored.
    #[serde(default)]
    withheld: BTreeSet<String>,
}

/// A build argument whose value contains a secret, was not stored, and is not in the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image was built with --build-arg {name}, whose value holds a secret and was not kept")]
pub struct WithheldArgument {
    /// Name of the build argument.
    pub name: String,
}

impl Recipe {
    /// Recipe of a command line; `None` when arguments other than values of build arguments contain a secret.
    fn new(
        dir: &Path,
        words: &[OsString],
        values: &BTreeMap<String, String>,
        credentials: &Credentials,
    ) -> Option<Recipe> {
        let is_secret = |bytes: &[u8]| credentials.holds_secret(bytes);
        let hides = |name: &str, value: &str| is_proxy(name) || is_secret(value.as_bytes());
        let mut arguments: Vec<Vec<u8>> = Vec::new();
        for word in words {
            let is_value = arguments.last().is_some_and(|last| last == FLAG.as_bytes());
            let text = word.to_str().unwrap_or_default();
            let assignment = match is_value {
                true => Some(text),
                false => text.strip_prefix(FLAG).and_then(|rest| rest.strip_prefix('=')),
            };
            let bytes = match assignment.and_then(|text| text.split_once('=')) {
                Some((name, value)) if hides(name, value) => &word.as_bytes()[..word.len() - value.len() - 1],
                _ => word.as_bytes(),
            };
            if is_secret(bytes) {
                return None;
            }
            arguments.push(bytes.to_vec());
        }
        let (hidden, values): (BTreeMap<_, _>, BTreeMap<_, _>) =
            values.clone().into_iter().partition(|(name, value)| hides(name, value));
        let withheld = hidden.into_keys().filter(|name| !is_proxy(name)).collect();
        Some(Recipe { dir: dir.to_owned(), arguments, values, withheld })
    }

    /// Arguments of `build`, followed by the values that came from the environment. `is_set` is true for variables of
    /// the current environment.
    ///
    /// # Errors
    /// [`WithheldArgument`] when a value was not stored and is not in the environment.
    pub fn arguments(&self, is_set: impl Fn(&str) -> bool) -> Result<Vec<OsString>, WithheldArgument> {
        if let Some(name) = self.withheld.iter().find(|name| !is_set(name)) {
            return Err(WithheldArgument { name: name.clone() });
        }
        let words = self.arguments.iter().map(|word| OsStr::from_bytes(word).to_owned());
        let values = self.values.iter();
        let values = values.map(|(name, value)| OsString::from(format!("--build-arg={name}={value}")));
        Ok(words.chain(values).collect())
    }
}

/// True for build arguments that do not change images, and whose values may contain passwords.
fn is_proxy(name: &str) -> bool {
    name.to_ascii_uppercase().ends_with("_PROXY") && stage::is_predefined(name)
}

fn name(image: &ImageId) -> String {
    format!("recipe-{}", image.0.hex())
}

/// Records how images were built: `words` are the arguments of `build` in the working directory `dir`. A command line
/// that contains a secret is not recorded.
///
/// # Errors
/// Fails when the store cannot be written.
pub fn record(
    store: &Store,
    images: &[BuiltImage],
    dir: &Path,
    words: &[OsString],
    options: &BuildOptions,
) -> Result<(), StoreError> {
    let Some(recipe) = Recipe::new(dir, words, &options.build_args, &options.credentials) else {
        return Ok(());
    };
    let bytes = serde_json::to_vec(&recipe).expect("bytes are JSON");
    images.iter().try_for_each(|image| store.put_cache(&name(&image.id), &bytes))
}

/// Recipe of an image; `None` if it was not built with this store.
pub fn find(store: &Store, image: &ImageId) -> Option<Recipe> {
    serde_json::from_slice(&store.read_cache(&name(image))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(words: &[&str], build_args: &[(&str, &str)]) -> Option<Recipe> {
        let secrets = BTreeMap::from([("s".to_owned(), b"config-value-1234\n".to_vec())]);
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let values = build_args.iter().map(own).collect();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Recipe::new(Path::new("/"), &words, &values, &Credentials { secrets, ..Credentials::default() })
    }

    #[test]
    fn secrets_and_proxies_are_not_kept() {
        let given = [("KILN_TEST_A", "config-value-1234"), ("B", "b"), ("https_proxy", "http://u:p@host")];
        let words = [
            "--build-arg",
            "KILN_TEST_A=config-value-1234",
            "--build-arg=B=b",
            "--build-arg=https_proxy=http://u:p@host",
            ".",
        ];
        let kept = recipe(&words, &given).unwrap();
        let texts: Vec<_> = kept.arguments.iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert_eq!(texts, ["--build-arg", "KILN_TEST_A", "--build-arg=B=b", "--build-arg=https_proxy", "."]);
        assert_eq!(kept.values, BTreeMap::from([("B".to_owned(), "b".to_owned())]));
        assert_eq!(kept.withheld, BTreeSet::from(["KILN_TEST_A".to_owned()]));
        assert!(
            kept.arguments(|_| false).is_err() && kept.arguments(|_| true).is_ok(),
            "the value is in no environment"
        );
    }

    #[test]
    fn command_lines_with_secrets_are_not_kept() {
        assert!(recipe(&["--label=a=config-value-1234", "."], &[]).is_none());
        assert!(recipe(&["--label=a=b", "."], &[]).is_some());
    }
}
