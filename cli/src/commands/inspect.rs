//! `kiln inspect`.

mod container;
mod image;

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::format;
use crate::session::{self, Session};
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, EngineError, Listed};
use kiln_image::json;
use kiln_image::store::StoreError;
use serde::Serialize;
use std::ffi::OsString;

/// Show all that is known of images and containers.
#[derive(Debug, Parser)]
struct Inspect {
    /// Go template for each, or `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Look only for these: image or container
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What can be inspected, in Docker's JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Object {
    Container(Box<container::Inspected>),
    Damaged(Box<container::InspectedDamage>),
    Image(Box<image::Inspected>),
}

/// Prints what is found; names that are not are told, and make the command fail.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let inspect: Inspect = arguments::parse("inspect", arguments)?;
    let (containers, images) = match inspect.kind.as_deref() {
        None | Some("") => (true, true),
        Some("container") => (true, false),
        Some("image") => (false, true),
        Some(other) => {
            return Err(CliError::Flags(
                format!("\"{other}\" is not a valid value for --type"),
                vec!["one of image, container".to_owned()],
            ));
        }
    };
    let template = match inspect.format.as_deref() {
        None | Some("") => None,
        Some("json") => Some(format::template("{{json .}}")?),
        Some(text) => Some(format::template(text)?),
    };
    let session = Session::open(globals)?;
    if containers {
        session::warn_of_damaged(&Containers::open(&session.store)?)?;
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &inspect.names {
        match find(&session, name, containers, images)? {
            Some(object) => found.push(object),
            None => missing.push(name),
        }
    }
    match template {
        None => ui::data_line(&String::from_utf8_lossy(&pretty(&found))),
        Some(_) if inspect.format.as_deref() == Some("json") => {
            found.iter().for_each(|object| ui::data_line(&format::json_of(object)));
        }
        Some(template) => {
            for object in &found {
                ui::data_line(&format::render(&template, object)?);
            }
        }
    }
    let kind = match inspect.kind.as_deref() {
        Some("image") => "image",
        Some("container") => "container",
        _ => "object",
    };
    missing.iter().for_each(|name| ui::tell_line(&format!("Error: No such {kind}: {name}")));
    Ok(if missing.is_empty() { 0 } else { code::FAILURE })
}

/// `[]` alone stands in one line.
fn pretty(found: &[Object]) -> Vec<u8> {
    if found.is_empty() { b"[]".to_vec() } else { json::to_vec_pretty(found) }
}

fn find(session: &Session, name: &str, containers: bool, images: bool) -> Result<Option<Object>, CliError> {
    let store = &session.store;
    if containers {
        let all = Containers::open(store)?;
        match all.find(name) {
            Ok(Listed::Damaged(damaged)) => {
                let inspected = container::InspectedDamage::new(&damaged);
                return Ok(Some(Object::Damaged(Box::new(inspected))));
            }
            Ok(Listed::Sound(container)) => {
                let inspected = container::Inspected::new(&container, &all);
                return Ok(Some(Object::Container(Box::new(inspected))));
            }
            Err(EngineError::NoSuchContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !images {
        return Ok(None);
    }
    match store.resolve(name) {
        Ok(record) => {
            let inspected = image::Inspected::new(store, store.read_image(record)?)?;
            Ok(Some(Object::Image(Box::new(inspected))))
        }
        Err(StoreError::NoSuchImage(_) | StoreError::Reference(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
