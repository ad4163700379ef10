//! `-v`, `--mount` and `--tmpfs` (docker/cli `opts/mount.go`, moby `volume/mounts/linux_parser.go`).

use super::{Below, Flag, Mount, MountRequest, Wanted};
use crate::volume::{self, VolumeOptionError};
use kiln_runtime::spec::clean_path;
use std::collections::BTreeMap;
use std::path::Path;

/// A flag for a mount that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Value of `-v` that is invalid.
    #[error("invalid volume specification: '{0}': {1}")]
    Volume(String, MountFault),
    /// Value of `--mount` that is invalid.
    #[error("invalid argument {0:?} for \"--mount\" flag: {1}")]
    Mount(String, MountFault),
    /// Value of `--tmpfs` that is invalid.
    #[error("invalid argument {0:?} for \"--tmpfs\" flag: {1}")]
    Tmpfs(String, MountFault),
    /// Two mounts with one target.
    #[error("Duplicate mount point: {0}")]
    Duplicate(String),
    /// A mount over /proc or a file of it.
    #[error("`{0}` cannot be mounted on: it is part of /proc")]
    InProc(String),
    /// A host directory that does not exist.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    NoSource(String),
    /// Parsed value of the flag `--volumes-from`.
    #[error("invalid volumes-from specification: {0:?}: the mode is ro or rw")]
    VolumesFrom(String),
    /// A mount with another propagation than the mount of its source.
    #[error("path {path} is mounted on {mount} but it is not a {wanted} mount")]
    NotShared {
        /// Source of the mount.
        path: String,
        /// Mount point on the host that contains the source.
        mount: String,
        /// Propagation that the mount needs.
        wanted: &'static str,
    },
    /// A path inside of a volume or image that does not exist, or leads out of it.
    #[error("cannot access path {subpath} of {source_name}: {reason}")]
    Subpath {
        /// Path in the volume or image.
        subpath: String,
        /// Name of the volume or image.
        source_name: String,
        /// Reason of the kernel.
        reason: String,
    },
    /// A part of a volume in memory.
    #[error("volume {0} is in memory: all of it is mounted, without volume-subpath")]
    SubpathOfMemory(String),
    /// A change of owners in a volume in memory.
    #[error(
        "volume {0} is in memory: its owner is set by o=uid=UID,gid=GID when it is created, not by a mount"
    )]
    OwnerOfMemory(String),
    /// A volume over a file of the image.
    #[error("cannot mount volume over existing file, file exists {0}")]
    OverFile(String),
}

/// The part of a flag that is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountFault {
    /// More than two colons.
    #[error("too many colons: write SOURCE:TARGET:OPTIONS")]
    Colons,
    /// Nothing in front of a colon, or behind it.
    #[error("empty section between colons")]
    Empty,
    /// A target that is not absolute.
    #[error("invalid mount path: '{0}' mount path must be absolute")]
    Relative(String),
    /// The root as target.
    #[error("invalid specification: destination can't be '/'")]
    Root,
    /// An unknown option, or options that contradict each other.
    #[error("invalid mode: {0}")]
    Mode(String),
    /// A name that no volume can have.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed: to mount a host directory, write its absolute path"
    )]
    Name(String),
    /// An option of a volume that cannot be carried out.
    #[error(transparent)]
    VolumeOption(#[from] VolumeOptionError),
    /// A field without a value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    /// A key that does not exist.
    #[error("unknown option '{0}' in '{1}'")]
    Key(String, String),
    /// A value that the key does not take.
    #[error("invalid value for {0}: {1}")]
    Value(&'static str, String),
    /// A type that does not exist.
    #[error("mount type unknown: {0:?}: it is bind, volume, tmpfs or image")]
    Type(String),
    /// No target in the container.
    #[error("target is required")]
    NoTarget,
    /// A source where there must be none, or none where one is needed.
    #[error("invalid mount config for type {0:?}: field Source must{1} be empty")]
    Source(&'static str, &'static str),
    /// An option of another type.
    #[error("cannot mix '{0}' options with mount type '{1}'")]
    Mix(&'static str, &'static str),
    /// An option of a tmpfs that the kernel does not know.
    #[error("invalid tmpfs option {0:?}")]
    TmpfsOption(String),
    /// A feature of Docker that Kiln lacks.
    #[error("{0} is not supported: {1}")]
    Unsupported(String, &'static str),
}

/// Reads `-v [SOURCE:]TARGET[:OPTIONS]`. A source that begins with a dot is relative to `base`.
///
/// # Errors
/// [`MountError::Volume`] with the invalid part.
pub fn volume(text: &str, base: &Path) -> Result<MountRequest, MountError> {
    read_volume(text, base).map_err(|fault| MountError::Volume(text.to_owned(), fault))
}

/// Reads `--mount KEY=VALUE,…`. A source that begins with a dot is relative to `base`.
///
/// # Errors
/// [`MountError::Mount`] with the invalid part.
pub fn mount(text: &str, base: &Path) -> Result<MountRequest, MountError> {
    let read = fields(text).iter().try_fold(Fields::default(), |mut read, field| {
        read.add(field)?;
        Ok(read)
    });
    read.and_then(|read| read.request(base)).map_err(|fault| MountError::Mount(text.to_owned(), fault))
}

/// Reads `--tmpfs TARGET[:OPTIONS]`.
///
/// # Errors
/// [`MountError::Tmpfs`] with the invalid part.
pub fn tmpfs(text: &str) -> Result<MountRequest, MountError> {
    let read = || {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let options = options.split(',').filter(|option| !option.is_empty());
        let options: Vec<String> = options.map(str::to_owned).collect();
        match options.iter().find(|option| !is_tmpfs_option(option)) {
            Some(option) => Err(MountFault::TmpfsOption(option.clone())),
            None => Ok(Mount::new(Wanted::Tmpfs(options), target(path)?, Flag::Tmpfs)),
        }
    };
    read().map_err(|fault| MountError::Tmpfs(text.to_owned(), fault))
}

fn read_volume(text: &str, base: &Path) -> Result<MountRequest, MountFault> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return Err(MountFault::Colons);
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err(MountFault::Empty);
    }
    let [source, path, ..] = parts.as_slice() else {
        return Ok(Mount::new(Wanted::volume(None), target(text)?, Flag::Volume));
    };
    let path = target(path)?;
    let wanted = if source.starts_with(['/', '.']) {
        Wanted::Host { path: host_path(source, base), create: true }
    } else {
        volume::check_name(source).map_err(|_| MountFault::Name((*source).to_owned()))?;
        Wanted::volume(Some((*source).to_owned()))
    };
    let mut request = Mount::new(wanted, path, Flag::Volume);
    if let Some(mode) = parts.get(2) {
        request.read_mode(mode)?;
    }
    Ok(request)
}

impl MountRequest {
    /// Reads the options of `-v`: each kind at most once.
    fn read_mode(&mut self, mode: &str) -> Result<(), MountFault> {
        let invalid = || MountFault::Mode(mode.to_owned());
        let mut seen = Vec::new();
        for option in mode.split(',') {
            let kind = match option {
                "ro" | "rw" => "access",
                // Labels of SELinux, which containers do not have.
                "z" | "Z" => "label",
                "nocopy" => "copy",
                // Docker for other systems than Linux reads these.
                "consistent" | "cached" | "delegated" | "default" => "consistency",
                "U" => "owner",
                option if is_propagation(option) => "propagation",
                _ => return Err(invalid()),
            };
            if seen.contains(&kind) {
                return Err(invalid());
            }
            seen.push(kind);
            match (option, &mut self.source) {
                ("ro", _) => self.read_only = true,
                ("U", _) => self.chown = true,
                ("nocopy", Wanted::Volume { copy, .. }) => *copy = false,
                ("nocopy", _) => return Err(invalid()),
                (_, Wanted::Host { .. }) if kind == "propagation" => {
                    self.propagation = Some(option.to_owned())
                }
                _ if kind == "propagation" => return Err(invalid()),
                _ => {}
            }
        }
        self.mode = mode.to_owned();
        Ok(())
    }
}

/// Fields of one `--mount` so far.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: String,
    target: String,
    read_only: bool,
    chown: bool,
    propagation: Option<String>,
    below: Option<Below>,
    create: bool,
    copy: Option<bool>,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    volume_subpath: String,
    image_subpath: String,
    tmpfs: Vec<String>,
    /// Prefix of the first option that only one type has: `bind`, `volume`, `tmpfs` or `image`.
    own: Vec<&'static str>,
}

impl Fields {
    fn add(&mut self, field: &str) -> Result<(), MountFault> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let key = key.trim().to_ascii_lowercase();
        let text = || value.map(str::to_owned).ok_or_else(|| MountFault::NoValue(field.to_owned()));
        match key.as_str() {
            "type" => self.kind = Some(text()?.to_ascii_lowercase()),
            "source" | "src" => self.source = text()?,
            "target" | "dst" | "destination" => self.target = text()?,
            "readonly" | "ro" => self.read_only = truth("readonly", value)?,
            "readwrite" | "rw" => self.read_only = !truth("readwrite", value)?,
            "chown" | "u" => self.chown = truth("chown", value)?,
            "consistency" => drop(text()?),
            _ if key.starts_with("bind-") => self.add_bind(&key, field, value)?,
            _ if key.starts_with("volume-") => self.add_volume(&key, field, value)?,
            "tmpfs-size" => {
                let size = text()?;
                crate::quantity::bytes(&size)
                    .map_err(|_| MountFault::Value("tmpfs-size", size.clone()))
                    .map(|bytes| self.tmpfs.push(format!("size={bytes}")))?;
                self.own.push("tmpfs");
            }
            "tmpfs-mode" => {
                let mode = text()?;
                let number = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o7777);
                let number = number.ok_or(MountFault::Value("tmpfs-mode", mode))?;
                self.tmpfs.push(format!("mode={number:o}"));
                self.own.push("tmpfs");
            }
            "image-subpath" => {
                self.image_subpath = text()?;
                self.own.push("image");
            }
            _ => return Err(MountFault::Key(key, field.to_owned())),
        }
        Ok(())
    }

    fn add_bind(&mut self, key: &str, field: &str, value: Option<&str>) -> Result<(), MountFault> {
        let text = || value.map(str::to_owned).ok_or_else(|| MountFault::NoValue(field.to_owned()));
        self.own.push("bind");
        match key {
            "bind-propagation" => {
                let name = text()?;
                if !is_propagation(&name) {
                    return Err(MountFault::Value("bind-propagation", name));
                }
                self.propagation = Some(name);
            }
            "bind-nonrecursive" => {
                self.below = truth("bind-nonrecursive", value)?.then_some(Below::Omitted).or(self.below);
            }
            "bind-recursive" => {
                self.below = Some(match text()?.as_str() {
                    "enabled" => Below::Mounted,
                    "disabled" => Below::Omitted,
                    "writable" => Below::Writable,
                    "readonly" => Below::ReadOnly,
                    other => return Err(MountFault::Value("bind-recursive", other.to_owned())),
                });
            }
            "bind-create-src" => self.create = truth("bind-create-src", value)?,
            _ => return Err(MountFault::Key(key.to_owned(), field.to_owned())),
        }
        Ok(())
    }

    fn add_volume(&mut self, key: &str, field: &str, value: Option<&str>) -> Result<(), MountFault> {
        let text = || value.map(str::to_owned).ok_or_else(|| MountFault::NoValue(field.to_owned()));
        self.own.push("volume");
        match key {
            "volume-nocopy" => self.copy = Some(!truth("volume-nocopy", value)?),
            "volume-subpath" => self.volume_subpath = text()?,
            "volume-label" => {
                let label = text()?;
                let (name, value) = label.split_once('=').unwrap_or((&label, ""));
                self.labels.insert(name.to_owned(), value.to_owned());
            }
            "volume-driver" => match text()?.as_str() {
                "" | "local" => {}
                other => {
                    let what = format!("the volume driver {other}");
                    return Err(MountFault::Unsupported(what, "the only driver of volumes is `local`"));
                }
            },
            "volume-opt" => {
                let option = text()?;
                let (name, value) = option.split_once('=').unwrap_or((&option, ""));
                self.options.insert(name.to_owned(), value.to_owned());
            }
            _ => return Err(MountFault::Key(key.to_owned(), field.to_owned())),
        }
        Ok(())
    }

    fn request(self, base: &Path) -> Result<MountRequest, MountFault> {
        let kind = match self.kind.as_deref() {
            Some("bind") => "bind",
            None | Some("" | "volume") => "volume",
            Some("tmpfs") => "tmpfs",
            Some("image") => "image",
            Some("npipe" | "cluster") => {
                let what = format!("the mount type {}", self.kind.unwrap_or_default());
                return Err(MountFault::Unsupported(what, "it is not for single Linux hosts"));
            }
            Some(other) => return Err(MountFault::Type(other.to_owned())),
        };
        if self.target.is_empty() {
            return Err(MountFault::NoTarget);
        }
        if let Some(other) = self.own.iter().find(|own| **own != kind) {
            return Err(MountFault::Mix(
                match *other {
                    "bind" => "bind-*",
                    "tmpfs" => "tmpfs-*",
                    "image" => "image-*",
                    _ => "volume-*",
                },
                kind,
            ));
        }
        if self.below == Some(Below::ReadOnly) && !self.read_only {
            return Err(MountFault::Value("bind-recursive", "readonly needs readonly as well".to_owned()));
        }
        let wanted = match kind {
            "bind" => {
                if self.source.is_empty() {
                    return Err(MountFault::Source("bind", " not"));
                }
                if !self.source.starts_with(['/', '.']) {
                    return Err(MountFault::Relative(self.source));
                }
                Wanted::Host { path: host_path(&self.source, base), create: self.create }
            }
            "tmpfs" if !self.source.is_empty() => return Err(MountFault::Source("tmpfs", "")),
            "tmpfs" => Wanted::Tmpfs(self.tmpfs),
            "image" if self.source.is_empty() => return Err(MountFault::Source("image", " not")),
            "image" => Wanted::Image(self.source),
            _ => {
                // The volume's own files at a subpath are wanted, not the image's.
                let copy = self.copy.unwrap_or(self.volume_subpath.is_empty());
                volume_of(self.source, copy, self.labels, self.options)?
            }
        };
        let subpath = if kind == "image" { self.image_subpath } else { self.volume_subpath };
        if subpath.starts_with('/') || subpath.split('/').any(|name| name == "..") {
            return Err(MountFault::Value(
                "subpath",
                format!("{subpath}: it must be a relative path within the source"),
            ));
        }
        let read_only = self.read_only || kind == "image";
        let request = Mount::new(wanted, target(&self.target)?, Flag::Mount);
        Ok(Mount {
            read_only,
            propagation: self.propagation,
            below: self.below.unwrap_or_default(),
            subpath,
            chown: self.chown,
            ..request
        })
    }
}

/// The volume that `--mount` asks for; without a source, a new one.
fn volume_of(
    source: String,
    copy: bool,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
) -> Result<Wanted, MountFault> {
    let name = Some(source).filter(|name| !name.is_empty());
    if let Some(name) = &name {
        volume::check_name(name).map_err(|_| MountFault::Name(name.clone()))?;
    }
    volume::read_options(&options)?;
    Ok(Wanted::Volume { name, copy, labels, options })
}

/// Absolute path of a source on the host.
fn host_path(source: &str, base: &Path) -> String {
    clean_path(&base.join(source).to_string_lossy())
}

fn target(path: &str) -> Result<String, MountFault> {
    if !path.starts_with('/') {
        return Err(MountFault::Relative(path.to_owned()));
    }
    match clean_path(path).as_str() {
        "/" => Err(MountFault::Root),
        clean => Ok(clean.to_owned()),
    }
}

/// Value of a switch, which may have none (Go's `strconv.ParseBool`).
fn truth(key: &'static str, value: Option<&str>) -> Result<bool, MountFault> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(MountFault::Value(key, other.to_owned())),
    }
}

/// Fields of a line with commas, which may be quoted (RFC 4180).
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = fields.last_mut().expect("there is a first field");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                last.push('"');
            }
            '"' if quoted || last.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => last.push(letter),
        }
    }
    fields
}

fn is_propagation(option: &str) -> bool {
    matches!(option, "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave")
}

/// True for options of the reference engine's list (moby `sys/mount`).
fn is_tmpfs_option(option: &str) -> bool {
    const FLAGS: [&str; 19] = [
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "async",
        "private",
        "rprivate",
    ];
    const KEYS: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    match option.split_once('=') {
        Some((key, value)) => KEYS.contains(&key) && !value.is_empty(),
        None => FLAGS.contains(&option),
    }
}

#[cfg(test)]
mod tests;
