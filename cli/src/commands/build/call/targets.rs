//! `--call=targets`: stages that can be built.

use super::{Call, Location, Subject, base64_of, print_json};
use crate::error::CliError;
use crate::text;
use crate::ui;
use kiln_parser::ast::Kind;
use kiln_parser::outline;
use serde::Serialize;

#[derive(Serialize)]
struct Targets {
    targets: Vec<Target>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Target {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    base: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    location: Location,
}

pub(super) fn answer(call: Call, subject: &Subject<'_>) -> Result<u8, CliError> {
    let parse = subject.parse()?;
    let source = &subject.context.source;
    let stages = parse.file.instructions.iter().filter_map(|instruction| match &instruction.kind {
        Kind::From(from) => Some((instruction, from)),
        _ => None,
    });
    let mut targets: Vec<Target> = stages
        .zip(outline::stages(&parse.file))
        .map(|((instruction, from), stage)| Target {
            name: stage.name.to_lowercase(),
            default: false,
            description: stage.description,
            base: from.image.as_str().to_owned(),
            platform: from.platform.as_ref().map(|platform| platform.as_str().to_owned()),
            location: Location::of(source, instruction.span),
        })
        .collect();
    if let Some(last) = targets.last_mut() {
        last.default = true;
    }
    if call.json {
        print_json(&Targets { targets, sources: [base64_of(source)] });
        return Ok(0);
    }
    let cells = |target: &Target| {
        let name = match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        vec![name, target.description.clone().unwrap_or_default()]
    };
    let rows: Vec<Vec<String>> = targets.iter().map(cells).collect();
    ui::print(&text::narrow_table(&["TARGET", "DESCRIPTION"], &rows));
    Ok(0)
}
