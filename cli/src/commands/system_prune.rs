//! Command `kiln system prune`.

use super::images::filter::{Filter, OF_CONTAINERS};
use super::{container_prune, image_prune, network_prune, volume_prune};
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::{text, ui};
use clap::Parser;
use kiln_engine::{Containers, PrunedVolumes};
use std::ffi::OsString;

/// Remove stopped containers, networks and images that are not used, the build cache, and with --volumes volumes without
/// a name.
#[derive(Debug, Parser)]
struct Prune {
    /// Remove all images that no container uses, not only those without a name, and the caches of RUN steps
    #[arg(short, long)]
    all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    force: bool,
    /// Remove volumes without a name that no container uses, too
    #[arg(long)]
    volumes: bool,
    /// Remove only containers, networks, images and volumes with until=TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]; may be repeated
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
    if prune.volumes && filter.has_until() {
        return Err(CliError::failed("the \"until\" filter is not supported with \"--volumes\"")
            .hint("prune volumes by themselves: kiln volume prune"));
    }
    let session = Session::open(globals)?;
    if !prune.force && !ui::confirm(&prune.warning())? {
        return Ok(0);
    }
    let store = &session.store;
    let containers = Containers::open(store)?;
    let removed = container_prune::remove(&containers, &filter)?;
    removed.print();
    let gap = |is_first: bool| if is_first { "" } else { "\n" };
    let mut is_first = removed.ids.is_empty();
    let networks = network_prune::remove(&containers, &filter)?;
    if !is_first && !networks.is_empty() {
        ui::line("");
    }
    network_prune::print(&networks);
    is_first &= networks.is_empty();
    let mut volumes = PrunedVolumes::default();
    if prune.volumes {
        volumes = containers
            .prune_volumes(|volume| volume.anonymous && filter.takes_labels(&volume.shown_labels()))?;
        volume_prune::print(&volumes, gap(is_first));
    }
    is_first &= volumes.names.is_empty();
    let before = store.layer_bytes()? + store.cache_dirs()?.bytes;
    let images = image_prune::remove(&session, &containers, &filter, prune.all)?;
    image_prune::print(&images, gap(is_first));
    if prune.removes_cache() {
        store.prune_steps()?;
        if prune.all {
            store.remove_caches()?;
        }
    }
    let freed = before.saturating_sub(store.layer_bytes()? + store.cache_dirs()?.bytes);
    let bytes = removed.bytes + volumes.bytes + freed;
    let gap = gap(is_first && images.is_empty());
    ui::line(&format!("{gap}Total reclaimed space: {}", text::size(bytes)));
    Ok(volume_prune::report_failures(volumes))
}

impl Prune {
    /// The build cache has neither labels nor times that filters could mean.
    fn removes_cache(&self) -> bool {
        self.filter.iter().all(String::is_empty)
    }

    fn warning(&self) -> String {
        let mut lines = vec!["all stopped containers", "all networks not used by at least one container"];
        if self.volumes {
            lines.push("all anonymous volumes not used by at least one container");
        }
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
