//! `kiln verify`: does building again give the same image?

use super::build::flags::Build;
use super::build::{Workshop, carry_out, recipe};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::progress::Style;
use crate::ui;
use clap::Parser;
use kiln_builder::BuildOptions;
use kiln_image::config::ImageConfig;
use kiln_image::digest::ImageId;
use kiln_image::layer::first_difference;
use kiln_image::store::{LayerId, Store};
use std::ffi::OsString;
use std::path::Path;

/// Build an image again, from nothing, and name the first step and file that come out otherwise.
///
/// Times of files and of the image count when the build has an epoch and rewrites them (--source-date-epoch,
/// --rewrite-timestamp).
#[derive(Debug, Parser)]
struct Verify {
    /// How progress is shown: auto, plain, tty or quiet
    #[arg(long, value_name = "STYLE", default_value = "quiet")]
    progress: String,
    /// An image that was built here, or a folder to build twice
    #[arg(value_name = "IMAGE | PATH")]
    subject: String,
    /// For a folder: more flags of `kiln build`
    #[arg(value_name = "FLAGS", allow_hyphen_values = true, trailing_var_arg = true)]
    flags: Vec<OsString>,
}

/// Compares; the answer is in the exit code, too.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let verify: Verify = arguments::parse("verify", arguments)?;
    let style = Style::choose(&verify.progress)?;
    let workshop = Workshop::open(globals)?;
    let store = &workshop.session.store;
    let is_folder = Path::new(&verify.subject).is_dir();
    let (first, words) = if is_folder {
        let words: Vec<OsString> =
            verify.flags.iter().cloned().chain([OsString::from(&verify.subject)]).collect();
        let build: Build = arguments::parse("build", words.clone())?;
        (build_once(&workshop, &build, style)?, words)
    } else {
        let image = store.resolve(&verify.subject)?.id;
        let recipe = recipe::find(store, &image).ok_or_else(|| {
            CliError::failed(format!("{}: nobody knows how this image was built", verify.subject))
                .hint("only images that were built with this store can be verified; or name a folder")
        })?;
        std::env::set_current_dir(&recipe.folder).map_err(|error| {
            CliError::failed(format!("the image was built in `{}`: {error}", recipe.folder.display()))
        })?;
        (image, recipe.arguments())
    };
    let build = arguments::parse::<Build>("build", words)?.anew();
    if build.reads_stdin() {
        return Err(CliError::failed("the image was built from standard input, which nobody has kept")
            .hint("only what was built from files, the web or git can be built again"));
    }
    let (options, _) = build.read()?;
    let second = build_once(&workshop, &build, style)?;
    match difference(store, &first, &second, &options)? {
        None => {
            ui::line(&format!("{first}: built again with the same result"));
            Ok(0)
        }
        Some(found) => {
            ui::line(&format!("{first}: built again, it is another image: {found}"));
            Ok(1)
        }
    }
}

fn build_once(workshop: &Workshop, build: &Build, style: Style) -> Result<ImageId, CliError> {
    let (options, _) = build.read()?;
    carry_out(workshop, build, &options, style, |made| Ok(made.outcome.main().id.clone()))
}

/// In what two images differ first: a step and a file, or the config.
fn difference(
    store: &Store,
    first: &ImageId,
    second: &ImageId,
    options: &BuildOptions,
) -> Result<Option<String>, CliError> {
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
        let folder = |config: &ImageConfig| -> Result<_, CliError> {
            let diff_ids = &config.rootfs.diff_ids;
            let layer = store.layer_of(&diff_ids[number], &diff_ids[..number])?;
            Ok(store.layer_folder(&LayerId::from(layer.id.as_str())))
        };
        let found = first_difference(&folder(&one)?, &folder(&other)?, times)
            .map_err(|error| CliError::failed(error.to_string()))?;
        if let Some(found) = found {
            let step = steps.get(number).copied().unwrap_or("a step of the base image");
            return Ok(Some(format!("`{step}` made another `{}` ({})", found.path.display(), found.what)));
        }
    }
    if one.rootfs.diff_ids.len() != other.rootfs.diff_ids.len() {
        return Ok(Some("it has another number of layers".to_owned()));
    }
    Ok(settings_difference(one, other, times))
}

/// Configs without what is different each time: times, and with these digests of layers.
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
