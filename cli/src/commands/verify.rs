//! `kiln verify`: does building again give the same image?

use super::build::flags::Build;
use super::build::{Workshop, carry_out, image_ids, remove_unused};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::progress::Style;
use crate::ui;
use clap::Parser;
use kiln_builder::{BuildOptions, recipe};
use kiln_image::config::ImageConfig;
use kiln_image::digest::ImageId;
use kiln_image::layer::first_difference;
use kiln_image::store::{LayerId, Store, StoreError};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

/// Build an image again without the cache, and name the first step and file that differ.
///
/// When they differ, it is built a third time: a step that differs again cannot be reproduced, and one that does not had
/// other inputs when the image was built.
///
/// Times of files and of the image are compared only when the build sets them (--source-date-epoch,
/// --rewrite-timestamp).
#[derive(Debug, Parser)]
struct Verify {
    /// Show progress in this style: auto, plain, tty or quiet
    #[arg(long, value_name = "STYLE", default_value = "quiet")]
    progress: String,
    /// Verify this image, which this store built, or build this directory twice (write ./NAME when an image has that name)
    #[arg(value_name = "IMAGE | PATH")]
    subject: String,
    /// Build the directory with these flags of `kiln build`
    #[arg(value_name = "FLAGS", allow_hyphen_values = true, trailing_var_arg = true)]
    flags: Vec<OsString>,
}

/// The subject of the command.
enum Subject {
    /// An image of the store.
    Image(ImageId),
    /// A directory that is built twice.
    Directory,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Verify as clap::CommandFactory>::command()
}

/// Builds and compares. The exit code is 1 when the images differ.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let verify: Verify = arguments::parse("verify", arguments)?;
    let style = Style::choose(&verify.progress)?;
    let workshop = Workshop::open(globals)?;
    let store = &workshop.session.store;
    let subject = verify.subject(store)?;
    let build = verify.build(store, &subject)?;
    let trials = Trials { workshop: &workshop, build: &build, style, made: RefCell::default() };
    let answer = verify.answer(&subject, &trials);
    remove_unused(trials.store(), &trials.made.borrow())?;
    let (text, code) = answer?;
    ui::line(&text);
    Ok(code)
}

impl Verify {
    /// Resolves the name: an image takes precedence over a directory.
    fn subject(&self, store: &Store) -> Result<Subject, CliError> {
        let name = self.subject.as_str();
        let is_directory = Path::new(name).is_dir();
        let is_path = name.starts_with(['.', '/']);
        if is_path && is_directory {
            return Ok(Subject::Directory);
        }
        match store.resolve(name) {
            Ok(image) => Ok(Subject::Image(image.id)),
            Err(StoreError::NoSuchImage(_)) if is_directory => Ok(Subject::Directory),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the build of the subject, without a cache. Changes into the directory in which the image was built.
    fn build(&self, store: &Store, subject: &Subject) -> Result<Build, CliError> {
        let words = match subject {
            Subject::Directory => self.flags.iter().cloned().chain([OsString::from(&self.subject)]).collect(),
            Subject::Image(image) => {
                let recipe = recipe::find(store, image).ok_or_else(|| {
                    CliError::failed(format!(
                        "{}: this store does not know how the image was built",
                        self.subject
                    ))
                    .hint("only images that were built with this store can be verified; or name a directory")
                })?;
                #[expect(clippy::disallowed_methods, reason = "threads that run use no relative paths")]
                std::env::set_current_dir(&recipe.dir).map_err(|error| {
                    CliError::failed(format!("the image was built in `{}`: {error}", recipe.dir.display()))
                })?;
                recipe.arguments(|name| std::env::var_os(name).is_some()).map_err(|withheld| {
                    let hint =
                        format!("set {0} to it in the environment: {0}=... kiln verify ...", withheld.name);
                    CliError::failed(withheld.to_string()).hint(hint)
                })?
            }
        };
        let build = arguments::parse::<Build>("build", words)?.anew();
        if build.reads_stdin() {
            return Err(CliError::failed("the image was built from standard input, which is not kept")
                .hint("only what was built from files, the web or git can be built again"));
        }
        Ok(build)
    }

    /// Text of the answer, and the exit code.
    fn answer(&self, subject: &Subject, trials: &Trials<'_>) -> Result<(String, u8), CliError> {
        let (what, first) = match subject {
            Subject::Image(id) => (format!("image {} ({id})", self.subject), id.clone()),
            Subject::Directory => (format!("directory {}", self.subject), trials.build()?),
        };
        let second = trials.build()?;
        let Some(found) = trials.difference(&first, &second)? else {
            let times = if matches!(subject, Subject::Directory) { "twice" } else { "again" };
            return Ok((format!("{what}: built {times} with the same result"), 0));
        };
        let repeated = match subject {
            Subject::Directory => Some(found.clone()),
            Subject::Image(_) => trials.difference(&second, &trials.build()?)?,
        };
        let text = match repeated {
            Some(repeated) if repeated.layer <= found.layer => {
                format!("built again, it is another image each time: {}", repeated.text)
            }
            other => {
                let also = other.map(|other| format!("; besides, each time {}", other.text));
                format!(
                    "its inputs have changed since it was built (Dockerfile, context, base image, or what it fetches): {}{}",
                    found.text,
                    also.unwrap_or_default()
                )
            }
        };
        Ok((format!("{what}: {text}"), 1))
    }
}

/// Builds for the comparison; their images are removed at the end.
struct Trials<'a> {
    workshop: &'a Workshop,
    build: &'a Build,
    style: Style,
    /// Images that these builds added to the store.
    made: RefCell<BTreeSet<ImageId>>,
}

impl Trials<'_> {
    fn store(&self) -> &Store {
        &self.workshop.session.store
    }

    fn build(&self) -> Result<ImageId, CliError> {
        let before = image_ids(self.store())?;
        let (options, _) = self.build.read()?;
        carry_out(self.workshop, self.build, &options, self.style, |made| {
            let images = made.outcome.images.iter().map(|image| image.id.clone());
            self.made.borrow_mut().extend(images.filter(|id| !before.contains(id)));
            Ok(made.outcome.main().id.clone())
        })
    }

    fn difference(&self, first: &ImageId, second: &ImageId) -> Result<Option<Difference>, CliError> {
        let (options, _) = self.build.read()?;
        difference(self.store(), first, second, &options)
    }
}

/// First difference between two images.
#[derive(Clone)]
struct Difference {
    /// Index of the layer; the number of layers for the config.
    layer: usize,
    text: String,
}

/// Finds the first difference between two images: a step and a file, or the config. `None` when they are equal.
fn difference(
    store: &Store,
    first: &ImageId,
    second: &ImageId,
    options: &BuildOptions,
) -> Result<Option<Difference>, CliError> {
    if first == second {
        return Ok(None);
    }
    let read = |id: &ImageId| store.read_image(store.resolve(&id.to_string())?);
    let (one, other) = (read(first)?.config, read(second)?.config);
    let times = options.rewrites_times && options.build_args.contains_key("SOURCE_DATE_EPOCH");
    let steps: Vec<&str> = one
        .history
        .iter()
        .filter(|entry| !entry.empty_layer)
        .map(|entry| entry.created_by.as_str())
        .collect();
    let layers = one.rootfs.diff_ids.iter().zip(&other.rootfs.diff_ids);
    for (number, (mine, others)) in layers.enumerate() {
        if mine == others {
            continue;
        }
        let dir = |config: &ImageConfig| -> Result<_, CliError> {
            let diff_ids = &config.rootfs.diff_ids;
            let layer = store.layer_of(&diff_ids[number], &diff_ids[..number])?;
            Ok(store.layer_dir(&LayerId::from(layer.id.as_str())))
        };
        let found = first_difference(&dir(&one)?, &dir(&other)?, times)
            .map_err(|error| CliError::failed(error.to_string()))?;
        if let Some(found) = found {
            let step = steps.get(number).copied().unwrap_or("a step of the base image");
            let text = format!("`{step}` made another `{}` ({})", found.path.display(), found.what);
            return Ok(Some(Difference { layer: number, text }));
        }
    }
    let layer = one.rootfs.diff_ids.len();
    if layer != other.rootfs.diff_ids.len() {
        return Ok(Some(Difference { layer, text: "it has another number of layers".to_owned() }));
    }
    Ok(settings_difference(one, other, times).map(|text| Difference { layer, text }))
}

/// Finds a difference between two configs. Unless `times` are compared, times and digests of layers are ignored.
fn settings_difference(one: ImageConfig, other: ImageConfig, times: bool) -> Option<String> {
    let plain = |mut config: ImageConfig| {
        if !times {
            config.created = None;
            config.history.iter_mut().for_each(|entry| entry.created = None);
            config.rootfs.diff_ids.clear();
        }
        serde_json::to_value(&config).unwrap_or_default()
    };
    let (one, other) = (plain(one), plain(other));
    let keys = one.as_object()?.keys().chain(other.as_object()?.keys());
    let key = keys.into_iter().find(|key| one[key.as_str()] != other[key.as_str()])?;
    Some(format!("its config has another `{key}`"))
}
