//! Command `kiln system prune`.

use super::images::filter::{Filter, OF_CONTAINERS};
use super::{container_prune, image_prune};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use kiln_engine::Containers;
use std::ffi::OsString;

/// Remove stopped containers, images that are not used, and the build cache.
#[derive(Debug, Parser)]
struct Prune {
    /// Remove all images that no container uses, not only those without a name, and the caches of RUN steps
    #[arg(short, long)]
    all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
    /// Remove only containers and images with until=TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Prune as clap::CommandFactory>::command()
}

/// Lists what will be removed, asks, and removes it.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let prune: Prune = arguments::parse("system prune", arguments)?;
    let filter = Filter::read(&prune.filter, OF_CONTAINERS)?;
    let session = Session::open(globals)?;
    if !prune.force && !ui::confirm(&prune.warning())? {
        return Ok(0);
    }
    let store = &session.store;
    let containers = Containers::open(store)?;
    let removed = container_prune::remove(&containers, &filter)?;
    removed.print();
    let before = store.layer_bytes()? + store.cache_dirs()?.bytes;
    let images = image_prune::remove(&session, &containers, &filter, prune.all)?;
    image_prune::print(&images, if removed.ids.is_empty() { "" } else { "\n" });
    if prune.removes_cache() {
        store.prune_steps()?;
        if prune.all {
            store.remove_caches()?;
        }
    }
    let freed = before.saturating_sub(store.layer_bytes()? + store.cache_dirs()?.bytes);
    let gap = if removed.ids.is_empty() && images.is_empty() { "" } else { "\n" };
    ui::line(&format!("{gap}Total reclaimed space: {}", text::size(removed.bytes + freed)));
    Ok(0)
}

impl Prune {
    /// The build cache has neither labels nor times that filters could mean.
    fn removes_cache(&self) -> bool {
        self.filter.iter().all(String::is_empty)
    }

    fn warning(&self) -> String {
        let mut lines = vec!["all stopped containers"];
        lines.push(match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        });
        if self.removes_cache() {
            lines.push(if self.all { "all build cache" } else { "unused build cache" });
        }
        let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
        let filters: String = self.filter.iter().map(|text| format!("  - {text}\n")).collect();
        match filters.is_empty() {
            true => format!("WARNING! This will remove:\n{lines}"),
            false => format!(
                "WARNING! This will remove:\n{lines}\n  Items to be pruned will be filtered with:\n{filters}"
            ),
        }
    }
}
