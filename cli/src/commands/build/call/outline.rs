//! `--call=outline`: build arguments, secrets and ssh sockets that a stage uses.

use super::{Call, Location, Subject, base64_of, print_json};
use crate::error::CliError;
use crate::text;
use crate::ui;
use kiln_builder::Mistake;
use kiln_parser::outline::{self, Outline, Resource};
use kiln_parser::{Source, suggest};
use serde::Serialize;

#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Need>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Need>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Argument {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    location: Location,
}

#[derive(Serialize)]
struct Need {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

pub(super) fn answer(call: Call, subject: &Subject<'_>) -> Result<u8, CliError> {
    let parse = subject.parse()?;
    let target = subject.options.targets.last().map(|target| target.stage.as_str());
    let Some(outline) = outline::outline(&parse.file, target, &subject.options.build_args) else {
        let target = target.unwrap_or_default();
        let stages = outline::stages(&parse.file);
        let near = suggest::nearest(target, stages.iter().map(|stage| stage.name.as_str()));
        let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        let message = format!("target stage {target:?} could not be found{near}");
        return Err(subject.failure(Mistake::Option { message, hints: Vec::new() }));
    };
    let source = &subject.context.source;
    if call.json {
        print_json(&for_tools(source, outline));
    } else {
        ui::print(&words(&outline));
    }
    Ok(0)
}

fn words(outline: &Outline) -> String {
    let mut out = String::new();
    match (outline.name.as_str(), &outline.description) {
        ("", _) => {}
        (name, None) => out.push_str(&format!("TARGET: {name}\n\n")),
        (name, Some(words)) => out.push_str(&format!("TARGET:      {name}\nDESCRIPTION: {words}\n\n")),
    }
    if !outline.arguments.is_empty() {
        let rows = outline.arguments.iter().map(|argument| {
            let (value, words) = (argument.value.clone(), argument.description.clone());
            vec![argument.name.clone(), value.unwrap_or_default(), words.unwrap_or_default()]
        });
        let rows: Vec<_> = rows.collect();
        out.push_str(&text::wide_table(&["BUILD ARG", "VALUE", "DESCRIPTION"], &rows));
        out.push('\n');
    }
    for (head, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !list.is_empty() {
            let required = |need: &Resource| if need.required { "true" } else { "" }.to_owned();
            let rows: Vec<_> = list.iter().map(|need| vec![need.name.clone(), required(need)]).collect();
            out.push_str(&text::wide_table(&[head, "REQUIRED"], &rows));
            out.push('\n');
        }
    }
    out
}

fn for_tools(source: &Source, outline: Outline) -> Answer {
    let needs = |list: Vec<Resource>| {
        let needs = list.into_iter().map(|need| Need {
            name: need.name,
            required: need.required,
            location: Location::of(source, need.span),
        });
        needs.collect()
    };
    let args = outline.arguments.into_iter().map(|argument| Argument {
        name: argument.name,
        description: argument.description,
        value: argument.value.filter(|value| !value.is_empty()),
        location: Location::of(source, argument.span),
    });
    Answer {
        name: outline.name,
        description: outline.description,
        args: args.collect(),
        secrets: needs(outline.secrets),
        ssh: needs(outline.ssh),
        sources: [base64_of(source)],
    }
}
