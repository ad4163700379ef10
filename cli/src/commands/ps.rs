//! `kiln ps`.

mod columns;
mod filter;

pub use columns::local_volumes;

use super::ports;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::Format;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use filter::Filter;
use kiln_engine::{Container, Containers, Damaged, Health, HealthStatus, Listed, State};
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// List containers.
#[derive(Debug, Parser)]
struct Ps {
    /// Show containers that are not running, too
    #[arg(short, long)]
    all: bool,
    /// Show only those that meet a condition, such as status=exited or label=NAME; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each container with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show only the N containers that were created last, running or not
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "-1",
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    last: i64,
    /// Show only the container that was created last, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not cut ids and commands short
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show the size of the files that each container has written, and with its image
    #[arg(short, long)]
    size: bool,
}

const HEAD: [(&str, &str); 16] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("HealthStatus", "HEALTH STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Platform", "PLATFORM"),
    ("Size", "SIZE"),
];
const COMMAND_WIDTH: usize = 20;

/// Row of the list, with the names of Docker's fields.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    command: String,
    created_at: String,
    health_status: String,
    #[serde(rename = "ID")]
    id: String,
    image: String,
    labels: String,
    local_volumes: String,
    mounts: String,
    names: String,
    networks: String,
    platform: String,
    ports: String,
    running_for: String,
    size: String,
    state: String,
    status: String,
    #[serde(skip)]
    all_labels: BTreeMap<String, String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Ps as clap::CommandFactory>::command()
}

/// Prints the containers of the store, the newest first.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let ps: Ps = arguments::parse("ps", arguments)?;
    let format = Format::read::<Row>(ps.format.as_deref(), &HEAD)?;
    let filter = Filter::read(&ps.filter)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let listed = ps.chosen(&session.store, &containers, &filter)?;
    let whole = ps.format.as_deref().is_some_and(|format| format.contains("{{json .}}"));
    let with_sizes = ps.size || !ps.quiet && (whole || Format::names(ps.format.as_deref(), "Size"));
    let tags = if ps.quiet { BTreeMap::new() } else { tags(&session.store)? };
    let rows = Rows { ps: &ps, containers: &containers, store: &session.store, tags, with_sizes };
    let rows: Vec<Row> = listed.iter().map(|one| rows.row(one)).collect::<Result<_, _>>()?;
    if ps.quiet && ps.format.is_some() {
        ui::tell_line("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    if ps.quiet {
        rows.iter().for_each(|row| ui::line(&row.id));
        return Ok(0);
    }
    format.print_labelled(&rows, |row| Some(&row.all_labels), || ps.table(&rows))?;
    Ok(0)
}

/// Names of images in the store, and the ids that they stand for now.
fn tags(store: &Store) -> Result<BTreeMap<String, String>, CliError> {
    let tags = store.tags()?;
    Ok(tags.into_iter().map(|tag| (tag.reference, tag.image.to_string())).collect())
}

impl Ps {
    /// Containers to show, the newest first.
    fn chosen(
        &self,
        store: &Store,
        containers: &Containers<'_>,
        filter: &Filter,
    ) -> Result<Vec<Listed>, CliError> {
        let all = containers.list()?;
        session::warn_of_damage(&all);
        let filter = filter.resolve(store, containers)?;
        let most =
            if self.latest { 1 } else { usize::try_from(self.last).ok().filter(|n| *n > 0).unwrap_or(0) };
        let shows_ended = self.all || most > 0 || filter.shows_ended();
        let shown = all.into_iter().filter(|one| (shows_ended || one.is_running()) && filter.takes(one));
        Ok(shown.take(if most > 0 { most } else { usize::MAX }).collect())
    }

    fn table(&self, rows: &[Row]) -> String {
        let mut head = vec!["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        if self.size {
            head.push("SIZE");
        }
        let cells = |row: &Row| {
            let columns =
                [&row.id, &row.image, &row.command, &row.running_for, &row.status, &row.ports, &row.names];
            columns.into_iter().chain(self.size.then_some(&row.size)).cloned().collect()
        };
        text::table(&head, &rows.iter().map(cells).collect::<Vec<Vec<String>>>())
    }
}

/// What rows are made of, besides the containers.
struct Rows<'a> {
    ps: &'a Ps,
    containers: &'a Containers<'a>,
    store: &'a Store,
    /// Ids of images by their full names.
    tags: BTreeMap<String, String>,
    with_sizes: bool,
}

impl Rows<'_> {
    fn row(&self, listed: &Listed) -> Result<Row, CliError> {
        match listed {
            Listed::Sound(container) => self.sound_row(container),
            Listed::Damaged(damaged) => Ok(self.damaged_row(damaged)),
        }
    }

    /// Row of a container whose record cannot be read.
    fn damaged_row(&self, damaged: &Damaged) -> Row {
        Row {
            command: format!("{:?}", ""),
            created_at: text::date(&damaged.created),
            id: self.id(&damaged.id),
            local_volumes: "0".to_owned(),
            names: damaged.name.clone(),
            running_for: text::age(&damaged.created),
            size: "0B".to_owned(),
            state: "dead".to_owned(),
            status: "Dead".to_owned(),
            ..Row::default()
        }
    }

    fn id(&self, id: &str) -> String {
        if self.ps.no_trunc { id.to_owned() } else { text::short(id) }
    }

    fn sound_row(&self, container: &Container) -> Result<Row, CliError> {
        let command = columns::command(container);
        let command = if self.ps.no_trunc { command } else { text::ellipsis(&command, COMMAND_WIDTH) };
        let labels: Vec<String> =
            container.settings.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let health = self.containers.health(container);
        Ok(Row {
            command: format!("{command:?}"),
            created_at: text::date(&container.created),
            health_status: health.as_ref().map_or_else(String::new, |health| health.status.name().to_owned()),
            id: self.id(&container.id),
            image: self.image(container),
            labels: labels.join(","),
            local_volumes: columns::local_volumes(container),
            mounts: columns::mounts(container, self.ps.no_trunc),
            names: container.name.clone(),
            networks: container.network_names().join(","),
            platform: kiln_image::platform::Platform::host().to_string(),
            ports: ports::column(container),
            running_for: text::age(&container.created),
            size: self.size(container)?,
            state: container.state.status().to_owned(),
            status: status(&container.state, health.as_ref()),
            all_labels: container.settings.labels.clone(),
        })
    }

    /// Name of the image as the user wrote it, or its id when the name stands for another image by now.
    fn image(&self, container: &Container) -> String {
        let name = &container.image_name;
        let Ok(reference) = name.parse::<Reference>() else { return name.clone() };
        let id = container.image.to_string();
        let is_id = id.trim_start_matches("sha256:").starts_with(name.trim_start_matches("sha256:"));
        let is_current = || self.tags.get(&reference.clone().or_latest().to_string()) == Some(&id);
        match is_id || reference.digest().is_some() || is_current() {
            true => name.clone(),
            false => self.id(&id),
        }
    }

    /// `0B (virtual 1.98MB)`: the container's own files, and those of its image with them.
    fn size(&self, container: &Container) -> Result<String, CliError> {
        if !self.with_sizes {
            return Ok("0B".to_owned());
        }
        let own = self.containers.size(container)?;
        let image = self.store.image(&container.image)?.map_or(0, |image| image.size);
        Ok(format!("{} (virtual {})", text::size(own), text::size(own + image)))
    }
}

/// `Up 2 minutes (healthy)`, `Exited (3) 5 seconds ago`.
pub(crate) fn status(state: &State, health: Option<&Health>) -> String {
    match state {
        State::Created { .. } => "Created".to_owned(),
        State::Running { started, paused, .. } => {
            let note = match health.map(|health| health.status) {
                _ if *paused => " (Paused)".to_owned(),
                None => String::new(),
                Some(HealthStatus::Starting) => " (health: starting)".to_owned(),
                Some(status) => format!(" ({})", status.name()),
            };
            format!("Up {}{note}", text::age(started).trim_end_matches(" ago"))
        }
        State::Restarting { code, finished, .. } => format!("Restarting ({code}) {}", text::age(finished)),
        State::Exited { code, finished, is_out_of_memory, .. } => {
            let reason = if *is_out_of_memory { " (out of memory)" } else { "" };
            format!("Exited ({code}) {}{reason}", text::age(finished))
        }
    }
}
