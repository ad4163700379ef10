//! `kiln inspect`.

mod container;
mod image;
mod network;
mod volume;

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
use kiln_image::store::{Store, StoreError};
use serde::Serialize;
use std::ffi::OsString;
use std::sync::LazyLock;

/// Show details of images, containers, networks and volumes as JSON.
#[derive(Debug, Parser)]
struct Inspect {
    /// Format each object with a Go template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the sizes of containers' files
    #[arg(short, long)]
    size: bool,
    /// Accepted for networks, as in Docker: it adds the peers of a swarm, and there are no swarms
    #[arg(short, long, hide = true)]
    verbose: bool,
    /// Look only for objects of this type: image, container, network or volume
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Show these images, containers, networks and volumes: names or ids
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
    Network(Box<network::Inspected>),
    Volume(Box<volume::Inspected>),
}

/// Type of objects that are looked for; `None` for all.
type Kind = Option<&'static str>;

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Inspect as clap::CommandFactory>::command()
}

/// Prints the objects that are found, reports each name that is not, and then returns exit code 1.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let inspect: Inspect = arguments::parse("inspect", arguments)?;
    let kind = inspect.kind()?;
    if inspect.verbose && kind != Some("network") {
        return Err(CliError::Flags("the flag -v, --verbose is for networks only".to_owned(), Vec::new()));
    }
    let template = match inspect.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(format::template(text).map_err(|error| error.with_code(BAD_TEMPLATE))?),
    };
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    if is_of(kind, "container") {
        session::warn_of_damaged(&containers)?;
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &inspect.names {
        match inspect.find(&session, &containers, name, kind)? {
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
    missing.iter().for_each(|name| report_missing(&session, &containers, name, kind));
    Ok(if missing.is_empty() { 0 } else { code::FAILURE })
}

/// True when objects of a type are looked for.
fn is_of(kind: Kind, wanted: &str) -> bool {
    kind.is_none_or(|kind| kind == wanted)
}

fn report_missing(session: &Session, containers: &Containers<'_>, name: &str, kind: Kind) {
    if kind == Some("volume") {
        missing::volume(containers, EngineError::NoSuchVolume(name.to_owned())).report();
        return;
    }
    if kind == Some("network")
        && let Ok(networks) = containers.networks()
    {
        missing::network(&networks, EngineError::NoSuchNetwork(name.to_owned())).report();
        return;
    }
    // Names of images are shown as they were looked up, with a tag.
    let shown = match name.parse::<Reference>() {
        Ok(reference) if kind == Some("image") => reference.or_latest().familiar(),
        _ => name.to_owned(),
    };
    ui::tell_line(&format!("ERROR: No such {}: {shown}", kind.unwrap_or("object")));
    let near = is_of(kind, "container").then(|| missing::near_container(containers, name)).flatten();
    let near = near
        .or_else(|| is_of(kind, "image").then(|| missing::near_image(&session.store, name)).flatten())
        .or_else(|| is_of(kind, "network").then(|| near_network(containers, name)).flatten())
        .or_else(|| is_of(kind, "volume").then(|| missing::near_volume(containers, name)).flatten());
    let hint = near.map_or_else(
        || {
            "`kiln images`, `kiln ps -a`, `kiln network ls` and `kiln volume ls` list what there is"
                .to_owned()
        },
        |near| format!("did you mean {near}?"),
    );
    ui::tell_line(&format!("hint: {hint}"));
}

fn near_network(containers: &Containers<'_>, name: &str) -> Option<String> {
    missing::near_network(&containers.networks().ok()?, name)
}

/// Docker's types, by the names of Go's fields (moby/moby api/types/container and image, github.com/moby/docker-image-spec).
static TYPES: LazyLock<Types> = LazyLock::new(|| Types::read(include_str!("inspect/types.txt")));

/// An object with all fields of its type.
fn typed(object: &Object) -> Result<Typed, CliError> {
    let failed = |error| CliError::failed(format!("cannot show the object as JSON: {error}"));
    let json = serde_json::to_value(object).map_err(failed)?;
    let name = match object {
        Object::Image(_) => "Image",
        Object::Network(_) => "Network",
        Object::Volume(_) => "Volume",
        Object::Container(_) | Object::Damaged(_) => "Container",
    };
    Ok(TYPES.value(name, Some(&json)))
}

/// Fills in a template with Go's names of fields, or else, as Docker does, with those of the JSON.
fn render(template: &Template, object: &Object) -> Result<String, CliError> {
    let typed = typed(object)?;
    let printed = template.execute_to_string(&typed.to_value()).map(|text| format::typed::plain(&text));
    match (printed, object) {
        // A struct cannot be ranged over.
        (Ok(printed), _) if !format::typed::shows_struct(&printed) => Ok(printed),
        (_, Object::Image(_) | Object::Network(_) | Object::Volume(_)) => format::render(template, object),
        (_, _) => format::render(template, &typed),
    }
}

/// The object in one line, with the fields of [`pretty`].
fn compact(object: &Object) -> Result<String, CliError> {
    Ok(match object {
        Object::Container(_) => format::json_of(&typed(object)?),
        Object::Image(_) | Object::Network(_) | Object::Volume(_) | Object::Damaged(_) => {
            format::json_of(object)
        }
    })
}

/// `[]` alone stands in one line.
fn pretty(found: &[Object]) -> Result<Vec<u8>, CliError> {
    /// Images and volumes as the engine answers them, containers with every field.
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Shown<'a> {
        Answer(&'a Object),
        Container(Typed),
    }
    if found.is_empty() {
        return Ok(b"[]".to_vec());
    }
    let shown = found.iter().map(|object| match object {
        Object::Container(_) => Ok(Shown::Container(typed(object)?)),
        Object::Image(_) | Object::Network(_) | Object::Volume(_) | Object::Damaged(_) => {
            Ok(Shown::Answer(object))
        }
    });
    Ok(json::to_vec_pretty(&shown.collect::<Result<Vec<_>, CliError>>()?))
}

impl Inspect {
    fn kind(&self) -> Result<Kind, CliError> {
        const KINDS: [&str; 4] = ["image", "container", "network", "volume"];
        match self.kind.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => {
                let known = KINDS.into_iter().find(|kind| *kind == text);
                known.map(Some).ok_or_else(|| {
                    CliError::Usage(
                        format!("\"{text}\" is not a valid value for --type"),
                        vec![format!("one of {}", KINDS.join(", "))],
                    )
                })
            }
        }
    }

    /// Looks for a container, then an image, a network, and a volume.
    fn find(
        &self,
        session: &Session,
        all: &Containers<'_>,
        name: &str,
        kind: Kind,
    ) -> Result<Option<Object>, CliError> {
        let mut found = None;
        if is_of(kind, "container") {
            found = self.find_container(session, all, name)?;
        }
        if found.is_none() && is_of(kind, "image") {
            found = find_image(&session.store, name)?;
        }
        if found.is_none() && is_of(kind, "network") {
            found = find_network(all, name)?;
        }
        if found.is_none() && is_of(kind, "volume") {
            found = match all.find_volume(name) {
                Ok(volume) => Some(Object::Volume(Box::new(volume::Inspected::new(volume, all)))),
                Err(EngineError::NoSuchVolume(_)) => None,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(found)
    }

    fn find_container(
        &self,
        session: &Session,
        all: &Containers<'_>,
        name: &str,
    ) -> Result<Option<Object>, CliError> {
        match all.find(name) {
            Ok(Listed::Damaged(damaged)) => {
                let inspected = container::InspectedDamage::new(&damaged);
                Ok(Some(Object::Damaged(Box::new(inspected))))
            }
            Ok(Listed::Sound(container)) => {
                let mut inspected = container::Inspected::new(&container, all);
                if self.size {
                    let image = session.store.image(&container.image)?.map_or(0, |image| image.size);
                    inspected = inspected.with_sizes(all.size(&container)?, image);
                }
                Ok(Some(Object::Container(Box::new(inspected))))
            }
            Err(EngineError::NoSuchContainer(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn find_network(all: &Containers<'_>, name: &str) -> Result<Option<Object>, CliError> {
    match all.networks()?.find(name) {
        Ok(network) => Ok(Some(Object::Network(Box::new(network::Inspected::new(&network, all)?)))),
        Err(EngineError::NoSuchNetwork(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn find_image(store: &Store, name: &str) -> Result<Option<Object>, CliError> {
    match store.resolve(name) {
        Ok(record) => {
            let inspected = image::Inspected::new(store, store.read_image(record)?)?;
            Ok(Some(Object::Image(Box::new(inspected))))
        }
        Err(StoreError::NoSuchImage(_) | StoreError::Reference(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
