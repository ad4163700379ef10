//! Columns of `kiln ps` that are made of several values: the command and mounts.

use crate::text;
use kiln_engine::Container;
use kiln_engine::mount::{Flag, MountPoint, Source};

/// Longest name of a mount in a list.
const MOUNT_WIDTH: usize = 15;

/// The program and its arguments, those with blanks in quotes (moby `daemon/list.go`).
pub(super) fn command(container: &Container) -> String {
    let quoted = |argument: String| match argument.contains(' ') {
        true => format!("'{argument}'"),
        false => argument,
    };
    let mut arguments = container.settings.arguments().into_iter();
    let program = arguments.next().into_iter();
    program.chain(arguments.map(quoted)).collect::<Vec<_>>().join(" ")
}

/// Mounts of a container, except those of `--tmpfs`, which Docker does not list.
fn listed(container: &Container) -> impl Iterator<Item = &MountPoint> {
    container.settings.mounts.iter().filter(|mount| mount.flag != Flag::Tmpfs)
}

/// Names of volumes and sources of other mounts.
pub(super) fn mounts(container: &Container, no_trunc: bool) -> String {
    let names = listed(container).map(|mount| match &mount.source {
        Source::Host { path, .. } => path.as_str(),
        Source::Volume { name, .. } | Source::Image { name, .. } => name.as_str(),
        Source::Tmpfs(_) => "",
    });
    let cut = |name: &str| if no_trunc { name.to_owned() } else { text::ellipsis(name, MOUNT_WIDTH) };
    names.map(cut).collect::<Vec<_>>().join(",")
}

/// Number of volumes.
pub fn local_volumes(container: &Container) -> String {
    listed(container).filter(|mount| mount.volume().is_some()).count().to_string()
}

/// True when a volume of this name, or a mount with this target, is among the container's.
pub(super) fn has_volume(container: &Container, wanted: &str) -> bool {
    listed(container).any(|mount| mount.volume() == Some(wanted) || mount.target == wanted)
}
