//! Checks of a Dockerfile without a build: mistakes, findings of lints, and the plan of a build.

use crate::context::Context;
use crate::event::Reporter;
use crate::facts::{facts, file_facts};
use crate::front::epoch::{self, Epoch};
use crate::front::{self, BuildOptions};
use crate::images::Images;
use crate::mistake::Mistake;
use crate::plan::{self, Plan, PlanOptions};
use crate::resolve::resolve;
use kiln_parser::lint::{self, Choice, Facts, Report};
use kiln_parser::{Parse, parse};

/// Result of a check.
#[derive(Debug)]
pub struct Checked {
    /// Findings of lints in the file.
    pub report: Report,
    /// Mistake that would end a build before its first step; `None` when there is none.
    pub error: Option<Mistake>,
}

/// Checks the stages that the targets need, or all stages when the options name no target. Of `images` only the configs
/// are used.
pub fn check(context: &Context, options: &BuildOptions, images: &dyn Images) -> Checked {
    let parsed = parse(&context.source);
    let syntax: Vec<_> = parsed.errors().cloned().collect();
    let (facts, mut error) = match syntax.is_empty() {
        true => look(context, options, images, &parsed),
        false => (file_facts(context, options), Some(Mistake::Syntax(syntax))),
    };
    let report = lint::lint(&parsed, &context.source, &facts, &Choice::default());
    let violations = report.violations();
    if error.is_none() && !violations.is_empty() {
        error = Some(Mistake::Violations(violations));
    }
    Checked { report, error }
}

fn look(
    context: &Context,
    options: &BuildOptions,
    images: &dyn Images,
    parsed: &Parse,
) -> (Facts, Option<Mistake>) {
    let platform = front::platforms(options).swap_remove(0);
    let mut stages = match front::stages(context, options, parsed, &platform, options.targets.is_empty()) {
        Ok(stages) => stages,
        Err(error) => return (file_facts(context, options), Some(error)),
    };
    match resolve(&mut stages, &platform, images, &Reporter::new(&|_| {})) {
        Ok(images) => {
            let planned = epoch::read(context, options, &stages).and_then(|epoch| {
                let plan_options = front::plan_options(context, options, &platform, known(epoch));
                let plan_options = PlanOptions { looks_only: true, ..plan_options };
                plan::plan(&mut Plan::default(), &stages, &images, &plan_options)
            });
            (facts(context, options, &stages, &images), planned.err())
        }
        Err(error) => (file_facts(context, options), Some(error)),
    }
}

/// Plan of a build, of which no step runs. Of `images` only the configs are used, and nothing is fetched: a
/// `SOURCE_DATE_EPOCH` that names a remote file counts as none.
///
/// # Errors
/// Fails when the file or an option has a mistake, or an image cannot be resolved.
pub fn dry_plan(context: &Context, options: &BuildOptions, images: &dyn Images) -> Result<Plan, Mistake> {
    let parsed = parse(&context.source);
    let syntax: Vec<_> = parsed.errors().cloned().collect();
    if !syntax.is_empty() {
        return Err(Mistake::Syntax(syntax));
    }
    let mut planned = Plan::default();
    let platforms = front::platforms(options);
    for platform in &platforms {
        let mut stages = front::stages(context, options, &parsed, platform, options.all_stages)?;
        let images = resolve(&mut stages, platform, images, &Reporter::new(&|_| {}))?;
        let epoch = known(epoch::read(context, options, &stages)?);
        let plan_options = front::plan_options(context, options, platform, epoch);
        plan::plan(&mut planned, &stages, &images, &plan_options)?;
    }
    planned.group_by_target(platforms.len());
    Ok(planned)
}

/// Epoch in seconds since 1970; `None` when there is none or it has to be fetched.
fn known(epoch: Epoch) -> Option<i64> {
    match epoch {
        Epoch::Known(time) => time,
        Epoch::Of(_) => None,
    }
}
