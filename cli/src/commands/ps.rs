//! `kiln ps`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::Format;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Container, Containers, Damaged, Listed, State};
use serde::Serialize;
use std::ffi::OsString;

/// List containers.
#[derive(Debug, Parser)]
struct Ps {
    /// Show containers that are not running, too
    #[arg(short, long)]
    all: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut ids and commands short
    #[arg(long)]
    no_trunc: bool,
    /// Show only the container that was created last, running or not
    #[arg(short, long)]
    latest: bool,
    /// Format each container with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const HEAD: [(&str, &str); 11] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Networks", "NETWORKS"),
];
const COMMAND_WIDTH: usize = 20;

/// Row of the list, with the names of Docker's fields.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    command: String,
    created_at: String,
    #[serde(rename = "ID")]
    id: String,
    image: String,
    labels: String,
    local_volumes: String,
    mounts: String,
    names: String,
    networks: String,
    ports: String,
    running_for: String,
    size: String,
    state: String,
    status: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Ps as clap::CommandFactory>::command()
}

/// Prints the containers of the store, the newest first.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let ps: Ps = arguments::parse("ps", arguments)?;
    let format = Format::read::<Row>(ps.format.as_deref(), &HEAD)?;
    let session = Session::open(globals)?;
    let mut containers = Containers::open(&session.store)?.list()?;
    session::warn_of_damage(&containers);
    if ps.latest {
        containers.truncate(1);
    } else if !ps.all {
        containers.retain(Listed::is_running);
    }
    let rows: Vec<Row> = containers.iter().map(|container| ps.row(container)).collect();
    if ps.quiet && ps.format.is_none() {
        rows.iter().for_each(|row| ui::line(&row.id));
        return Ok(0);
    }
    let usual = || {
        let cells = |row: &Row| {
            let columns =
                [&row.id, &row.image, &row.command, &row.running_for, &row.status, &row.ports, &row.names];
            columns.map(Clone::clone).to_vec()
        };
        let head = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        text::table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
    };
    format.print(&rows, usual)?;
    Ok(0)
}

impl Ps {
    fn row(&self, listed: &Listed) -> Row {
        match listed {
            Listed::Sound(container) => self.sound_row(container),
            Listed::Damaged(damaged) => self.damaged_row(damaged),
        }
    }

    /// Row of a container whose record cannot be read.
    fn damaged_row(&self, damaged: &Damaged) -> Row {
        Row {
            command: format!("{:?}", ""),
            created_at: text::date(&damaged.created),
            id: if self.no_trunc { damaged.id.clone() } else { text::short(&damaged.id) },
            image: String::new(),
            labels: String::new(),
            local_volumes: "0".to_owned(),
            mounts: String::new(),
            names: damaged.name.clone(),
            networks: String::new(),
            ports: String::new(),
            running_for: text::age(&damaged.created),
            size: "0B".to_owned(),
            state: "dead".to_owned(),
            status: "Dead".to_owned(),
        }
    }

    fn sound_row(&self, container: &Container) -> Row {
        let command = container.settings.arguments().join(" ");
        let command = if self.no_trunc { command } else { text::ellipsis(&command, COMMAND_WIDTH) };
        let labels: Vec<String> =
            container.settings.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Row {
            command: format!("{command:?}"),
            created_at: text::date(&container.created),
            id: if self.no_trunc { container.id.clone() } else { text::short(&container.id) },
            image: container.image_name.clone(),
            labels: labels.join(","),
            local_volumes: "0".to_owned(),
            mounts: String::new(),
            names: container.name.clone(),
            networks: container.settings.network.name().to_owned(),
            ports: String::new(),
            running_for: text::age(&container.created),
            size: "0B".to_owned(),
            state: container.state.status().to_owned(),
            status: status(&container.state),
        }
    }
}

/// `Up 2 minutes`, `Exited (3) 5 seconds ago`.
fn status(state: &State) -> String {
    match state {
        State::Created { .. } => "Created".to_owned(),
        State::Running { started, paused, .. } => {
            let paused = if *paused { " (Paused)" } else { "" };
            format!("Up {}{paused}", text::age(started).trim_end_matches(" ago"))
        }
        State::Restarting { code, finished, .. } => format!("Restarting ({code}) {}", text::age(finished)),
        State::Exited { code, finished, .. } => format!("Exited ({code}) {}", text::age(finished)),
    }
}
