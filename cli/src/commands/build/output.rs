//! `--output`: destinations of the result besides the store.

use crate::commands::save::{self, Destination};
use crate::error::{CliError, chain};
use crate::images::ImageFinder;
use crate::ui;
use kiln_builder::delivery::{Delivery, DeliveryError, Push, Upload};
use kiln_builder::output::{self, OutputError};
use kiln_builder::{Annotations, BlobProgress, ImageError, Outcome};
use kiln_image::archive::{Compression, PackOptions};
use kiln_image::digest::{DiffId, Digest};
use kiln_image::manifest::Descriptor;
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use kiln_registry::{PushEvent, PushRequest, RegistryError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Compression level: hardly larger results than the usual level 6, in less time.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// One `--output` of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Output {
    /// Kind and destination of the output.
    pub(super) kind: Kind,
    /// Options of its format.
    pub(super) options: OutputOptions,
}

/// Kind of an output, with its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Image in the store, which is created in any case.
    Image,
    /// Files, in a directory.
    Dir(PathBuf),
    /// Files, as a tar.
    Tar(Target),
    /// Image as an archive, which is an OCI layout too.
    Archive(Target),
    /// Image as an OCI layout in a directory.
    Layout(PathBuf),
    /// Only the cache, without an image.
    Cache,
}

/// Destination of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Path of a file.
    File(PathBuf),
    /// Standard output of the process.
    Stdout,
}

/// Options of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OutputOptions {
    /// Further names for the image.
    pub(super) names: Vec<String>,
    /// True when it is pushed to the registry in each of its names.
    pub(super) push: bool,
    by_digest: bool,
    compression: Option<String>,
    level: Option<i32>,
    force: bool,
    /// True for Docker's media types instead of those of OCI; `None` for the value of `--format`.
    pub(super) docker_types: Option<bool>,
    /// True when files younger than the epoch get its time.
    pub(super) rewrites_times: bool,
    /// Annotations of manifest and index, as for `--annotation`.
    pub(super) annotations: Vec<String>,
    /// True when other files in the directory are removed.
    pub(super) deletes: bool,
    /// True for a directory for each platform; `None` for that only with several platforms.
    splits: Option<bool>,
    /// True for an archive of Docker's kind: one platform only.
    is_docker: bool,
}

impl Output {
    /// Output of the form `type=registry`.
    pub(super) fn push() -> Output {
        Output { kind: Kind::Image, options: OutputOptions { push: true, ..OutputOptions::default() } }
    }

    fn plain(kind: Kind) -> Output {
        Output { kind, options: OutputOptions::default() }
    }

    /// Parses `DIR`, `-`, or `type=TYPE[,dest=PATH][,…]`.
    pub(super) fn parse(text: &str) -> Result<Output, CliError> {
        if text == "-" {
            return Ok(Output::plain(Kind::Tar(Target::Stdout)));
        }
        if !text.contains('=') {
            return Ok(Output::plain(Kind::Dir(PathBuf::from(text))));
        }
        let invalid = |reason: String, hint: &str| {
            CliError::failed(format!("invalid value {text:?} for --output: {reason}")).hint(hint)
        };
        let (mut kind, mut dest, mut as_tar) = (String::new(), None, true);
        let mut options = OutputOptions::default();
        for field in fields(text) {
            let Some((key, value)) = field.split_once('=') else {
                return Err(invalid(
                    format!("{field:?} is no key=value pair"),
                    "write type=TYPE,dest=PATH, or only a directory",
                ));
            };
            let key = key.trim();
            match key.to_lowercase().as_str() {
                "type" => kind = value.to_owned(),
                "dest" => dest = Some(value.to_owned()),
                "tar" => as_tar = value != "false",
                _ => options.set(key, value).map_err(|reason| {
                    invalid(
                        reason.to_string(),
                        "it takes type, dest, tar, name, push, compression and others of docker build",
                    )
                })?,
            }
        }
        let target = || match dest.as_deref() {
            None | Some("-") => Target::Stdout,
            Some(path) => Target::File(PathBuf::from(path)),
        };
        let dir = || match dest.as_deref() {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(invalid(format!("dest is required for type={kind}"), "add dest=DIRECTORY")),
        };
        options.is_docker = kind == "docker";
        options.push |= kind == "registry";
        let kind = match kind.as_str() {
            "image" | "registry" => Kind::Image,
            "docker" if dest.is_none() => Kind::Image,
            "cacheonly" => Kind::Cache,
            "local" => Kind::Dir(dir()?),
            "tar" => Kind::Tar(target()),
            "docker" => Kind::Archive(target()),
            "oci" if as_tar => Kind::Archive(target()),
            "oci" => Kind::Layout(dir()?),
            "" => return Err(invalid("type is required".to_owned(), "write type=TYPE,dest=PATH")),
            other => {
                return Err(CliError::failed(format!(
                    "failed to build: failed to solve: exporter {other:?} could not be found"
                ))
                .hint("one of image, registry, local, tar, oci, docker, cacheonly"));
            }
        };
        let output = Output { kind, options };
        output.pack_options()?;
        Ok(output)
    }

    /// True when the output consists of files, and has no image.
    pub(super) fn is_tree(&self) -> bool {
        matches!(self.kind, Kind::Dir(_) | Kind::Tar(_))
    }

    /// True when the output needs no image without a name in the store.
    pub(super) fn needs_no_image(&self) -> bool {
        self.is_tree() || self.kind == Kind::Cache
    }

    /// True when the output is created from an image that need not stay in the store.
    pub(super) fn keeps_no_image(&self) -> bool {
        self.needs_no_image() || matches!(self.kind, Kind::Archive(_) | Kind::Layout(_))
    }

    /// Report of the written files and their path. `None` for outputs of images.
    fn report(&self) -> Option<String> {
        match &self.kind {
            Kind::Dir(directory) => Some(format!("files written to {}", directory.display())),
            Kind::Tar(Target::File(path)) => Some(format!("tar of the files written to {}", path.display())),
            _ => None,
        }
    }

    /// Refuses impossible outputs before the build starts.
    pub(super) fn check(&self, platforms: usize, tags: &[Reference]) -> Result<(), CliError> {
        let to_terminal = matches!(self.kind, Kind::Tar(Target::Stdout) | Kind::Archive(Target::Stdout))
            && std::io::stdout().is_terminal();
        if to_terminal {
            return Err(CliError::failed("dest file is required for a tar: refusing to write to a terminal")
                .hint("add dest=FILE, or redirect the output"));
        }
        if self.options.is_docker && platforms > 1 {
            return Err(CliError::failed(
                "docker exporter does not currently support exporting manifest lists",
            )
            .hint("use type=oci, or build for one platform"));
        }
        if self.options.push && tags.is_empty() && self.options.names.is_empty() {
            return Err(CliError::failed("failed to build: tag is needed when pushing to registry")
                .hint("add -t NAME, or name=NAME to the output"));
        }
        Ok(())
    }

    fn pack_options(&self) -> Result<PackOptions, CliError> {
        let options = &self.options;
        let invalid = |value: &str| {
            CliError::failed(format!("failed to build: unsupported layer compression type {value}"))
                .hint("one of uncompressed, gzip, zstd")
        };
        // Uncompressed archives are written faster; compressed uploads are smaller.
        let default = if options.push { "gzip" } else { "uncompressed" };
        let compression = match options.compression.as_deref().unwrap_or(default) {
            "uncompressed" => Compression::None,
            "gzip" => {
                let level = options.level.and_then(|level| u32::try_from(level).ok());
                Compression::Gzip(level.unwrap_or(GZIP_LEVEL).min(9))
            }
            "zstd" => Compression::Zstd(options.level.unwrap_or(ZSTD_LEVEL).clamp(1, 22)),
            "estargz" => {
                return Err(CliError::failed("compression=estargz is not supported").hint("use gzip or zstd"));
            }
            other => return Err(invalid(other)),
        };
        Ok(PackOptions {
            compression,
            force: options.force,
            docker_types: options.docker_types.unwrap_or_default(),
            annotations: BTreeMap::new(),
        })
    }

    /// Writes the output to its destination.
    pub(super) fn write(&self, made: &Made<'_>) -> Result<(), CliError> {
        match &self.kind {
            Kind::Image if self.options.push => self.push_all(made)?,
            Kind::Image | Kind::Cache => {}
            Kind::Dir(dir) => self.write_dirs(made, dir)?,
            Kind::Tar(Target::Stdout) => self.write_tar(made, std::io::stdout().lock(), "standard output")?,
            Kind::Tar(Target::File(path)) => {
                let file = File::create(path).map_err(|error| failed(path, &error))?;
                self.write_tar(made, file, &format!("`{}`", path.display()))?;
            }
            Kind::Archive(Target::Stdout) => self.write_archive(made, &mut std::io::stdout().lock())?,
            Kind::Archive(Target::File(path)) => {
                let (options, names) = (self.pack_options()?, self.names(made)?);
                save::write_file(path, |file| made.delivery().write_archive(&names, &options, file))?;
            }
            Kind::Layout(dir) => {
                made.delivery().write_layout(&self.names(made)?, &self.pack_options()?, dir)?;
            }
        }
        if let Some(report) = self.report().filter(|_| !made.is_quiet) {
            ui::tell_line(&report);
        }
        Ok(())
    }

    fn write_archive(&self, made: &Made<'_>, output: &mut dyn Write) -> Result<(), CliError> {
        let (options, names) = (self.pack_options()?, self.names(made)?);
        let mut output = Destination::new(output, "standard output");
        let written = made.delivery().write_archive(&names, &options, &mut output);
        output.check(written)
    }

    /// All names of the result, including those of the output.
    fn names(&self, made: &Made<'_>) -> Result<Vec<Reference>, CliError> {
        let more = self.options.names.iter().map(|name| {
            let reference = name.parse::<Reference>();
            let failed = |error| CliError::failed(format!("invalid name {name:?}: {error}"));
            Ok(reference.map_err(failed)?.or_latest())
        });
        Ok(made.delivery().names(more.collect::<Result<Vec<_>, CliError>>()?))
    }

    fn write_dirs(&self, made: &Made<'_>, dir: &Path) -> Result<(), CliError> {
        let images = made.outcome.last();
        let splits = self.options.splits.unwrap_or(images.len() > 1);
        if dir.exists() && !dir.is_dir() {
            let message = format!("cannot write files to `{}`: it is not a directory", dir.display());
            return Err(CliError::failed(message)
                .hint("name a directory, or write an archive: -o type=tar,dest=FILE"));
        }
        if self.options.deletes && dir.is_dir() {
            empty(dir)?;
        }
        for image in images {
            let place = match splits {
                true => dir.join(image.platform.to_string().replace('/', "_")),
                false => dir.to_owned(),
            };
            output::to_dir(made.store, &image.diff_ids, &place, made.epoch)?;
        }
        Ok(())
    }

    fn write_tar(&self, made: &Made<'_>, target: impl Write, name: &str) -> Result<(), CliError> {
        let images = made.outcome.last();
        let splits = self.options.splits.unwrap_or(images.len() > 1);
        let trees: Vec<(String, &[DiffId])> = images
            .iter()
            .map(|image| {
                let dir = if splits { image.platform.to_string().replace('/', "_") } else { String::new() };
                (dir, image.diff_ids.as_slice())
            })
            .collect();
        let mut target = Destination::new(target, name);
        let written = output::to_tar(made.store, &trees, made.epoch, BufWriter::new(&mut target));
        let written = written.map(|mut buffer| buffer.flush());
        // The target reports a failed flush.
        target.check(written.map(|_| ()))
    }

    /// Pushes the images under each of their names.
    fn push_all(&self, made: &Made<'_>) -> Result<(), CliError> {
        let delivery = made.delivery();
        let packed = delivery.pack(&self.pack_options()?)?;
        *made.pushed.borrow_mut() = Some(packed.descriptor.clone());
        let is_quiet = made.is_quiet;
        let tell = |part: BlobProgress| {
            if part.current == part.total && !is_quiet {
                ui::tell_line(&format!("pushed {} {}", part.digest, crate::text::size(part.total)));
            }
        };
        for reference in self.names(made)? {
            let target = (&reference, self.options.by_digest);
            let digest = delivery.push(&packed, target, &RegistryPush(made), &tell)?;
            if !is_quiet {
                ui::tell_line(&format!("pushed {} {digest}", reference.clone().or_latest()));
            }
        }
        Ok(())
    }
}

/// Pushes to registries through the build's connections.
struct RegistryPush<'a>(&'a Made<'a>);

impl Push for RegistryPush<'_> {
    fn push(
        &self,
        upload: &Upload<'_>,
        progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<Digest, ImageError> {
        let Upload { reference, images, index, by_digest } = *upload;
        let request = PushRequest { reference, images, index, by_digest };
        let hear = |event: PushEvent| {
            if let PushEvent::Uploading(digest, current, total) = event {
                progress(BlobProgress { digest, current, total });
            }
        };
        Ok(self.0.images.registry()?.push(self.0.store, &request, &hear)?)
    }
}

impl OutputOptions {
    /// Sets an option from `key=value`.
    fn set(&mut self, key: &str, value: &str) -> Result<(), OptionMistake> {
        let truth = || match value.to_lowercase().as_str() {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(OptionMistake::Truth { key: key.to_owned(), value: other.to_owned() }),
        };
        if let Some(annotation) = key.strip_prefix("annotation") {
            self.annotations.push(annotation_text(annotation, value).ok_or_else(|| unsupported(key))?);
            return Ok(());
        }
        match key.to_lowercase().as_str() {
            "name" => self.names.extend(value.split(',').map(str::to_owned)),
            "push" => self.push = truth()?,
            "push-by-digest" => self.by_digest = truth()?,
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level = value.parse().map_err(|_| OptionMistake::Level(value.to_owned()))?;
                self.level = Some(level);
            }
            "force-compression" => self.force = truth()?,
            "oci-mediatypes" => self.docker_types = Some(!truth()?),
            "rewrite-timestamp" => self.rewrites_times = truth()?,
            "mode" if matches!(value, "copy" | "delete") => self.deletes = value == "delete",
            "platform-split" => self.splits = Some(truth()?),
            // The store unpacks images in any case.
            "unpack" | "store" if truth()? => {}
            "name-canonical" | "prefer-nondist-layers" | "oci-artifact" if !truth()? => {}
            _ => return Err(unsupported(key)),
        }
        Ok(())
    }
}

fn unsupported(key: &str) -> OptionMistake {
    OptionMistake::Unsupported(key.to_owned())
}

/// Mistake in an option of an output.
#[derive(Debug, thiserror::Error)]
enum OptionMistake {
    #[error("{key} is true or false, not {value:?}")]
    Truth { key: String, value: String },
    #[error("{0:?} is no compression level")]
    Level(String),
    #[error("{0} is not supported")]
    Unsupported(String),
}

/// Converts `annotation-index[linux/amd64].key` to `index[linux/amd64]:key=value`. `None` without a key.
fn annotation_text(rest: &str, value: &str) -> Option<String> {
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let end = match rest.find(']') {
        Some(end) => end + 1,
        None => rest.find('.')?,
    };
    let (kind, key) = rest.split_at(end);
    let kind = if kind.is_empty() { "manifest" } else { kind };
    let kind = if kind.starts_with('[') { format!("manifest{kind}") } else { kind.to_owned() };
    Some(format!("{kind}:{}={value}", key.strip_prefix('.')?))
}

/// Splits at commas; quotes around a field keep its commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            other => fields.last_mut().expect("there is one from the start").push(other),
        }
    }
    fields
}

/// Result of a build, for its outputs.
pub(in crate::commands) struct Made<'a> {
    pub(in crate::commands) store: &'a Store,
    pub(super) images: &'a ImageFinder<'a>,
    pub(in crate::commands) outcome: &'a Outcome,
    pub(super) annotations: &'a Annotations,
    /// Time for files, in seconds since 1970; `None` to keep theirs.
    pub(in crate::commands) epoch: Option<i64>,
    pub(super) is_quiet: bool,
    /// Descriptor that a registry received; `None` before a push.
    pub(super) pushed: RefCell<Option<Descriptor>>,
}

impl Made<'_> {
    fn delivery(&self) -> Delivery<'_> {
        Delivery { store: self.store, outcome: self.outcome, annotations: self.annotations }
    }

    /// Descriptor of the result: as pushed to a registry, or else as in the store.
    pub(super) fn descriptor(&self) -> Descriptor {
        let pushed = self.pushed.borrow().clone();
        pushed.unwrap_or_else(|| self.delivery().descriptor())
    }

    /// Digest of the index, or the image id.
    pub(super) fn id(&self) -> String {
        self.delivery().id()
    }
}

/// Removes the entries of a directory.
fn empty(dir: &Path) -> Result<(), CliError> {
    for entry in std::fs::read_dir(dir).map_err(|error| failed(dir, &error))? {
        let path = entry.map_err(|error| failed(dir, &error))?.path();
        kiln_image::sys::remove_path(&path).map_err(|error| CliError::failed(error.to_string()))?;
    }
    Ok(())
}

/// Removes the file with an image's id: after a failed build an old id must not look like its result.
pub(super) fn remove_id(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

/// Writes an image's id to a file.
pub(super) fn write_id(path: &Path, id: &str) -> Result<(), CliError> {
    std::fs::write(path, id).map_err(|error| failed(path, &error))
}

pub(super) fn failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot write `{}`: {error}", path.display()))
        .hint("check that the directory exists and can be written to")
}

impl From<DeliveryError> for CliError {
    fn from(error: DeliveryError) -> CliError {
        match error {
            DeliveryError::Store(error) => error.into(),
            DeliveryError::Pack(error) => error.into(),
            DeliveryError::Push(error) => match error.downcast::<RegistryError>() {
                Ok(error) => (*error).into(),
                Err(error) => CliError::failed(chain(error.as_ref())),
            },
        }
    }
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
    fn outputs_are_read_as_docker_reads_them() {
        let file = |path: &str| Target::File(PathBuf::from(path));
        for (text, expected) in [
            ("out", Kind::Dir("out".into())),
            ("-", Kind::Tar(Target::Stdout)),
            ("type=local,dest=a", Kind::Dir("a".into())),
            ("type=tar", Kind::Tar(Target::Stdout)),
            ("type=tar,dest=a.tar", Kind::Tar(file("a.tar"))),
            ("type=oci,dest=a.tar", Kind::Archive(file("a.tar"))),
            ("type=oci,dest=a,tar=false", Kind::Layout("a".into())),
            ("type=docker", Kind::Image),
            ("type=docker,dest=a.tar", Kind::Archive(file("a.tar"))),
            ("type=registry,name=a/b", Kind::Image),
            ("type=cacheonly", Kind::Cache),
        ] {
            assert_eq!(Output::parse(text).unwrap().kind, expected, "{text}");
        }
        for wrong in [
            "type=local",
            "type=nosuch",
            "dest=x",
            "type=tar,compression=lzma",
            "type=image,nosuch=1",
            "type=image,push=maybe",
            "type=oci,dest=x,compression=estargz",
        ] {
            assert!(Output::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options() {
        let options = |text: &str| Output::parse(text).unwrap().options;
        assert_eq!(options("type=image,\"name=a,b\",push=true").names, ["a", "b"]);
        assert!(options("type=registry,name=a").push);
        assert_eq!(options("type=image,oci-mediatypes=false").docker_types, Some(true));
        assert_eq!(options("type=image,annotation.a=b").annotations, ["manifest:a=b"]);
        assert_eq!(options("type=image,annotation-index.a.b=c").annotations, ["index:a.b=c"]);
        assert_eq!(
            options("type=image,annotation-manifest[linux/amd64].a=c").annotations,
            ["manifest[linux/amd64]:a=c"]
        );
    }
}
