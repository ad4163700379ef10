//! Resolves the images that the stages of a file need, and adds their ONBUILD triggers to the stages.

use crate::event::{Event, Reporter};
use crate::images::{BaseImage, BaseImages, BlobProgress, Images};
use crate::mistake::{Mistake, StageNames};
use crate::stage::{Base, Stages};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::span::Span;
use kiln_parser::suggest;
use std::collections::BTreeMap;
use tracing::debug;

/// Images that are suggested for misspelt names.
const COMMON_IMAGES: [&str; 12] = [
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "node", "python", "rust", "scratch",
    "ubuntu", "nginx",
];

/// Finds the images that reachable stages need, and inserts their triggers before the stages' instructions.
///
/// # Errors
/// [`Mistake::Image`] for an image that cannot be found, [`Mistake::Meaning`] for a trigger that is not an instruction.
pub(crate) fn resolve(
    stages: &mut Stages,
    platform: &Platform,
    images: &dyn Images,
    reporter: &Reporter<'_>,
) -> Result<BaseImages, Mistake> {
    let mut found = BaseImages::new();
    let mut triggered = vec![false; stages.list.len()];
    // A trigger may copy from images and stages that no other instruction needs.
    loop {
        resolve_named(stages, platform, images, reporter, &mut found)?;
        let waiting: Vec<usize> = stages.reachable().into_iter().filter(|index| !triggered[*index]).collect();
        if waiting.is_empty() {
            return Ok(found);
        }
        for index in waiting {
            triggered[index] = true;
            let triggers = match &stages.list[index].base {
                Base::Scratch | Base::Context(_) => Vec::new(),
                Base::Image(name) => {
                    let platform = stages.list[index].platform_or(platform).clone();
                    found[&(name.clone(), platform)].config.config.on_build.clone()
                }
                Base::Stage(base) => stages.list[*base].own_triggers(),
            };
            stages.add_triggers(index, &triggers)?;
        }
    }
}

fn resolve_named(
    stages: &Stages,
    platform: &Platform,
    images: &dyn Images,
    reporter: &Reporter<'_>,
    found: &mut BaseImages,
) -> Result<(), Mistake> {
    let mut wanted: BTreeMap<(String, Platform), Span> = BTreeMap::new();
    for index in stages.reachable() {
        for (name, platform, span) in stages.list[index].images_needed(platform) {
            let key = (name.to_owned(), platform.clone());
            if !found.contains_key(&key) {
                wanted.entry(key).or_insert(span);
            }
        }
    }
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = wanted
            .into_iter()
            .map(|((name, platform), span)| {
                scope.spawn(move || {
                    let image = resolve_one(stages, &name, span, &platform, images, reporter);
                    (image, (name, platform))
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("resolving does not panic")).collect()
    });
    for (result, key) in results {
        found.insert(key, result?);
    }
    Ok(())
}

fn resolve_one(
    stages: &Stages,
    name: &str,
    span: Span,
    platform: &Platform,
    images: &dyn Images,
    reporter: &Reporter<'_>,
) -> Result<BaseImage, Mistake> {
    let reference = name.parse::<Reference>().map_err(|error| {
        Mistake::at("invalid-reference", span, format!("failed to parse stage name {name:?}: {error}"))
    })?;
    let reference = reference.or_latest();
    let row = reporter.start(format!("[internal] load metadata for {reference}"));
    let progress = |part: BlobProgress| {
        let BlobProgress { digest, current, total } = part;
        reporter.send(Event::Progress { row, part: digest.to_string(), current, total });
    };
    let result = images.resolve(&reference, platform, &progress);
    match &result {
        Ok(image) => debug!(%reference, %platform, layers = image.diff_ids().len(), "base image"),
        Err(error) => debug!(%reference, %platform, error = %error, "no base image"),
    }
    reporter.end(row, &result);
    result.map_err(|source| {
        let near_image = || {
            let near = suggest::nearest(name, COMMON_IMAGES)?;
            Some(format!("did you mean {near}?"))
        };
        let hint = later_stage(stages, name);
        let names = if hint.is_none() { stage_names(stages, name, span) } else { StageNames::default() };
        let hint = hint.or_else(|| if names.near.is_none() { near_image() } else { None });
        let stages = Box::new(names);
        let (reference, whole) = (name.to_owned(), reference.to_string());
        Mistake::Image { reference, whole, span, source, hints: hint.into_iter().collect(), stages }
    })
}

/// Hint for the name of a later stage, or of the stage that contains the name; `None` for other names.
fn later_stage(stages: &Stages, name: &str) -> Option<String> {
    let is_stage = |stage: &crate::stage::Stage| {
        let is_own_base = matches!(&stage.base, Base::Image(base) if base == name);
        !is_own_base && stage.name.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name))
    };
    stages.list.iter().any(is_stage).then(|| {
        format!(
            "the stage {name} stands further down: move it above this line, which sees earlier stages alone"
        )
    })
}

/// Earlier stages than the one at `span`, when `name` could be a stage's name: without registry, directory and tag.
fn stage_names(stages: &Stages, name: &str, span: Span) -> StageNames {
    if name.contains(['/', ':', '@', '.']) {
        return StageNames::default();
    }
    let begun = stages.list.iter().filter(|stage| stage.span.start <= span.start).count();
    let earlier = &stages.list[..begun.saturating_sub(1)];
    let all: Vec<String> = earlier.iter().filter_map(|stage| stage.name.clone()).collect();
    StageNames { near: suggest::nearest(name, all.iter().map(String::as_str)), all }
}
