//! Command `kiln volume ls`.

pub mod filter;

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::Format;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use filter::{Filter, OF_LIST};
use kiln_engine::{Containers, UsedVolume};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// List volumes.
#[derive(Debug, Parser)]
struct Ls {
    /// Show names only
    #[arg(short, long)]
    quiet: bool,
    /// Show only these: dangling=true|false, driver=local, name=PATTERN, label=NAME[=VALUE] or label!=NAME[=VALUE]; may
    /// be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each volume with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const HEAD: [(&str, &str); 10] = [
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

/// What Docker shows where a list does not know more.
const UNKNOWN: &str = "N/A";

/// Row of the list, with the names of Docker's fields.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    availability: &'static str,
    driver: &'static str,
    group: &'static str,
    labels: String,
    links: &'static str,
    mountpoint: String,
    name: String,
    scope: &'static str,
    size: &'static str,
    status: &'static str,
    #[serde(skip)]
    all_labels: BTreeMap<String, String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Ls as clap::CommandFactory>::command()
}

/// Prints the volumes of the store by name.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let ls: Ls = arguments::parse("volume ls", arguments)?;
    let format = Format::read::<Row>(ls.format.as_deref(), &HEAD)?;
    let filter = Filter::read(&ls.filter, OF_LIST)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    session::warn_of_damaged(&containers)?;
    let volumes = containers.volumes()?;
    let taken = volumes.iter().filter(|used| filter.takes(used));
    let rows: Vec<Row> = taken.map(|used| row(used, &containers)).collect();
    if ls.quiet && ls.format.is_none() {
        rows.iter().for_each(|row| ui::line(&row.name));
        return Ok(0);
    }
    format.print_labelled(
        &rows,
        |row| Some(&row.all_labels),
        || {
            let cells = |row: &Row| vec![row.driver.to_owned(), row.name.clone()];
            text::table(&["DRIVER", "VOLUME NAME"], &rows.iter().map(cells).collect::<Vec<_>>())
        },
    )?;
    Ok(0)
}

fn row(used: &UsedVolume, containers: &Containers<'_>) -> Row {
    let all_labels = used.volume.shown_labels();
    let labels: Vec<String> = all_labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Row {
        availability: UNKNOWN,
        driver: "local",
        group: UNKNOWN,
        labels: labels.join(","),
        links: UNKNOWN,
        mountpoint: containers.volume_data(&used.volume.name).display().to_string(),
        name: used.volume.name.clone(),
        scope: "local",
        size: UNKNOWN,
        status: UNKNOWN,
        all_labels,
    }
}
