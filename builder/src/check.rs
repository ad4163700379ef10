//! Looking at a Dockerfile without building it: what is wrong, and what could be better.

use crate::build::{self, BuildOptions, plan_options};
use crate::context::Context;
use crate::error::{BuildError, ImageError};
use crate::plan::{self, BaseImage, BaseImages, Plan, PlanOptions};
use crate::resolve::{Bases, resolve};
use crate::stage::{Base, Stages};
use kiln_image::config::ImageConfig;
use kiln_image::digest::Digest;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::lint::{self, BaseFacts, Choice, Facts, Report};
use kiln_parser::parse;

/// Finds the configs of images: nothing is brought into any store.
pub trait Configs: Sync {
    /// The config of an image and the digest that its registry knows it by.
    fn config(
        &self,
        name: &Reference,
        platform: &Platform,
    ) -> Result<(ImageConfig, Option<Digest>), ImageError>;
}

/// What a look at a Dockerfile gave.
#[derive(Debug)]
pub struct Checked {
    /// What could be better.
    pub report: Report,
    /// What would make a build fail before its first step.
    pub error: Option<BuildError>,
}

/// Looks at all stages, or at those that the target needs.
pub fn check(context: &Context, options: &BuildOptions, configs: &dyn Configs) -> Checked {
    let parsed = parse(&context.source);
    let syntax: Vec<_> = parsed.errors().cloned().collect();
    let (facts, mut error) = match syntax.is_empty() {
        true => look(context, options, configs, &parsed),
        false => (file_facts(context, options), Some(BuildError::Syntax(syntax))),
    };
    let report = lint::lint(&parsed, &context.source, &facts, &Choice::default());
    let violations = report.violations();
    if error.is_none() && !violations.is_empty() {
        error = Some(BuildError::Violations(violations));
    }
    Checked { report, error }
}

struct Looker<'a>(&'a dyn Configs);

impl Bases for Looker<'_> {
    fn base(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Result<BaseImage, ImageError>, BuildError> {
        let image = self.0.config(reference, platform).map(|(config, digest)| {
            let reference = match digest {
                Some(digest) => reference.clone().with_digest(digest),
                None => reference.clone(),
            };
            BaseImage { reference: reference.to_string(), config, layers: Vec::new() }
        });
        Ok(image)
    }
}

fn look(
    context: &Context,
    options: &BuildOptions,
    configs: &dyn Configs,
    parsed: &kiln_parser::Parse,
) -> (Facts, Option<BuildError>) {
    let platform = options.platforms.first().cloned().unwrap_or_else(Platform::host);
    let mut stages = match build::look(context, options, parsed, &platform, options.targets.is_empty()) {
        Ok(stages) => stages,
        Err(error) => return (file_facts(context, options), Some(error)),
    };
    match resolve(&mut stages, &platform, &Looker(configs)) {
        Ok(images) => {
            let planned =
                plan_options(context, options, &platform, &stages, &|_| Ok(None)).and_then(|plan_options| {
                    let plan_options = PlanOptions { looks_only: true, ..plan_options };
                    plan::plan(&mut Plan::default(), &stages, &images, &plan_options)
                });
            (facts(context, options, &stages, &images), planned.err())
        }
        Err(error) => (file_facts(context, options), Some(error)),
    }
}

/// What the context and the options tell, before any stage is looked at.
pub(crate) fn file_facts(context: &Context, options: &BuildOptions) -> Facts {
    Facts { ignore: Some(context.ignore.clone()), build_args: options.build_args.clone(), ..Facts::default() }
}

/// What lints need to know of a build.
pub(crate) fn facts(
    context: &Context,
    options: &BuildOptions,
    stages: &Stages,
    images: &BaseImages,
) -> Facts {
    let target = options.platforms.first().cloned().unwrap_or_else(Platform::host);
    let reachable = stages.reachable();
    let of_image = |index: &usize| {
        let stage = &stages.list[*index];
        let Base::Image(name) = &stage.base else { return None };
        let key = (name.clone(), stage.platform_or(&target).clone());
        let config = &images.get(&key)?.config;
        let variables = config.config.env.iter().filter_map(|entry| entry.split_once('='));
        let expected = stage.platform_or(&target);
        let found = config.platform();
        let differs = (&found.os, &found.architecture) != (&expected.os, &expected.architecture);
        let facts = BaseFacts {
            environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            platform: differs.then(|| (found.to_string(), expected.to_string())),
            has_shell: !config.config.shell.is_empty(),
        };
        Some((*index, facts))
    };
    Facts {
        bases: reachable.iter().filter_map(of_image).collect(),
        built: Some(reachable.into_iter().collect()),
        ..file_facts(context, options)
    }
}
