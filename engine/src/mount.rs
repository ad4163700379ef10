//! Mounts of a container that its user asks for: host directories, volumes, tmpfs, images.
//!
//! A mount is read from a flag (`parse`), gets its source when the container is created (`attach`), and becomes part of
//! the OCI specification at each start (`spec`).

mod attach;
mod owner;
mod parse;
mod spec;

pub use owner::ClosedMount;
pub use parse::{MountError, MountFault, mount, tmpfs, volume};
pub(crate) use spec::Opened;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A mount with its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount<S> {
    /// Source of the files.
    pub source: S,
    /// Absolute path in the container.
    pub target: String,
    /// True when programs of the container cannot write to it.
    #[serde(default)]
    pub read_only: bool,
    /// Options as written behind `-v SOURCE:TARGET:`.
    #[serde(default)]
    pub mode: String,
    /// Propagation of a host directory, such as `rslave`; `None` for the default, `rprivate`.
    #[serde(default)]
    pub propagation: Option<String>,
    /// Treatment of mounts below a host directory.
    #[serde(default)]
    pub below: Below,
    /// Path inside of the volume or image; empty for all of it.
    #[serde(default)]
    pub subpath: String,
    /// True when all files of the source get the container's user as owner.
    #[serde(default)]
    pub chown: bool,
    /// Flag that asked for the mount.
    #[serde(default)]
    pub flag: Flag,
}

/// A mount as its user asks for it.
pub type MountRequest = Mount<Wanted>;

/// A mount of a container that exists.
pub type MountPoint = Mount<Source>;

/// Source of a mount as its user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A file or directory of the host.
    Host {
        /// Absolute path of the file or directory.
        path: String,
        /// Whether a missing directory is created.
        create: bool,
    },
    /// A volume, which is created when it does not exist.
    Volume {
        /// Name of the volume; `None` for a new one without a name.
        name: Option<String>,
        /// Whether an empty volume is filled with the image's files at the target.
        copy: bool,
        /// Labels of a new volume.
        labels: BTreeMap<String, String>,
        /// Options of a new volume.
        options: BTreeMap<String, String>,
    },
    /// A file system in memory, with its mount options.
    Tmpfs(Vec<String>),
    /// Files of an image, by its name.
    Image(String),
}

/// Source of the mount of a container that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A file or directory of the host.
    Host {
        /// Absolute path of the file or directory.
        path: String,
        /// Whether a missing directory is created.
        create: bool,
    },
    /// A volume of the store.
    Volume {
        /// Name of the volume.
        name: String,
        /// True for one that was created for this container without a name.
        anonymous: bool,
    },
    /// A file system in memory, with its mount options.
    Tmpfs(Vec<String>),
    /// Files of an image.
    Image {
        /// Name of the image, as its user wrote it.
        name: String,
        /// Layers of the image by their ids in the store, lowest first.
        layers: Vec<String>,
    },
}

/// Treatment of mounts below a host directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Below {
    /// They are mounted as well, and read-only in a read-only mount.
    #[default]
    Mounted,
    /// They are not mounted.
    Omitted,
    /// They are mounted, and stay writable in a read-only mount.
    Writable,
    /// They are mounted, and were asked to be read-only by name.
    ReadOnly,
}

/// Flag that asks for a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// `-v SOURCE:TARGET`, or `-v TARGET`.
    #[default]
    Volume,
    /// `--mount KEY=VALUE,…` of the user.
    Mount,
    /// `--tmpfs TARGET` of the user.
    Tmpfs,
    /// `--volumes-from CONTAINER` of the user.
    VolumesFrom,
    /// VOLUME of the image.
    Image,
}

impl Wanted {
    /// A volume without options, filled with the image's files.
    fn volume(name: Option<String>) -> Wanted {
        Wanted::Volume { name, copy: true, labels: BTreeMap::new(), options: BTreeMap::new() }
    }
}

impl<S> Mount<S> {
    fn new(source: S, target: String, flag: Flag) -> Mount<S> {
        Mount {
            source,
            target,
            read_only: false,
            mode: String::new(),
            propagation: None,
            below: Below::default(),
            subpath: String::new(),
            chown: false,
            flag,
        }
    }

    /// The same mount with another source.
    fn with<T>(self, source: T) -> Mount<T> {
        let Mount { source: _, target, read_only, mode, propagation, below, subpath, chown, flag } = self;
        Mount { source, target, read_only, mode, propagation, below, subpath, chown, flag }
    }
}

impl MountPoint {
    /// Name of the volume; `None` for other mounts.
    pub fn volume(&self) -> Option<&str> {
        match &self.source {
            Source::Volume { name, .. } => Some(name),
            Source::Host { .. } | Source::Tmpfs(_) | Source::Image { .. } => None,
        }
    }

    /// Name of a volume that was created for the container without a name; `None` for all other mounts.
    pub fn anonymous_volume(&self) -> Option<&str> {
        self.volume().filter(|_| matches!(self.source, Source::Volume { anonymous: true, .. }))
    }
}
