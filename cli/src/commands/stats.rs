//! Command `kiln stats`.

use super::each;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::Format;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Container, Containers, Listed, Sample};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

/// Time between two measurements.
const INTERVAL: Duration = Duration::from_millis(1000);
/// Time between the two measurements that a share of the processors is computed from at first.
const FIRST: Duration = Duration::from_millis(250);

/// Show how much of the host's resources containers use.
#[derive(Debug, Parser)]
struct Stats {
    /// Show containers that are not running, too
    #[arg(short, long)]
    all: bool,
    /// Format each container with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Measure once, and do not refresh the table
    #[arg(long)]
    no_stream: bool,
    /// Do not cut ids short
    #[arg(long)]
    no_trunc: bool,
    /// Show only these containers: names or ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const HEAD: [(&str, &str); 9] = [
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// Row of the table, with the names of Docker's fields.
#[derive(Default, Serialize)]
struct Row {
    #[serde(rename = "BlockIO")]
    block: String,
    #[serde(rename = "CPUPerc")]
    cpu: String,
    #[serde(rename = "Container")]
    container: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "MemPerc")]
    memory_percent: String,
    #[serde(rename = "MemUsage")]
    memory: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "NetIO")]
    network: String,
    #[serde(rename = "PIDs")]
    pids: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Stats as clap::CommandFactory>::command()
}

/// Prints measurements, on a terminal again and again in the same place.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let stats: Stats = arguments::parse("stats", arguments)?;
    let format = Format::read::<Row>(stats.format.as_deref(), &HEAD)?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    session::warn_of_damaged(&containers)?;
    let mut last = measured(&stats.chosen(&containers)?, &containers);
    std::thread::sleep(FIRST);
    loop {
        let chosen = stats.chosen(&containers)?;
        let now = measured(&chosen, &containers);
        let rows: Vec<Row> = chosen
            .iter()
            .map(|(typed, container)| {
                stats.row(typed, container, last.get(&container.id), now.get(&container.id))
            })
            .collect();
        if !stats.no_stream {
            ui::clear_answer();
        }
        format.print(&rows, || table(&rows))?;
        if stats.no_stream || ui::lost_answer().is_some() {
            return Ok(0);
        }
        last = now;
        std::thread::sleep(INTERVAL);
    }
}

/// Measurements of the containers that run, by id.
fn measured(chosen: &[(String, Box<Container>)], containers: &Containers<'_>) -> BTreeMap<String, Sample> {
    let sample = |container: &Container| containers.live(container).and_then(|live| live.sample()).ok();
    chosen.iter().filter_map(|(_, one)| Some((one.id.clone(), sample(one)?))).collect()
}

impl Stats {
    /// Containers to show, each with the name that the user typed.
    fn chosen(&self, containers: &Containers<'_>) -> Result<Vec<(String, Box<Container>)>, CliError> {
        if !self.containers.is_empty() {
            return self
                .containers
                .iter()
                .map(|name| Ok((name.clone(), each::find(containers, name)?)))
                .collect();
        }
        let listed = containers.list()?.into_iter().filter(|one| self.all || one.is_running());
        let sound = listed.filter_map(|one| match one {
            Listed::Sound(container) => Some((self.id(&container), container)),
            Listed::Damaged(_) => None,
        });
        Ok(sound.collect())
    }

    fn id(&self, container: &Container) -> String {
        if self.no_trunc { container.id.clone() } else { text::short(&container.id) }
    }

    /// Row of a container; `None` for one that does not run.
    fn row(&self, typed: &str, container: &Container, before: Option<&Sample>, now: Option<&Sample>) -> Row {
        let pair = |a: u64, b: u64| format!("{} / {}", text::size(a), text::size(b));
        let cpu = now.zip(before).map_or(0.0, |(now, before)| now.cpu_since(before));
        let of = |value: &dyn Fn(&Sample) -> u64| now.map_or(0, value);
        Row {
            block: pair(of(&|now| now.read), of(&|now| now.written)),
            cpu: format!("{cpu:.2}%"),
            container: typed.to_owned(),
            id: self.id(container),
            memory_percent: format!("{:.2}%", now.map_or(0.0, Sample::memory_percent)),
            memory: format!(
                "{} / {}",
                text::binary_size(of(&|now| now.memory)),
                text::binary_size(of(&|now| now.limit))
            ),
            name: container.name.clone(),
            network: pair(of(&|now| now.received), of(&|now| now.sent)),
            pids: of(&|now| now.pids).to_string(),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let columns = [
            &row.id,
            &row.name,
            &row.cpu,
            &row.memory,
            &row.memory_percent,
            &row.network,
            &row.block,
            &row.pids,
        ];
        columns.map(Clone::clone).to_vec()
    };
    let head =
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    text::table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}
