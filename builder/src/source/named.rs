//! Named contexts: `--build-context NAME=VALUE`.

use super::{ContextOpener, SourceError, TemporaryDir, download_time, unpack};
use crate::context::{ContextSource, LocalDir, NamedContext};
use crate::plan::checkout;
use kiln_image::archive;
use kiln_image::compression::is_compressed;
use kiln_image::digest::{Digest, ImageId};
use kiln_image::layer::is_tar;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use kiln_parser::git::GitReference;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Prefix of placeholder names for images of OCI layouts; no registry has this name.
const LAYOUTS: &str = "kiln.invalid/context";

/// A named context as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSource {
    name: String,
    value: String,
}

fn failed(message: String, hint: &'static str) -> SourceError {
    SourceError::Named { message, hint: Some(hint) }
}

impl NamedSource {
    /// Parses `NAME=VALUE`. The value is a directory, an address, or begins with `docker-image://`, `oci-layout://` or
    /// `target:`.
    ///
    /// # Errors
    /// Fails for a text of another form, and for a name that is not a valid name of a stage or image.
    pub fn parse(text: &str) -> Result<NamedSource, SourceError> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                let plain = name.split("::").next().unwrap_or(name);
                if let Err(error) = plain.parse::<Reference>() {
                    return Err(failed(
                        format!("invalid context name {name}: {error}"),
                        "names are those of stages and images: lower case",
                    ));
                }
                Ok(NamedSource { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(failed(
                format!("invalid context value: {text}, expected key=value"),
                "write --build-context NAME=DIRECTORY, or docker-image://, oci-layout://, https://, target:",
            )),
        }
    }

    fn layout(&self) -> Option<&str> {
        self.value.strip_prefix("oci-layout://")
    }

    fn invalid(&self, problem: impl std::fmt::Display) -> SourceError {
        SourceError::Named { message: format!("--build-context {}: {problem}", self.name), hint: None }
    }

    /// Opens the context; temporary directories for it are added to `dirs`.
    pub(super) fn open(
        &self,
        opener: &ContextOpener<'_>,
        dirs: &mut Vec<TemporaryDir>,
    ) -> Result<NamedContext, SourceError> {
        let value = self.value.as_str();
        let mut time = None;
        let source = if let Some(image) = value.strip_prefix("docker-image://") {
            ContextSource::Image(image.to_owned())
        } else if let Some(stage) = value.strip_prefix("target:") {
            ContextSource::Stage(stage.to_lowercase())
        } else if self.layout().is_some() {
            ContextSource::Image(layout_name(&self.name))
        } else if let Some(git) = GitReference::parse(value) {
            let git = git.map_err(|problem| self.invalid(problem))?;
            let (dir, root, made) = opener.check_out(&checkout(git, false, None))?;
            dirs.push(dir);
            time = Some(made);
            ContextSource::Dir(LocalDir::unfiltered(&root))
        } else if super::is_web(value) {
            let (dir, made) = download(opener, value, dirs)?;
            time = made;
            ContextSource::Dir(dir)
        } else {
            ContextSource::Dir(self.local()?)
        };
        Ok(NamedContext { name: self.name.clone(), source, time })
    }

    fn local(&self) -> Result<LocalDir, SourceError> {
        let path = Path::new(&self.value);
        if !path.is_dir() {
            let what = if path.exists() { "is not a directory" } else { "not found" };
            return Err(failed(
                format!("unable to prepare context {}: path {:?} {what}", self.name, self.value),
                "name a directory, or begin the value with docker-image://, oci-layout:// or https://",
            ));
        }
        Ok(LocalDir::open(path)?)
    }
}

/// Unpacks an archive; any other file becomes `context` in a new directory.
fn download(
    opener: &ContextOpener<'_>,
    url: &str,
    dirs: &mut Vec<TemporaryDir>,
) -> Result<(LocalDir, Option<i64>), SourceError> {
    let (dir, path, version) = opener.download(url)?;
    let time = download_time(&version, &path);
    let failed = SourceError::read(url);
    let mut input = BufReader::with_capacity(64 << 10, File::open(&path).map_err(&failed)?);
    let start = input.fill_buf().map_err(&failed)?;
    let root = path.with_file_name("files");
    std::fs::create_dir(&root).map_err(&failed)?;
    let is_archive = is_compressed(start) || is_tar(start);
    if is_archive {
        unpack(input, &root, url)?;
    } else {
        std::fs::rename(&path, root.join("context")).map_err(&failed)?;
    }
    dirs.push(dir);
    Ok((LocalDir { is_archive, ..LocalDir::unfiltered(&root) }, time))
}

fn layout_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    format!("{LAYOUTS}/{}:latest", plain.trim_matches('-'))
}

/// Loads the images of OCI layouts into the store. Returns them by their placeholder names.
///
/// # Errors
/// Fails when a layout cannot be read, or has no image for the platform.
pub fn load_layouts(
    store: &Store,
    sources: &[NamedSource],
    platform: &Platform,
) -> Result<BTreeMap<String, ImageId>, SourceError> {
    let mut images = BTreeMap::new();
    for source in sources {
        let Some(place) = source.layout() else { continue };
        let (rest, digest) = place.split_once('@').unwrap_or((place, ""));
        let digest = match digest {
            "" => None,
            text => Some(text.parse::<Digest>().map_err(|error| source.invalid(error))?),
        };
        // A colon after the last slash begins a tag, unless the directory has it in its name.
        let colon =
            rest.rfind(':').filter(|colon| !rest[*colon..].contains('/') && !Path::new(rest).exists());
        let (dir, tag) = match colon {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        let image = archive::load_layout(store, Path::new(dir), tag, digest.as_ref(), platform)?;
        let name = layout_name(&source.name);
        let reference = name.parse::<Reference>().map_err(|error| source.invalid(error))?;
        images.insert(reference.or_latest().to_string(), image);
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let source = NamedSource::parse("a=b=c").unwrap();
        assert_eq!((source.name.as_str(), source.value.as_str()), ("a", "b=c"));
        for text in ["a", "=b", "a="] {
            assert!(NamedSource::parse(text).is_err(), "{text}");
        }
        assert!(layout_name("My/Base:1").parse::<Reference>().is_ok());
    }
}
