//! `kiln images`.

pub mod filter;

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::Format;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use filter::{Filter, OF_LIST};
use kiln_image::reference::Reference;
use kiln_image::store::{ImageRecord, Store};
use serde::Serialize;
use std::ffi::OsString;

/// List images.
#[derive(Debug, Parser)]
struct Images {
    /// Accept the flag as Docker does; no images are hidden without it
    #[arg(short, long)]
    all: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut ids short
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show only these: dangling=true|false, before=IMAGE, since=IMAGE, until=TIME, label=NAME[=VALUE] or
    /// reference=PATTERN; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each image with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show only this repository, or this tag of it; * and ? stand for other characters
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

const NONE: &str = "<none>";
const HEAD: [(&str, &str); 7] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];

/// Row of the list, with the names of Docker's fields.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    containers: &'static str,
    created_at: String,
    created_since: String,
    digest: String,
    #[serde(rename = "ID")]
    id: String,
    repository: String,
    shared_size: &'static str,
    size: String,
    tag: String,
    unique_size: &'static str,
    virtual_size: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Images as clap::CommandFactory>::command()
}

/// Prints the images of the store, the newest first.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let images: Images = arguments::parse("images", arguments)?;
    let format = Format::read::<Row>(images.format.as_deref(), &HEAD)?;
    let by_name = images.name.iter().map(|name| format!("reference={}", familiar(name)));
    let filter = Filter::read(&images.filter.iter().cloned().chain(by_name).collect::<Vec<_>>(), OF_LIST)?;
    let session = Session::open(globals)?;
    let rows = images.rows(&session.store, &filter)?;
    if images.quiet && images.format.is_none() {
        rows.iter().for_each(|row| ui::line(&row.id));
        return Ok(0);
    }
    if rows.is_empty() && images.name.as_deref() == Some("ls") {
        ui::tell_line("No images found matching \"ls\": did you mean \"kiln image ls\"?");
    }
    format.print(&rows, || images.table(&rows))?;
    Ok(0)
}

/// The short form of a name, as patterns match it.
fn familiar(name: &str) -> String {
    match name.parse::<Reference>() {
        Ok(name) if name.tag().is_some() => name.familiar(),
        Ok(name) => name.familiar_repository(),
        Err(_) => name.to_owned(),
    }
}

impl Images {
    fn table(&self, rows: &[Row]) -> String {
        let cells = |row: &Row| {
            let mut cells = vec![row.repository.clone(), row.tag.clone()];
            cells.extend(self.digests.then(|| row.digest.clone()));
            cells.extend([&row.id, &row.created_since, &row.size].map(Clone::clone));
            cells
        };
        let mut head = vec!["REPOSITORY", "TAG"];
        head.extend(self.digests.then_some("DIGEST"));
        head.extend(["IMAGE ID", "CREATED", "SIZE"]);
        text::table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
    }

    fn rows(&self, store: &Store, filter: &Filter) -> Result<Vec<Row>, CliError> {
        let mut images = filter.take(store, store.images()?)?;
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        let tags = store.tags()?;
        let mut rows = Vec::new();
        for image in &images {
            let digests = store.repo_digests(&image.id)?;
            let own = tags.iter().filter(|tag| tag.image == image.id);
            let mut names: Vec<Reference> = own.filter_map(|tag| tag.reference.parse().ok()).collect();
            for (repository, _) in &digests {
                // Pulled by digest: it has a repository, and no tag.
                if !names.iter().any(|name| name.repository() == *repository) {
                    names.extend(repository.parse::<Reference>());
                }
            }
            if filter.dangling().is_some_and(|dangling| dangling != names.is_empty()) {
                continue;
            }
            names.retain(|name| filter.takes_name(name));
            let digest_of = |name: &Reference| {
                let found = digests.iter().find(|(repository, _)| *repository == name.repository());
                found.map_or_else(|| NONE.to_owned(), |(_, digest)| digest.to_string())
            };
            if names.is_empty() && !filter.has_references() {
                rows.push(self.row(image, NONE.to_owned(), NONE.to_owned(), NONE.to_owned()));
            }
            rows.extend(names.iter().map(|name| {
                let tag = name.tag().unwrap_or(NONE).to_owned();
                self.row(image, name.familiar_repository(), tag, digest_of(name))
            }));
        }
        Ok(rows)
    }

    fn row(&self, image: &ImageRecord, repository: String, tag: String, digest: String) -> Row {
        let id = image.id.to_string();
        Row {
            containers: "N/A",
            created_at: text::date(&image.created),
            created_since: text::age(&image.created),
            digest,
            id: if self.no_trunc { id } else { text::short(&id) },
            repository,
            shared_size: "N/A",
            size: text::size(image.size),
            tag,
            unique_size: "N/A",
            virtual_size: text::size(image.size),
        }
    }
}
