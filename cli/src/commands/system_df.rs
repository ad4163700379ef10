//! Command `kiln system df`.

mod details;

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::Format;
use crate::session::{self, Session};
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Container, Containers, Listed, UsedVolume};
use kiln_image::digest::DiffId;
use kiln_image::store::{ImageRecord, LayerRecord, Store};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// Show how much space images, containers, volumes and the build cache use.
#[derive(Debug, Parser)]
struct Df {
    /// Format each type with a Go template, as `table …` or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show every image, container, volume and layer of the build cache
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
}

const HEAD: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// Row of the table, with the names of Docker's fields.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    active: String,
    reclaimable: String,
    size: String,
    total_count: String,
    r#type: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Df as clap::CommandFactory>::command()
}

/// Prints a table of types, or of everything.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let df: Df = arguments::parse("system df", arguments)?;
    let format = Format::read::<Row>(df.format.as_deref(), &HEAD)?;
    let session = Session::open(globals)?;
    let used = Used::read(&session.store)?;
    if df.verbose {
        ui::print(&details::text(&used, &session.store)?);
        return Ok(0);
    }
    let rows = used.rows();
    format.print(&rows, || {
        let cells = |row: &Row| {
            [&row.r#type, &row.total_count, &row.active, &row.size, &row.reclaimable]
                .map(Clone::clone)
                .to_vec()
        };
        text::table(&HEAD.map(|(_, head)| head), &rows.iter().map(cells).collect::<Vec<_>>())
    })?;
    Ok(0)
}

/// What the store contains, and what uses it.
struct Used {
    images: Vec<UsedImage>,
    /// Containers with the size of their files.
    containers: Vec<(Container, u64)>,
    /// Volumes with the size of their files.
    volumes: Vec<(UsedVolume, u64)>,
    /// Layers by diff id.
    layers: BTreeMap<DiffId, LayerRecord>,
    /// Layers that only the build cache uses.
    cache: Vec<LayerRecord>,
    /// Number and bytes of directories of RUN --mount=type=cache.
    cache_dirs: (usize, u64),
}

/// An image with its layers, and the number of its containers.
struct UsedImage {
    record: ImageRecord,
    layers: Vec<DiffId>,
    containers: usize,
}

impl Used {
    fn read(store: &Store) -> Result<Used, CliError> {
        let all = Containers::open(store)?;
        let listed = all.list()?;
        session::warn_of_damage(&listed);
        let mut containers = Vec::new();
        for one in listed {
            if let Listed::Sound(container) = one {
                let size = all.size(&container)?;
                containers.push((*container, size));
            }
        }
        let mut volumes = Vec::new();
        for used in all.volumes()? {
            let size = all.volume_size(&used.volume.name)?;
            volumes.push((used, size));
        }
        let mut images = Vec::new();
        for record in store.images()? {
            let layers = store.read_image(record.clone())?.config.rootfs.diff_ids;
            let count = containers.iter().filter(|(container, _)| container.image == record.id).count();
            images.push(UsedImage { record, layers, containers: count });
        }
        let of_images: BTreeSet<&DiffId> = images.iter().flat_map(|image| &image.layers).collect();
        let (mut layers, mut cache) = (BTreeMap::new(), Vec::new());
        for layer in store.layers()? {
            match &layer.diff_id {
                Some(diff_id) if of_images.contains(diff_id) => {
                    layers.insert(diff_id.clone(), layer);
                }
                _ => cache.push(layer),
            }
        }
        let dirs = store.cache_dirs()?;
        Ok(Used { images, containers, volumes, layers, cache, cache_dirs: (dirs.count, dirs.bytes) })
    }

    /// Size of layers, each counted once.
    fn size_of<'a>(&self, diff_ids: impl Iterator<Item = &'a DiffId>) -> u64 {
        let unique: BTreeSet<&DiffId> = diff_ids.collect();
        unique.into_iter().filter_map(|diff_id| self.layers.get(diff_id)).map(|layer| layer.size).sum()
    }

    fn rows(&self) -> [Row; 4] {
        let active = || self.images.iter().filter(|image| image.containers > 0);
        let size = self.size_of(self.images.iter().flat_map(|image| &image.layers));
        let needed = self.size_of(active().flat_map(|image| &image.layers));
        let running = || self.containers.iter().filter(|(container, _)| container.state.is_running());
        let written: u64 = self.containers.iter().map(|(_, size)| size).sum();
        let kept: u64 = running().map(|(_, size)| size).sum();
        let cache = self.cache.iter().map(|layer| layer.size).sum::<u64>() + self.cache_dirs.1;
        let count = self.cache.len() + self.cache_dirs.0;
        [
            row("Images", (self.images.len(), active().count()), size, share(size - needed, size)),
            row(
                "Containers",
                (self.containers.len(), running().count()),
                written,
                share(written - kept, written),
            ),
            self.volume_row(),
            row("Build Cache", (count, 0), cache, text::size(cache)),
        ]
    }
}

impl Used {
    fn volume_row(&self) -> Row {
        let used = || self.volumes.iter().filter(|(used, _)| !used.containers.is_empty());
        let size: u64 = self.volumes.iter().map(|(_, size)| size).sum();
        let needed: u64 = used().map(|(_, size)| size).sum();
        row("Local Volumes", (self.volumes.len(), used().count()), size, share(size - needed, size))
    }
}

fn row(kind: &str, (total, active): (usize, usize), size: u64, reclaimable: String) -> Row {
    Row {
        active: active.to_string(),
        reclaimable,
        size: text::size(size),
        total_count: total.to_string(),
        r#type: kind.to_owned(),
    }
}

/// `1.2MB (50%)`; without a whole, only the size.
fn share(part: u64, whole: u64) -> String {
    match part.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!("{} ({percent}%)", text::size(part)),
        None => text::size(part),
    }
}
