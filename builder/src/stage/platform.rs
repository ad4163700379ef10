//! Platforms of stages, and the variables that they define.

use super::{StageOptions, expand_at};
use crate::mistake::Mistake;
use crate::variables::Variables;
use kiln_image::platform::Platform;
use kiln_parser::Text;
use kiln_parser::ast::{Dockerfile, Kind};
use kiln_parser::expand::{BudgetedVariables, Expansion};
use kiln_parser::suggest;

/// Variables that the platforms define (moby/buildkit `dockerfile2llb/platform.go`).
pub(super) fn platform_variables(file: &Dockerfile, options: &StageOptions<'_>) -> Variables {
    let build = Platform::host();
    let target = options.platform;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let last = file.instructions.iter().rev().find_map(|instruction| match &instruction.kind {
        Kind::From(from) => Some(from),
        _ => None,
    });
    let last = last.and_then(|from| from.stage_name());
    let target_stage = options.targets.last().cloned().or(last).unwrap_or_else(|| "default".to_owned());
    let defaults = [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", text(&build.variant)),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", text(&target.os_version)),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", text(&target.variant)),
        ("TARGETSTAGE", target_stage),
    ];
    let chosen = |(name, default): (&str, String)| {
        (name.to_owned(), options.build_args.get(name).cloned().unwrap_or(default))
    };
    defaults.map(chosen).into_iter().collect()
}

pub(super) fn platform(
    text: &Text,
    globals: &Variables,
    limited: &BudgetedVariables<'_>,
    escape: char,
) -> Result<Platform, Mistake> {
    let expansion = expand_at(text, limited, escape)?;
    if expansion.value.is_empty() {
        let message = format!("empty platform value from expression {}", text.as_str());
        let near = near_variable(&expansion, globals);
        return Err(Mistake::at("empty-platform", text.span(), message).hint(near));
    }
    expansion.value.parse().map_err(|error| {
        let message = format!("failed to parse platform {}: {error}", text.as_str());
        Mistake::at("invalid-platform", text.span(), message)
            .hint(Some("write os/architecture, such as linux/amd64 or linux/arm64".to_owned()))
    })
}

/// Suggestion for a variable that is not in the scope of FROM; `None` when no name is similar.
pub(super) fn near_variable(expansion: &Expansion<String>, globals: &Variables) -> Option<String> {
    let missed = expansion.missed.first()?;
    Some(match suggest::nearest_variable(missed, globals.names()) {
        Some(near) => format!("`{missed}` is not set; did you mean {near}?"),
        None => format!("declare `ARG {missed}=…` before the first FROM, or pass --build-arg {missed}=…"),
    })
}
