//! Mounts: the root, file systems, bind mounts of the host, cgroup hierarchies.

use super::{Bytes, FdSlot};
use serde::{Deserialize, Serialize};

/// The root file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootOp {
    /// Directory that becomes the root, or on which it is mounted.
    pub path: Bytes,
    /// File system to mount there; `None` for the directory itself.
    pub mount: Option<FilesystemMount>,
    /// `MOUNT_ATTR_…` bits to set on it and all mounts below.
    pub set: u64,
    /// First cut the mount that contains the directory off from its peers, to which the root would propagate.
    pub cut_off: bool,
}

/// A file system to mount: type, options for the file system, attributes of the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemMount {
    /// Type of the file system, such as `overlay`.
    pub fstype: String,
    /// Source name, shown in mount tables.
    pub source: String,
    /// Keys with or without a value, in order.
    pub options: Vec<(String, Option<String>)>,
    /// `MOUNT_ATTR_…` bits of the mount.
    pub attributes: u64,
}

/// A mount below the root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountOp {
    /// Mount target, from the root.
    pub target: Bytes,
    /// Source of the mount.
    pub source: MountSource,
    /// `MOUNT_ATTR_…` bits to set on a bind mount.
    pub set: u64,
    /// `MOUNT_ATTR_…` bits to clear.
    pub clear: u64,
    /// Apply `set` and `clear` to all mounts below as well.
    pub recursive_attributes: bool,
    /// Propagation as `MS_…` bits; 0 keeps it.
    pub propagation: u64,
    /// Apply the propagation to all mounts below as well.
    pub recursive_propagation: bool,
    /// Fill a new tmpfs with the content that it covers.
    pub copy_up: bool,
    /// Whether links in the target are followed (inside the root). Not for /proc, /sys and /dev: a link there would
    /// redirect later mounts.
    pub follow: bool,
    /// Treatment of links at the ends of a bind mount's paths.
    pub links: Links,
}

/// Treatment of links at the ends of a bind mount's paths, instead of following them (options of crun).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// A source that is a link is not mounted: the target becomes the same link (`copy-symlink`).
    pub copy_source: bool,
    /// A source that is a link is mounted itself (`src-nofollow`).
    pub mount_source: bool,
    /// A target that is a link is covered itself (`dest-nofollow`).
    pub cover_target: bool,
}

/// Source of a mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A new file system.
    Filesystem(FilesystemMount),
    /// A file or directory of the host.
    Bind {
        /// Path on the host.
        path: Bytes,
        /// Include the mounts below it.
        recursive: bool,
    },
    /// A detached mount that the parent passes.
    Handle(FdSlot),
    /// No new mount: an existing mount gets other attributes.
    Remount,
}

/// Version 1 cgroup hierarchies, each in a separate directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchiesOp {
    /// Directory of the hierarchies, from the root.
    pub target: Bytes,
    /// `MOUNT_ATTR_…` bits of all of them.
    pub attributes: u64,
    /// Hierarchies with their directories.
    pub mounts: Vec<HierarchyMount>,
    /// Names of symbolic links, with their targets.
    pub links: Vec<(String, String)>,
}

/// One version 1 cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyMount {
    /// Name of its directory.
    pub name: String,
    /// Content of the directory.
    pub shows: HierarchyView,
}

/// Part of a version 1 hierarchy that a container can see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HierarchyView {
    /// An empty directory: the container has no cgroup in the hierarchy.
    Nothing,
    /// The container's cgroup, by its path.
    Cgroup(Bytes),
    /// Root of the joined cgroup namespace, mounted with these options, which name the hierarchy.
    Namespace(String),
}
