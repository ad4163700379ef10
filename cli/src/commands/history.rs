//! `kiln history`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::Format;
use crate::missing;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use kiln_image::config::History;
use kiln_image::store::{Image, Store};
use serde::Serialize;
use std::ffi::OsString;

/// Show the steps that made an image.
#[derive(Debug, Parser)]
struct Arguments {
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut ids and instructions short
    #[arg(long)]
    no_trunc: bool,
    /// Show sizes and times in a form for people
    #[arg(short = 'H', long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: String,
    /// Format each step with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the steps of this image: a name or an id
    image: String,
}

const HEAD: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
const WIDTH: usize = 45;

/// Row of the list, with the names of Docker's fields.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    comment: String,
    created_at: String,
    created_by: String,
    created_since: String,
    #[serde(rename = "ID")]
    id: String,
    size: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Prints the steps of an image, the newest first.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let arguments: Arguments = arguments::parse("history", arguments)?;
    let format = Format::read::<Row>(arguments.format.as_deref(), &HEAD)?;
    let human = match arguments.human.as_str() {
        "true" | "1" | "t" => true,
        "false" | "0" | "f" => false,
        other => return Err(CliError::Flags(format!("invalid value {other:?} for --human"), Vec::new())),
    };
    let session = Session::open(globals)?;
    let found = session.store.resolve(&arguments.image);
    let found = found.map_err(|error| missing::image(&session.store, error))?;
    let image = session.store.read_image(found)?;
    let rows = arguments.rows(&session.store, &image, human)?;
    if arguments.quiet && arguments.format.is_none() {
        rows.iter().for_each(|row| ui::line(&row.id));
        return Ok(0);
    }
    let usual = || {
        let created = |row: &Row| if human { row.created_since.clone() } else { row.created_at.clone() };
        let cells = |row: &Row| {
            vec![row.id.clone(), created(row), row.created_by.clone(), row.size.clone(), row.comment.clone()]
        };
        let head = ["IMAGE", if human { "CREATED" } else { "CREATED AT" }, "CREATED BY", "SIZE", "COMMENT"];
        text::table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
    };
    format.print(&rows, usual)?;
    Ok(0)
}

impl Arguments {
    fn rows(&self, store: &Store, image: &Image, human: bool) -> Result<Vec<Row>, CliError> {
        let diff_ids = &image.config.rootfs.diff_ids;
        let mut layers = diff_ids.iter().enumerate();
        let mut rows = Vec::new();
        for entry in &image.config.history {
            let layer = if entry.empty_layer { None } else { layers.next() };
            let size = match layer {
                Some((at, diff_id)) => {
                    store.find_layer(diff_id, &diff_ids[..at])?.map_or(0, |layer| layer.size)
                }
                None => 0,
            };
            rows.push(self.row(entry, size, human));
        }
        rows.reverse();
        if let Some(newest) = rows.first_mut() {
            let id = image.record.id.to_string();
            newest.id = if self.no_trunc { id } else { text::short(&id) };
        }
        Ok(rows)
    }

    fn row(&self, entry: &History, size: u64, human: bool) -> Row {
        let created = entry.created.as_deref().unwrap_or_default();
        let by = entry.created_by.replace('\t', " ");
        Row {
            comment: entry.comment.clone(),
            created_at: text::seconds(created),
            created_by: if self.no_trunc { by } else { text::ellipsis(&by, WIDTH) },
            created_since: text::age(created),
            id: "<missing>".to_owned(),
            size: if human { text::size(size) } else { size.to_string() },
        }
    }
}
