//! Grammar of RUN and its flags.

use super::{Rule, Takes, command};
use crate::ast::{Device, Kind, MountFlag, NetworkMode, Run, SecurityMode};
use crate::diagnostic::Diagnostic;
use crate::expand::ExpandError;
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

/// Parses `RUN [flags] command`.
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
    let mut devices = Vec::new();
    for value in flags.all("device") {
        devices.push(device(&mut rule, &value)?);
    }
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

/// Splits a `--mount` value and checks the parts that do not depend on variables.
fn mount_flag(rule: &mut Rule<'_, '_>, text: Text) -> Option<MountFlag> {
    let fields = mount::fields(&text);
    let flag = MountFlag { text, fields };
    // With variables in it, the value is checked when the step is planned.
    let checked = match flag.text.as_str().contains('$') {
        true => mount::check(&flag),
        false => mount::check(&flag).and_then(|()| mount::resolve(&flag, &mut verbatim).map(|_| ())),
    };
    match checked {
        Ok(()) => Some(flag),
        Err(error) => {
            rule.report(error.diagnostic());
            None
        }
    }
}

/// Text of a word without variables; quotes have no meaning in it.
fn verbatim(text: &Text) -> Result<String, ExpandError> {
    Ok(text.as_str().to_owned())
}

/// Parses `[name=]vendor.com/class=device[,required[=bool]]` as moby/buildkit
/// `frontend/dockerfile/instructions/commands_rundevice.go` does.
fn device(rule: &mut Rule<'_, '_>, text: &Text) -> Option<Device> {
    let mut name: Option<Text> = None;
    let mut required = false;
    for field in mount::fields(text) {
        let fail = |message: String| Diagnostic::error("invalid-device", field.span(), message);
        let (key, value) = mount::split(&field);
        let problem = match (key.as_str(), &value) {
            ("required", None) => {
                required = true;
                None
            }
            ("required", Some(value)) => match mount::go_bool(value.as_str()) {
                Some(answer) => {
                    required = answer;
                    None
                }
                None => Some(fail(format!("invalid value for required: {}", value.as_str()))),
            },
            ("name", Some(_)) if name.is_some() => {
                let before = name.as_ref().map_or("", Text::as_str);
                Some(fail(format!("device name already set to {before}")))
            }
            ("name", Some(value)) => {
                name = Some(value.clone());
                None
            }
            _ if name.is_none() => {
                name = Some(field.clone());
                None
            }
            (_, None) => Some(fail(format!("invalid field '{}' must be a key=value pair", field.as_str()))),
            (key, Some(_)) => {
                let near = suggest::nearest(key, ["name", "required"]);
                let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
                Some(fail(format!("unexpected key '{key}' in '{}'{near}", field.as_str())))
            }
        };
        if let Some(problem) = problem {
            rule.report(problem);
            return None;
        }
    }
    let nameless = || text.slice(0..0);
    Some(Device { name: name.unwrap_or_else(nameless), required })
}
