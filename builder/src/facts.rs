//! Facts about a build that lints need besides the syntax tree.

use crate::context::Context;
use crate::front::{self, BuildOptions};
use crate::images::BaseImages;
use crate::stage::{Base, Stages};
use kiln_parser::lint::{BaseFacts, Facts};

/// Facts of the context and the options, before any stage is resolved.
pub(crate) fn file_facts(context: &Context, options: &BuildOptions) -> Facts {
    Facts { ignore: Some(context.ignore.clone()), build_args: options.build_args.clone(), ..Facts::default() }
}

/// Facts of the stages of a plan and the images that they start from.
pub(crate) fn facts(
    context: &Context,
    options: &BuildOptions,
    stages: &Stages,
    images: &BaseImages,
) -> Facts {
    let target = front::platforms(options).swap_remove(0);
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
