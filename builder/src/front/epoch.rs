//! `SOURCE_DATE_EPOCH`: the time of all files, layers and images that a build creates.

use super::BuildOptions;
use crate::context::Context;
use crate::graph::Operation;
use crate::images::ImageError;
use crate::mistake::Mistake;
use crate::plan;
use crate::remote::{Answer, Remote, newest_in_archive};
use crate::stage::Stages;
use kiln_image::sys::Named;
use std::fs::File;
use std::path::Path;

/// Name of the build argument. A Dockerfile may set it for all stages as well.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// The epoch as far as the options and the file determine it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Epoch {
    /// Seconds since 1970; `None` without an epoch.
    Known(Option<i64>),
    /// The time of a remote file or repository: see [`fetch`].
    Of(Operation),
}

/// Reads `SOURCE_DATE_EPOCH`: a number of seconds, `context` for the time of the context's commit or download, the name
/// of a named context for its time, or the name of a stage that is a single remote ADD.
///
/// # Errors
/// Fails for all other values.
pub(crate) fn read(context: &Context, options: &BuildOptions, stages: &Stages) -> Result<Epoch, Mistake> {
    let argument = options.build_args.get(NAME).map(String::as_str);
    let text = match argument.or_else(|| stages.globals.value(NAME)) {
        None | Some("") => return Ok(Epoch::Known(None)),
        Some("context") => return Ok(Epoch::Known(context.time)),
        Some(text) => text,
    };
    if let Some(seconds) = text.parse::<i64>().ok().filter(|seconds| *seconds >= 0) {
        return Ok(Epoch::Known(Some(seconds)));
    }
    if let Some(named) = context.named.iter().find(|named| named.name.eq_ignore_ascii_case(text)) {
        return Ok(Epoch::Known(named.time));
    }
    let is_meant = |name: &String| name.eq_ignore_ascii_case(text);
    let Some(stage) = stages.list.iter().find(|stage| stage.name.as_ref().is_some_and(is_meant)) else {
        return Err(Mistake::option(
            format!(
                "invalid {NAME}: {text:?} is no number of seconds, and no context or stage has that name"
            ),
            "give seconds since 1970, `context` for the time of a remote context, or the name of a context or stage",
        ));
    };
    match plan::only_remote(stage) {
        Some(operation) => Ok(Epoch::Of(operation)),
        None => Err(Mistake::option(
            format!("invalid {NAME}: the stage {text} has no time of its own"),
            "name a stage that is `FROM scratch` and one ADD of a URL or a git repository",
        )),
    }
}

/// Time of a remote file or repository in seconds since 1970, which is fetched into the empty directory `dir`. `None`
/// when the server reports no time.
///
/// # Errors
/// Fails when the file or repository cannot be fetched.
pub(crate) fn fetch(operation: &Operation, remote: &dyn Remote, dir: &Path) -> Result<Option<i64>, Mistake> {
    let (address, time) = match operation {
        Operation::Download(download) => (&download.url, download_time(&download.url, remote, dir)),
        Operation::Checkout(checkout) => {
            let commit = remote.commit(checkout);
            (&checkout.remote, commit.and_then(|commit| remote.check_out(checkout, &commit, dir).map(Some)))
        }
        _ => return Ok(None),
    };
    time.map_err(|error| {
        let message = format!("cannot find out the time of {address} for {NAME}: {error}");
        Mistake::option(message, "check the address and the network")
    })
}

fn download_time(url: &str, remote: &dyn Remote, dir: &Path) -> Result<Option<i64>, ImageError> {
    let path = dir.join("file");
    let mut file = File::create_new(&path).call("open", &path)?;
    let Answer::File(version) = remote.download(url, None, &mut file)? else { return Ok(None) };
    let file = File::open(&path).call("open", &path)?;
    Ok(Some(version.time()).filter(|time| *time > 0).or_else(|| newest_in_archive(file)))
}
