//! Which images the stages of a file need, and the triggers that these bring.

use crate::error::{BuildError, ImageError};
use crate::plan::{BaseImage, BaseImages};
use crate::stage::{Base, Stages};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::span::Span;
use kiln_parser::suggest;
use std::collections::BTreeMap;

/// Names that people mistype.
const COMMON_IMAGES: [&str; 12] = [
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "node", "python", "rust", "scratch",
    "ubuntu", "nginx",
];

/// Finds out what images are, in whatever way. May be asked from several threads at once.
pub(crate) trait Bases: Sync {
    /// The image of that name; the inner failure is the image's, the outer one that of this host.
    fn base(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Result<BaseImage, ImageError>, BuildError>;
}

/// Finds all images that are needed, and puts the triggers that they hold into the stages.
pub(crate) fn resolve(
    stages: &mut Stages,
    platform: &Platform,
    bases: &dyn Bases,
) -> Result<BaseImages, BuildError> {
    let mut images = BaseImages::new();
    let mut triggered = vec![false; stages.list.len()];
    // A trigger may copy from images and stages that nothing else needs.
    loop {
        resolve_named(stages, platform, bases, &mut images)?;
        let waiting: Vec<usize> = stages.reachable().into_iter().filter(|index| !triggered[*index]).collect();
        if waiting.is_empty() {
            return Ok(images);
        }
        for index in waiting {
            triggered[index] = true;
            let triggers = match &stages.list[index].base {
                Base::Scratch | Base::Context(_) => Vec::new(),
                Base::Image(name) => {
                    let platform = stages.list[index].platform_or(platform).clone();
                    images[&(name.clone(), platform)].config.config.on_build.clone()
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
    bases: &dyn Bases,
    images: &mut BaseImages,
) -> Result<(), BuildError> {
    let mut wanted: BTreeMap<(String, Platform), Span> = BTreeMap::new();
    for index in stages.reachable() {
        let stage = &stages.list[index];
        for (name, span) in stage.images_needed() {
            let key = (name.to_owned(), stage.platform_or(platform).clone());
            if !images.contains_key(&key) {
                wanted.entry(key).or_insert(span);
            }
        }
    }
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = wanted
            .into_iter()
            .map(|((name, platform), span)| {
                scope.spawn(move || {
                    let image = resolve_one(stages, &name, span, &platform, bases);
                    (image, (name, platform))
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("resolving does not panic")).collect()
    });
    for (result, key) in results {
        images.insert(key, result?);
    }
    Ok(())
}

fn resolve_one(
    stages: &Stages,
    name: &str,
    span: Span,
    platform: &Platform,
    bases: &dyn Bases,
) -> Result<BaseImage, BuildError> {
    let reference = name.parse::<Reference>().map_err(|error| {
        BuildError::at("invalid-reference", span, format!("failed to parse stage name {name:?}: {error}"))
    })?;
    let reference = reference.or_latest();
    bases.base(&reference, platform)?.map_err(|source| {
        let names = stages.list.iter().filter_map(|stage| stage.name.as_deref()).chain(COMMON_IMAGES);
        let near = suggest::nearest(name, names).map(|near| format!("did you mean {near}?"));
        let is_stage = |stage: &crate::stage::Stage| {
            let is_own_base = matches!(&stage.base, Base::Image(base) if base == name);
            !is_own_base && stage.name.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name))
        };
        let later = stages.list.iter().any(is_stage).then(|| {
            format!("the stage {name} stands further down: move it above this line, which sees earlier stages alone")
        });
        let near = later.or(near);
        let (reference, whole) = (name.to_owned(), reference.to_string());
        BuildError::Image { reference, whole, span, source, hints: near.into_iter().collect() }
    })
}
