//! `SOURCE_DATE_EPOCH`: the time of all that a build makes.

use crate::build::{BuildOptions, Machine};
use crate::context::Context;
use crate::error::{BuildError, ImageError};
use crate::graph::Operation;
use crate::plan;
use crate::remote::{Answer, newest_in_archive};
use crate::stage::Stages;
use kiln_image::store::StoreError;
use kiln_image::sys::Named;
use std::fs::File;
use std::sync::OnceLock;

/// The build argument, which a Dockerfile may set for all stages, too.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// Finds out when a remote file or repository is from; `None` when its server does not say.
pub(crate) type Clock<'a> = &'a dyn Fn(&Operation) -> Result<Option<i64>, BuildError>;

/// The epoch in seconds since 1970: a number, `context` for the time of the context's commit or download, the name of a
/// context for its time, or that of a stage which is one remote ADD.
pub(crate) fn planned(
    context: &Context,
    options: &BuildOptions,
    stages: &Stages,
    clock: Clock<'_>,
) -> Result<Option<i64>, BuildError> {
    let given = options.build_args.get(NAME).map(String::as_str).or_else(|| stages.globals.value(NAME));
    let text = match given {
        None | Some("") => return Ok(None),
        Some("context") => return Ok(context.time),
        Some(text) => text,
    };
    if let Some(seconds) = text.parse::<i64>().ok().filter(|seconds| *seconds >= 0) {
        return Ok(Some(seconds));
    }
    if let Some(named) = context.named.iter().find(|named| named.name.eq_ignore_ascii_case(text)) {
        return Ok(named.time);
    }
    let is_meant = |name: &String| name.eq_ignore_ascii_case(text);
    let Some(stage) = stages.list.iter().find(|stage| stage.name.as_ref().is_some_and(is_meant)) else {
        return Err(BuildError::option(
            format!(
                "invalid {NAME}: {text:?} is no number of seconds, and no context or stage has that name"
            ),
            "give seconds since 1970, `context` for the time of a remote context, or the name of a context or stage",
        ));
    };
    match plan::only_remote(stage) {
        Some(operation) => clock(&operation),
        None => Err(BuildError::option(
            format!("invalid {NAME}: the stage {text} has no time of its own"),
            "name a stage that is `FROM scratch` and one ADD of a URL or a git repository",
        )),
    }
}

/// Asks servers for times, once in each build.
#[derive(Default)]
pub(crate) struct RemoteClock {
    known: OnceLock<Option<i64>>,
}

impl RemoteClock {
    /// When a remote file or repository is from.
    pub(crate) fn time(
        &self,
        operation: &Operation,
        machine: &Machine<'_>,
    ) -> Result<Option<i64>, BuildError> {
        if let Some(known) = self.known.get() {
            return Ok(*known);
        }
        let time = fetch_time(operation, machine)?;
        Ok(*self.known.get_or_init(|| time))
    }
}

fn fetch_time(operation: &Operation, machine: &Machine<'_>) -> Result<Option<i64>, BuildError> {
    let failed = |what: &str, source: ImageError| {
        BuildError::option(
            format!("cannot find out the time of {what} for {NAME}: {source}"),
            "check the address and the network",
        )
    };
    let dir = machine.store.scratch_dir()?;
    match operation {
        Operation::Download(download) => {
            let path = dir.path().join("file");
            let mut file = File::create_new(&path).call("open", &path).map_err(StoreError::from)?;
            let answer = machine.remote.download(&download.url, None, &mut file);
            let Answer::File(version) = answer.map_err(|error| failed(&download.url, error))? else {
                return Ok(None);
            };
            let file = File::open(&path).call("open", &path).map_err(StoreError::from)?;
            Ok(Some(version.time()).filter(|time| *time > 0).or_else(|| newest_in_archive(file)))
        }
        Operation::Checkout(checkout) => {
            let failed = |error| failed(&checkout.remote, error);
            let commit = machine.remote.commit(checkout).map_err(failed)?;
            machine.remote.check_out(checkout, &commit, dir.path()).map(Some).map_err(failed)
        }
        _ => Ok(None),
    }
}
