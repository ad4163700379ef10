//! `kiln inspect`.

mod container;
mod image;

use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::format::{
    self,
    typed::{Typed, Types},
};
use crate::missing;
use crate::session::{self, Session};
use crate::ui;
use clap::Parser;
use gotmpl::Template;
use kiln_engine::{Containers, EngineError, Listed};
use kiln_image::json;
use kiln_image::reference::Reference;
use kiln_image::store::StoreError;
use serde::Serialize;
use std::ffi::OsString;
use std::sync::LazyLock;

/// Show details of images and containers as JSON.
#[derive(Debug, Parser)]
struct Inspect {
    /// Format each object with a Go template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the sizes of containers' files
    #[arg(short, long)]
    size: bool,
    /// Look only for objects of this type: image or container
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Show these images and containers: names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Exit code for a template that cannot be parsed, as of Docker's client.
const BAD_TEMPLATE: u8 = 64;

/// Object that can be inspected, in Docker's JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Object {
    Container(Box<container::Inspected>),
    Damaged(Box<container::InspectedDamage>),
    Image(Box<image::Inspected>),
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Inspect as clap::CommandFactory>::command()
}

/// Prints the objects that are found, reports each name that is not, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let inspect: Inspect = arguments::parse("inspect", arguments)?;
    let (containers, images) = match inspect.kind.as_deref() {
        None | Some("") => (true, true),
        Some("container") => (true, false),
        Some("image") => (false, true),
        Some(other) => {
            return Err(CliError::Usage(
                format!("\"{other}\" is not a valid value for --type"),
                vec!["one of image, container".to_owned()],
            ));
        }
    };
    let template = match inspect.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(format::template(text).map_err(|error| error.with_code(BAD_TEMPLATE))?),
    };
    let session = Session::open(globals)?;
    if containers {
        session::warn_of_damaged(&Containers::open(&session.store)?)?;
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &inspect.names {
        match inspect.find(&session, name, containers, images)? {
            Some(object) => found.push(object),
            None => missing.push(name),
        }
    }
    match template {
        None if inspect.format.as_deref() == Some("json") => {
            let objects = found.iter().map(compact).collect::<Result<Vec<_>, CliError>>()?;
            ui::data_line(&format!("[{}]", objects.join(",")));
        }
        None => ui::data_line(&String::from_utf8_lossy(&pretty(&found)?)),
        Some(template) => {
            for object in &found {
                ui::data_line(&render(&template, object)?);
            }
        }
    }
    let kind = match inspect.kind.as_deref() {
        Some("image") => "image",
        Some("container") => "container",
        _ => "object",
    };
    for name in &missing {
        // Names of images are shown as they were looked up, with a tag.
        let shown = match name.parse::<Reference>() {
            Ok(reference) if kind == "image" => reference.or_latest().familiar(),
            _ => (*name).clone(),
        };
        ui::tell_line(&format!("ERROR: No such {kind}: {shown}"));
        let near = containers.then(|| near_container(&session, name)).flatten();
        let near = near.or_else(|| images.then(|| missing::near_image(&session.store, name)).flatten());
        let hint = near.map_or_else(
            || "`kiln images` and `kiln ps -a` list what there is".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        ui::tell_line(&format!("hint: {hint}"));
    }
    Ok(if missing.is_empty() { 0 } else { code::FAILURE })
}

fn near_container(session: &Session, name: &str) -> Option<String> {
    missing::near_container(&Containers::open(&session.store).ok()?, name)
}

/// Docker's types, by the names of Go's fields (moby/moby api/types/container and image, github.com/moby/docker-image-spec).
static TYPES: LazyLock<Types> = LazyLock::new(|| Types::read(include_str!("inspect/types.txt")));

/// An object with all fields of its type.
fn typed(object: &Object) -> Result<Typed, CliError> {
    let failed = |error| CliError::failed(format!("cannot show the object as JSON: {error}"));
    let json = serde_json::to_value(object).map_err(failed)?;
    let name = if matches!(object, Object::Image(_)) { "Image" } else { "Container" };
    Ok(TYPES.value(name, Some(&json)))
}

/// Fills in a template with Go's names of fields, or else, as Docker does, with those of the JSON.
fn render(template: &Template, object: &Object) -> Result<String, CliError> {
    let typed = typed(object)?;
    let printed = template.execute_to_string(&typed.to_value()).map(|text| format::typed::plain(&text));
    match (printed, object) {
        // A struct cannot be ranged over.
        (Ok(printed), _) if !format::typed::shows_struct(&printed) => Ok(printed),
        (_, Object::Image(_)) => format::render(template, object),
        (_, _) => format::render(template, &typed),
    }
}

/// The object in one line, with the fields of [`pretty`].
fn compact(object: &Object) -> Result<String, CliError> {
    Ok(match object {
        Object::Container(_) => format::json_of(&typed(object)?),
        Object::Image(_) | Object::Damaged(_) => format::json_of(object),
    })
}

/// `[]` alone stands in one line.
fn pretty(found: &[Object]) -> Result<Vec<u8>, CliError> {
    /// Images as the engine answers them, containers with every field.
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Shown<'a> {
        Image(&'a Object),
        Container(Typed),
    }
    if found.is_empty() {
        return Ok(b"[]".to_vec());
    }
    let shown = found.iter().map(|object| match object {
        Object::Container(_) => Ok(Shown::Container(typed(object)?)),
        Object::Image(_) | Object::Damaged(_) => Ok(Shown::Image(object)),
    });
    Ok(json::to_vec_pretty(&shown.collect::<Result<Vec<_>, CliError>>()?))
}

impl Inspect {
    fn find(
        &self,
        session: &Session,
        name: &str,
        containers: bool,
        images: bool,
    ) -> Result<Option<Object>, CliError> {
        let store = &session.store;
        if containers {
            let all = Containers::open(store)?;
            match all.find(name) {
                Ok(Listed::Damaged(damaged)) => {
                    let inspected = container::InspectedDamage::new(&damaged);
                    return Ok(Some(Object::Damaged(Box::new(inspected))));
                }
                Ok(Listed::Sound(container)) => {
                    let mut inspected = container::Inspected::new(&container, &all);
                    if self.size {
                        let image = store.image(&container.image)?.map_or(0, |image| image.size);
                        inspected = inspected.with_sizes(all.size(&container)?, image);
                    }
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
}
