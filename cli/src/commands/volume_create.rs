//! Command `kiln volume create`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{
    Containers, EngineError, VolumeCreateError, VolumeOptionError, VolumeOwner, VolumeRequest,
};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Create a volume.
#[derive(Debug, Parser)]
struct Create {
    /// Create it with this driver; there is only local
    #[arg(short, long, value_name = "DRIVER", default_value = LOCAL, hide_default_value = true)]
    driver: String,
    /// Add a label; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Set an option of the driver: type=tmpfs|nfs|cifs|none, device=DEVICE, o=OPTIONS or size=SIZE; may be repeated
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Make this uid the owner of its directory
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Make this gid the group of its directory
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// Set the permission bits of its directory, in octal digits
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<u32>,
    /// Name of the volume [default: a generated one]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// The one driver.
const LOCAL: &str = "local";

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Create as clap::CommandFactory>::command()
}

/// Creates the volume and prints its name.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let create: Create = arguments::parse("volume create", arguments)?;
    create.check_driver()?;
    let session = Session::open(globals)?;
    let volume = Containers::open(&session.store)?.create_volume(&create.request()).map_err(explained)?;
    ui::line(&volume.name);
    Ok(0)
}

impl Create {
    fn check_driver(&self) -> Result<(), CliError> {
        let driver = &self.driver;
        if matches!(driver.as_str(), "" | LOCAL) {
            return Ok(());
        }
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        Err(CliError::failed(format!(
            "create{name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
        ))
        .hint("the only driver is local; it mounts NFS and CIFS by its options: -o type=nfs -o device=:/PATH -o o=addr=HOST"))
    }

    fn request(&self) -> VolumeRequest {
        VolumeRequest {
            // As in the reference, an empty name is none.
            name: self.name.clone().filter(|name| !name.is_empty()),
            labels: pairs(&self.label),
            options: pairs(&self.opt),
            owner: VolumeOwner { uid: self.uid, gid: self.gid, mode: self.mode },
        }
    }
}

/// Names and values; one without `=` has no value, and of several with one name the last counts.
fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let split = texts.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
    split.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn mode(text: &str) -> Result<u32, String> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = if digits { u32::from_str_radix(text, 8).ok() } else { None };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| "write octal digits, such as 750".to_owned())
}

fn explained(error: EngineError) -> CliError {
    let hint = match &error {
        EngineError::CreateVolume { name: Some(name), reason: VolumeCreateError::Exists(_) } => {
            Some(format!(
                "`kiln volume inspect {name}` shows it: take another name, or remove it first with `kiln volume rm {name}`"
            ))
        }
        EngineError::CreateVolume { reason: VolumeCreateError::Name(_), .. } => Some(
            "write two or more letters, digits, dots, dashes and underscores, such as db-data".to_owned(),
        ),
        EngineError::CreateVolume { reason: VolumeCreateError::Option(option), .. } => advice(option),
        _ => None,
    };
    match hint {
        Some(hint) => CliError::from(error).hint(hint),
        None => error.into(),
    }
}

fn advice(error: &VolumeOptionError) -> Option<String> {
    let hint = match error {
        VolumeOptionError::Unknown(_) => {
            "options are type, device, o and size: -o type=tmpfs -o device=tmpfs"
        }
        VolumeOptionError::Missing("device") => {
            "add -o device=DEVICE, for a volume in memory -o device=tmpfs"
        }
        VolumeOptionError::Missing(_) => "add -o type=TYPE: tmpfs, nfs, cifs, or none with o=bind",
        VolumeOptionError::NotBind(_) => "add -o o=bind",
        VolumeOptionError::Quota => {
            "only volumes in memory have a size: -o type=tmpfs -o device=tmpfs -o size=100m"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
