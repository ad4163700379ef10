//! `--build-context NAME=VALUE`: more places that a Dockerfile can take files and images from.

use super::context::{Opener, TemporaryDir, download_time, unpack};
use crate::error::{BuildFailure, CliError};
use kiln_builder::{ContextSource, LocalDir, NamedContext, checkout};
use kiln_image::archive;
use kiln_image::compression::is_compressed;
use kiln_image::digest::{Digest, ImageId};
use kiln_image::layer::is_tar;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::git::GitReference;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Images of OCI layouts go by names below this, which no registry has.
const LAYOUTS: &str = "kiln.invalid/context";

/// One `--build-context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedFlag {
    /// What it is called.
    pub(super) name: String,
    /// Where it is.
    value: String,
}

impl NamedFlag {
    /// Reads `NAME=VALUE`.
    pub(super) fn parse(text: &str) -> Result<NamedFlag, CliError> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                let plain = name.split("::").next().unwrap_or(name);
                if let Err(error) = plain.parse::<Reference>() {
                    return Err(CliError::failed(format!("invalid context name {name}: {error}"))
                        .hint("names are those of stages and images: lower case"));
                }
                Ok(NamedFlag { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(CliError::failed(format!("invalid context value: {text}, expected key=value")).hint(
                "write --build-context NAME=DIRECTORY, or docker-image://, oci-layout://, https://, target:",
            )),
        }
    }

    fn layout(&self) -> Option<&str> {
        self.value.strip_prefix("oci-layout://")
    }
}

/// Opens a named context; directories that are made for it are added to `directories`.
pub(super) fn open(
    opener: &Opener<'_>,
    flag: &NamedFlag,
    dirs: &mut Vec<TemporaryDir>,
) -> Result<NamedContext, CliError> {
    let value = flag.value.as_str();
    let mut time = None;
    let source = if let Some(image) = value.strip_prefix("docker-image://") {
        ContextSource::Image(image.to_owned())
    } else if let Some(stage) = value.strip_prefix("target:") {
        ContextSource::Stage(stage.to_lowercase())
    } else if flag.layout().is_some() {
        ContextSource::Image(layout_name(&flag.name))
    } else if let Some(git) = GitReference::parse(value) {
        let git =
            git.map_err(|problem| CliError::failed(format!("--build-context {}: {problem}", flag.name)))?;
        let (dir, root, made) = opener.check_out(&checkout(git, false, None))?;
        dirs.push(dir);
        time = Some(made);
        ContextSource::Dir(LocalDir::whole(&root))
    } else if value.starts_with("http://") || value.starts_with("https://") {
        let (dir, made) = download(opener, value, dirs)?;
        time = made;
        ContextSource::Dir(dir)
    } else {
        ContextSource::Dir(local(flag)?)
    };
    Ok(NamedContext { name: flag.name.clone(), source, time })
}

fn local(flag: &NamedFlag) -> Result<LocalDir, CliError> {
    let path = Path::new(&flag.value);
    if !path.is_dir() {
        let what = if path.exists() { "is not a directory" } else { "not found" };
        return Err(CliError::failed(format!(
            "failed to build: unable to prepare context {}: path {:?} {what}",
            flag.name, flag.value
        ))
        .hint("name a directory, or begin the value with docker-image://, oci-layout:// or https://"));
    }
    LocalDir::open(path).map_err(|mistake| {
        CliError::Build(Box::new(BuildFailure { error: mistake.into(), source: None, is_shown: false }))
    })
}

/// An archive is unpacked; any other file is called `context` in a directory of its own.
fn download(
    opener: &Opener<'_>,
    url: &str,
    dirs: &mut Vec<TemporaryDir>,
) -> Result<(LocalDir, Option<i64>), CliError> {
    let (dir, path, version) = opener.download(url)?;
    let time = download_time(&version, &path);
    let failed = |error: std::io::Error| CliError::failed(format!("cannot read {url}: {error}"));
    let mut input = BufReader::with_capacity(64 << 10, File::open(&path).map_err(failed)?);
    let start = input.fill_buf().map_err(failed)?;
    let root = path.with_file_name("files");
    std::fs::create_dir(&root).map_err(failed)?;
    let is_archive = is_compressed(start) || is_tar(start);
    if is_archive {
        unpack(input, &root, url)?;
    } else {
        std::fs::rename(&path, root.join("context")).map_err(failed)?;
    }
    dirs.push(dir);
    Ok((LocalDir { is_archive, ..LocalDir::whole(&root) }, time))
}

fn layout_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    format!("{LAYOUTS}/{}:latest", plain.trim_matches('-'))
}

/// Brings the images of OCI layouts into the store; gives them by the names that stand for them.
pub(super) fn load_layouts(
    store: &kiln_image::store::Store,
    flags: &[NamedFlag],
    platform: &Platform,
) -> Result<BTreeMap<String, ImageId>, CliError> {
    let mut images = BTreeMap::new();
    for flag in flags {
        let Some(place) = flag.layout() else { continue };
        let (rest, digest) = place.split_once('@').unwrap_or((place, ""));
        let digest = match digest {
            "" => None,
            text => Some(
                text.parse::<Digest>()
                    .map_err(|error| CliError::failed(format!("--build-context {}: {error}", flag.name)))?,
            ),
        };
        // A colon behind the last slash begins a tag, unless the directory has it in its name.
        let colon =
            rest.rfind(':').filter(|colon| !rest[*colon..].contains('/') && !Path::new(rest).exists());
        let (dir, tag) = match colon {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        let image = archive::load_layout(store, Path::new(dir), tag, digest.as_ref(), platform)?;
        let name = layout_name(&flag.name);
        let reference = name.parse::<Reference>().map_err(|error| CliError::failed(error.to_string()))?;
        images.insert(reference.or_latest().to_string(), image);
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        let flag = NamedFlag::parse("a=b=c").unwrap();
        assert_eq!((flag.name.as_str(), flag.value.as_str()), ("a", "b=c"));
        for text in ["a", "=b", "a="] {
            assert!(NamedFlag::parse(text).is_err(), "{text}");
        }
        assert!(layout_name("My/Base:1").parse::<Reference>().is_ok());
    }
}
