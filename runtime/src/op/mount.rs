//! Mounts: the root, file systems, parts of the host, cgroup hierarchies.

use super::{Bytes, FdSlot};
use serde::{Deserialize, Serialize};

/// The root file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootOp {
    /// A directory to mount on.
    pub path: Bytes,
    /// What to mount there; `None` for the directory itself.
    pub mount: Option<FilesystemMount>,
    /// `MOUNT_ATTR_…` bits to set on it and all mounts below.
    pub set: u64,
    /// Cut the mount that holds the directory off from its peers first: they would be shown the root.
    pub cut_off: bool,
}

/// A file system to mount: type, options for the file system, attributes of the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemMount {
    /// Such as `overlay`.
    pub fstype: String,
    /// Source name, shown in mount tables.
    pub source: String,
    /// Keys with or without a value, in order.
    pub options: Vec<(String, Option<String>)>,
    /// `MOUNT_ATTR_…` bits.
    pub attributes: u64,
}

/// Something mounted below the root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountOp {
    /// Where, from the root.
    pub target: Bytes,
    /// What.
    pub source: MountSource,
    /// `MOUNT_ATTR_…` bits to set on a bind mount.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// Applies `set` and `clear` to all mounts below too.
    pub recursive_attributes: bool,
    /// `MS_…` propagation.
    pub propagation: u64,
    /// Applies it to all mounts below too.
    pub recursive_propagation: bool,
    /// Fill a new tmpfs with what it covers.
    pub copy_up: bool,
    /// Whether links in the target are followed (inside the root). Not for /proc, /sys and /dev: a link
    /// there leads the set-up of the others astray.
    pub follow: bool,
    /// What is done with links at the ends of a bind mount's paths.
    pub links: Links,
}

/// What is done with links at the ends of a bind mount's paths, instead of following them (options of crun).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// A source that is a link is not mounted: the target becomes a link like it (`copy-symlink`).
    pub copy_source: bool,
    /// A source that is a link is mounted itself (`src-nofollow`).
    pub mount_source: bool,
    /// A target that is a link is mounted on itself (`dest-nofollow`).
    pub cover_target: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A new file system.
    Filesystem(FilesystemMount),
    /// A file or directory of the host.
    Bind {
        /// Its path.
        path: Bytes,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A detached mount that is handed over.
    Handle(FdSlot),
    /// Nothing new: a mount that is there gets other attributes.
    Remount,
}

/// Version 1 cgroup hierarchies, each in a directory of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchiesOp {
    /// Where the directories are, from the root.
    pub target: Bytes,
    /// `MOUNT_ATTR_…` bits of all of them.
    pub attributes: u64,
    /// The hierarchies.
    pub mounts: Vec<HierarchyMount>,
    /// Names of links, with what they lead to.
    pub links: Vec<(String, String)>,
}

/// One version 1 cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyMount {
    /// Its directory's name.
    pub name: String,
    /// What is in that directory.
    pub shows: HierarchyView,
}

/// The part of a version 1 hierarchy that a container is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HierarchyView {
    /// The container has no cgroup of its own in it: an empty directory.
    Nothing,
    /// The container's own cgroup, by its path.
    Cgroup(Bytes),
    /// What the cgroup namespace that was joined shows, mounted with these options, which name the hierarchy.
    Namespace(String),
}
