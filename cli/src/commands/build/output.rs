//! `--output`: where the result goes besides the store.

use crate::commands::save;
use crate::error::{CliError, chain};
use kiln_builder::output::{self, OutputError};
use kiln_image::archive::{self, SaveRequest};
use kiln_image::digest::ImageId;
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// An image in the store: what happens anyway.
    Image,
    /// The files, in a folder.
    Folder(PathBuf),
    /// The files, as a tar.
    Tar(Target),
    /// The image as an archive that is an OCI layout, too.
    Archive(Target),
    /// The image as an OCI layout in a folder.
    Layout(PathBuf),
    /// Nothing but the cache.
    Cache,
}

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To a file.
    File(PathBuf),
    /// To standard output.
    Stdout,
}

impl Output {
    /// Reads `DIR`, `-`, or `type=TYPE[,dest=PATH][,…]`.
    pub(super) fn parse(text: &str) -> Result<Output, CliError> {
        if text == "-" {
            return Ok(Output::Tar(Target::Stdout));
        }
        if !text.contains('=') {
            return Ok(Output::Folder(PathBuf::from(text)));
        }
        let invalid = |reason: String, hint: &str| {
            CliError::Flags(format!("invalid value {text:?} for --output: {reason}"), vec![hint.to_owned()])
        };
        let (mut kind, mut dest, mut as_tar) = ("", None, true);
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=') else {
                return Err(invalid(
                    format!("{field:?} is no key=value pair"),
                    "write type=TYPE,dest=PATH, or only a folder",
                ));
            };
            match key.trim().to_lowercase().as_str() {
                "type" => kind = value,
                "dest" => dest = Some(value),
                "tar" => as_tar = value != "false",
                "push" if value == "false" => {}
                other => {
                    return Err(invalid(
                        format!("{other} is not supported yet"),
                        "it takes type, dest and tar",
                    ));
                }
            }
        }
        let target = || match dest {
            None | Some("-") => Target::Stdout,
            Some(path) => Target::File(PathBuf::from(path)),
        };
        let folder = || match dest {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(invalid(format!("dest is required for type={kind}"), "add dest=FOLDER")),
        };
        Ok(match kind {
            "image" => Output::Image,
            "docker" if dest.is_none() => Output::Image,
            "cacheonly" => Output::Cache,
            "local" => Output::Folder(folder()?),
            "tar" => Output::Tar(target()),
            "docker" => Output::Archive(target()),
            "oci" if as_tar => Output::Archive(target()),
            "oci" => Output::Layout(folder()?),
            "" => return Err(invalid("type is required".to_owned(), "write type=TYPE,dest=PATH")),
            "registry" => {
                return Err(CliError::failed("--output type=registry is not supported yet")
                    .hint("save the image, and push it with another program"));
            }
            other => {
                return Err(CliError::failed(format!(
                    "failed to build: failed to solve: exporter {other:?} could not be found"
                ))
                .hint("one of image, local, tar, oci, docker, cacheonly"));
            }
        })
    }

    /// True when the output is files, and no image.
    pub(super) fn is_tree(&self) -> bool {
        matches!(self, Output::Folder(_) | Output::Tar(_))
    }

    /// Refuses what could not be written before anything is built.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let to_terminal = matches!(self, Output::Tar(Target::Stdout) | Output::Archive(Target::Stdout))
            && std::io::stdout().is_terminal();
        if to_terminal {
            return Err(CliError::failed("dest file is required for a tar: refusing to write to a terminal")
                .hint("add dest=FILE, or redirect the output"));
        }
        Ok(())
    }

    /// Writes the output.
    pub(super) fn write(&self, store: &Store, image: &ImageId, tags: &[Reference]) -> Result<(), CliError> {
        let request = || -> Result<Vec<SaveRequest>, CliError> {
            let names = tags.iter().map(|tag| tag.clone().or_latest()).collect();
            Ok(vec![SaveRequest { image: store.resolve(&image.to_string())?, names }])
        };
        match self {
            Output::Image | Output::Cache => {}
            Output::Folder(folder) => output::to_folder(store, image, folder)?,
            Output::Tar(Target::Stdout) => {
                output::to_tar(store, image, BufWriter::new(std::io::stdout().lock()))?
                    .flush()
                    .map_err(|error| failed(Path::new("standard output"), &error))?;
            }
            Output::Tar(Target::File(path)) => {
                let file = File::create(path).map_err(|error| failed(path, &error))?;
                output::to_tar(store, image, BufWriter::new(file))?
                    .flush()
                    .map_err(|error| failed(path, &error))?;
            }
            Output::Archive(Target::Stdout) => {
                archive::save_tar(store, &request()?, std::io::stdout().lock())?
            }
            Output::Archive(Target::File(path)) => save::save_file(store, &request()?, path)?,
            Output::Layout(folder) => archive::save_folder(store, &request()?, folder)?,
        }
        Ok(())
    }
}

/// Writes an image's id to a file.
pub(super) fn write_id(path: &Path, image: &ImageId) -> Result<(), CliError> {
    std::fs::write(path, image.to_string()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot write `{}`: {error}", path.display()))
        .hint("check that the folder exists and can be written to")
}

impl From<OutputError> for CliError {
    fn from(error: OutputError) -> CliError {
        CliError::failed(chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read() {
        let file = |path: &str| Target::File(path.into());
        for (text, expected) in [
            ("out", Output::Folder("out".into())),
            ("-", Output::Tar(Target::Stdout)),
            ("type=local,dest=out", Output::Folder("out".into())),
            ("type=tar,dest=-", Output::Tar(Target::Stdout)),
            ("dest=a.tar,type=oci", Output::Archive(file("a.tar"))),
            ("type=oci,dest=a,tar=false", Output::Layout("a".into())),
            ("type=docker", Output::Image),
            ("type=docker,dest=a.tar", Output::Archive(file("a.tar"))),
            ("type=cacheonly", Output::Cache),
        ] {
            assert_eq!(Output::parse(text).unwrap(), expected, "{text}");
        }
        for wrong in ["type=local", "type=nosuch", "dest=x", "type=tar,compression=zstd", "type=registry"] {
            assert!(Output::parse(wrong).is_err(), "{wrong}");
        }
    }
}
