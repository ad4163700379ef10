//! The front half of a build: from the text of a Dockerfile to the input of a plan. No step runs here.
//!
//! [`crate::build`] and [`crate::check`] both use it.

pub(crate) mod epoch;
mod options;

pub use options::{BuildOptions, Squash, Target};

use crate::context::Context;
use crate::mistake::Mistake;
use crate::plan::PlanOptions;
use crate::stage::{self, StageOptions, Stages};
use kiln_image::platform::Platform;
use kiln_parser::Parse;

/// Target platforms, at least one: the host's when the options name none.
pub(crate) fn platforms(options: &BuildOptions) -> Vec<Platform> {
    if options.platforms.is_empty() { vec![Platform::host()] } else { options.platforms.clone() }
}

/// Stages of a file for a platform. With `all`, stages that no target needs count as well.
pub(crate) fn stages(
    context: &Context,
    options: &BuildOptions,
    parsed: &Parse,
    platform: &Platform,
    all: bool,
) -> Result<Stages, Mistake> {
    let targets: Vec<String> = options.targets.iter().map(|target| target.stage.clone()).collect();
    let options = StageOptions {
        build_args: &options.build_args,
        targets: &targets,
        platform,
        contexts: &context.named,
        all,
    };
    stage::stages(&parsed.file, &options)
}

/// Options that a plan depends on.
pub(crate) fn plan_options<'a>(
    context: &'a Context,
    options: &'a BuildOptions,
    platform: &'a Platform,
    epoch: Option<i64>,
) -> PlanOptions<'a> {
    PlanOptions {
        build_args: &options.build_args,
        platform,
        platform_given: !options.platforms.is_empty(),
        no_cache: options.no_cache,
        labels: &options.labels,
        name: &context.name,
        looks_only: false,
        no_cache_stages: &options.no_cache_stages,
        network: options.network,
        entitlements: &options.entitlements,
        hosts: &options.hosts,
        limits: &options.limits,
        volumes: &options.volumes,
        epoch,
        names_platform: options.platforms.len() > 1,
    }
}
