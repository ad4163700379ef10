//! Command `kiln network ls`.

use crate::arguments::{self, Globals};
use crate::conditions::{self, Conditions};
use crate::error::CliError;
use crate::format::Format;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Containers, Network};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// List networks.
#[derive(Debug, Parser)]
struct Ls {
    /// Show only those that meet a condition, such as driver=bridge or label=NAME; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each network with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut ids short
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
}

/// Keys of conditions.
const KEYS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

const HEAD: [(&str, &str); 9] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// Row of the list, with the names of Docker's fields.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    created_at: String,
    driver: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "IPv4")]
    ipv4: String,
    #[serde(rename = "IPv6")]
    ipv6: String,
    internal: String,
    labels: String,
    name: String,
    scope: String,
    #[serde(skip)]
    all_labels: BTreeMap<String, String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Ls as clap::CommandFactory>::command()
}

/// Prints the networks by name.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let ls: Ls = arguments::parse("network ls", arguments)?;
    let format = Format::read::<Row>(ls.format.as_deref(), &HEAD)?;
    let pairs = conditions::read(&ls.filter, &KEYS)?;
    pairs.iter().try_for_each(|(key, value)| check(key, value))?;
    let conditions = Conditions::of(&pairs);
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let mut rows = Vec::new();
    for network in containers.networks()?.list()? {
        if takes(&conditions, &network, &containers)? {
            rows.push(ls.row(&network));
        }
    }
    if ls.quiet && ls.format.is_none() {
        rows.iter().for_each(|row| ui::line(&row.id));
        return Ok(0);
    }
    format.print_labelled(&rows, |row| Some(&row.all_labels), || table(&rows))?;
    Ok(0)
}

/// Checks the value of a key that takes only some.
fn check(key: &str, value: &str) -> Result<(), CliError> {
    let values: &[&str] = match key {
        "dangling" => &["true", "false", "1", "0"],
        "type" => &["custom", "builtin"],
        _ => return Ok(()),
    };
    match values.contains(&value) {
        true => Ok(()),
        false => Err(CliError::failed(format!("invalid filter '{key}={value}'"))
            .hint(format!("the value must be one of {}", values.join(", ")))),
    }
}

fn takes(conditions: &Conditions, network: &Network, containers: &Containers<'_>) -> Result<bool, CliError> {
    let has_label = |wanted: &String| {
        let (name, value) = wanted.split_once('=').map_or((wanted.as_str(), None), |(n, v)| (n, Some(v)));
        network.labels.get(name).is_some_and(|found| value.is_none_or(|value| found == value))
    };
    let kind = if network.is_predefined() { "builtin" } else { "custom" };
    let is_taken = conditions.any("driver", |value| network.driver.name() == value)
        && conditions.any("id", |value| network.id.contains(value))
        && conditions.any("name", |value| network.name.contains(value))
        && conditions.any("scope", |value| value == "local")
        && conditions.any("type", |value| value == kind)
        && conditions.values("label").iter().all(has_label);
    if !is_taken || conditions.values("dangling").is_empty() {
        return Ok(is_taken);
    }
    let is_dangling = !network.is_predefined() && containers.members_of(network)?.is_empty();
    Ok(conditions.any("dangling", |value| ["true", "1"].contains(&value) == is_dangling))
}

impl Ls {
    fn row(&self, network: &Network) -> Row {
        let labels = network.labels.iter().map(|(name, value)| format!("{name}={value}"));
        Row {
            created_at: text::date(&network.created),
            driver: network.driver.name().to_owned(),
            id: if self.no_trunc { network.id.clone() } else { text::short(&network.id) },
            ipv4: "true".to_owned(),
            ipv6: network.ipv6.is_some().to_string(),
            internal: network.internal.to_string(),
            labels: labels.collect::<Vec<_>>().join(","),
            name: network.name.clone(),
            scope: "local".to_owned(),
            all_labels: network.labels.clone(),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| [&row.id, &row.name, &row.driver, &row.scope].map(Clone::clone).to_vec();
    text::table(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"], &rows.iter().map(cells).collect::<Vec<_>>())
}
