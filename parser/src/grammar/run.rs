//! RUN and its flags.

use super::{Rule, Takes, command};
use crate::ast::{Kind, MountFlag, NetworkMode, Run, SecurityMode};
use crate::diagnostic::Diagnostic;
use crate::mount;
use crate::span::Spanned;
use crate::suggest;
use crate::text::Text;

const FLAGS: [(&str, Takes); 4] = [
    ("mount", Takes::Values),
    ("network", Takes::Value),
    ("security", Takes::Value),
    ("device", Takes::Values),
];

/// `RUN [flags] command`.
pub(super) fn run(mut rule: Rule<'_, '_>) -> Option<Kind> {
    let flags = rule.check_flags(&FLAGS)?;
    let mut mounts = Vec::new();
    for value in flags.all("mount") {
        mounts.push(mount_flag(&mut rule, value)?);
    }
    let network = match flags.value("network") {
        Some(value) => Some(choose(&mut rule, &value, "network mode", &NETWORK)?),
        None => None,
    };
    let security = match flags.value("security") {
        Some(value) => Some(choose(&mut rule, &value, "security mode", &SECURITY)?),
        None => None,
    };
    let devices = flags.all("device").collect();
    let command = command::command_line(&mut rule)?;
    Some(Kind::Run(Run { mounts, network, security, devices, command }))
}

const NETWORK: [(&str, NetworkMode); 3] =
    [("default", NetworkMode::Default), ("none", NetworkMode::None), ("host", NetworkMode::Host)];

const SECURITY: [(&str, SecurityMode); 2] =
    [("sandbox", SecurityMode::Sandbox), ("insecure", SecurityMode::Insecure)];

fn choose<T: Copy>(
    rule: &mut Rule<'_, '_>,
    value: &Text,
    what: &str,
    choices: &[(&str, T)],
) -> Option<Spanned<T>> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value.as_str()) {
        return Some(Spanned::new(*choice, value.span()));
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let near = suggest::nearest(value.as_str(), names.iter().copied());
    let suggestion = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    rule.report(
        Diagnostic::error(
            "invalid-mode",
            value.span(),
            format!("invalid {what} {:?}{suggestion}", value.as_str()),
        )
        .hint(format!("one of {}", names.join(", "))),
    );
    None
}

/// Splits a `--mount` value and checks what does not depend on variables.
fn mount_flag(rule: &mut Rule<'_, '_>, text: Text) -> Option<MountFlag> {
    let fields = mount::fields(&text);
    let flag = MountFlag { text, fields };
    match mount::check(&flag) {
        Ok(()) => Some(flag),
        Err(error) => {
            rule.report(error.diagnostic());
            None
        }
    }
}
