//! Mounts of the specification as operations.

use crate::cgroup::Layout;
use crate::op::{Bytes, FilesystemMount, MountOp, MountSource};
use oci_spec::runtime::Mount;
use std::path::PathBuf;

/// A mount that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountOptionError {
    /// A bind mount of nothing.
    #[error("the bind mount on `{path}` has no source", path = .0.display())]
    NoSource(PathBuf),
    /// A mount without a type that is no bind mount either.
    #[error("the mount on `{path}` has no type", path = .0.display())]
    NoType(PathBuf),
    /// An option with a comma in it.
    #[error("the mount option `{0}` holds a comma")]
    Comma(String),
}

const READONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// What the options of a mount say, apart from those of its file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parsed {
    set: u64,
    clear: u64,
    recursive: bool,
    propagation: u64,
    bind: Option<bool>,
    data: Vec<(String, Option<String>)>,
}

impl Parsed {
    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }
}

fn parse(options: &[String]) -> Result<Parsed, MountOptionError> {
    let mut parsed = Parsed::default();
    for option in options {
        // Values reach the kernel one by one, so nothing can be smuggled in behind a comma; a path with a
        // comma is a path, any other option with one is a mistake or an attempt.
        let is_path = ["lowerdir+=", "upperdir=", "workdir="].iter().any(|key| option.starts_with(key));
        if option.contains(',') && !is_path {
            return Err(MountOptionError::Comma(option.clone()));
        }
        let recursive_name = option.strip_prefix('r').filter(|bare| attribute(bare).is_some());
        if let Some((set, clear)) = attribute(recursive_name.unwrap_or(option)) {
            parsed.recursive |= recursive_name.is_some();
            parsed.clear(clear);
            parsed.set(set);
            continue;
        }
        if let Some(propagation) = propagation(option) {
            parsed.propagation = propagation;
            continue;
        }
        match option.as_str() {
            "bind" => parsed.bind = Some(false),
            "rbind" => parsed.bind = Some(true),
            "defaults" | "async" | "rw" | "" => {}
            other => parsed.data.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    Ok(parsed)
}

/// Bits that an option sets and clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (READONLY, 0),
        "rw" => (0, READONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "noatime" => (NOATIME, ATIME),
        "strictatime" => (STRICTATIME, ATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (0, ATIME),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<u64> {
    Some(match option {
        "private" | "rprivate" => libc::MS_PRIVATE,
        "slave" | "rslave" => libc::MS_SLAVE,
        "shared" | "rshared" => libc::MS_SHARED,
        "unbindable" | "runbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    })
}

/// A mount of a file system, wherever it goes.
pub fn filesystem(mount: &Mount) -> Result<FilesystemMount, MountOptionError> {
    let parsed = parse(mount.options().as_deref().unwrap_or_default())?;
    let fstype = mount.typ().clone().ok_or_else(|| MountOptionError::NoType(mount.destination().clone()))?;
    let source = mount.source().as_ref().map_or(fstype.clone(), |source| source.display().to_string());
    Ok(FilesystemMount { fstype, source, options: parsed.data, attributes: parsed.set })
}

/// A mount below the root.
pub(super) fn mount(mount: &Mount) -> Result<MountOp, MountOptionError> {
    let target = Bytes::from(mount.destination());
    let follow = !is_system_folder(mount);
    let parsed = parse(mount.options().as_deref().unwrap_or_default())?;
    let is_bind = parsed.bind.is_some() || mount.typ().as_deref() == Some("bind");
    if !is_bind {
        return Ok(MountOp {
            target,
            source: MountSource::Filesystem(filesystem(mount)?),
            set: 0,
            clear: 0,
            recursive_attributes: false,
            propagation: parsed.propagation,
            follow,
        });
    }
    let source =
        mount.source().as_ref().ok_or_else(|| MountOptionError::NoSource(mount.destination().clone()))?;
    let recursive = parsed.bind.unwrap_or(false);
    Ok(MountOp {
        target,
        source: MountSource::Bind { path: source.into(), recursive },
        set: parsed.set,
        clear: parsed.clear,
        recursive_attributes: parsed.recursive,
        propagation: parsed.propagation,
        follow,
    })
}

/// /proc, /sys and /dev hold the rest of the set-up: a link there would lead it astray.
fn is_system_folder(mount: &Mount) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|folder| mount.destination().starts_with(folder))
}

/// The machine's control groups: one file system on version 2 machines, one for each hierarchy else.
pub(super) fn cgroup(mount: &Mount, layout: Option<&Layout>) -> Result<Vec<MountOp>, MountOptionError> {
    let unified = |target: Bytes, attributes: u64| filesystem_at(target, "cgroup2", Vec::new(), attributes);
    let parsed = parse(mount.options().as_deref().unwrap_or_default())?;
    let attributes = parsed.set;
    let top = Bytes::from(mount.destination());
    let Some(layout) = layout else { return Ok(Vec::new()) };
    if layout.is_unified_only() {
        return Ok(vec![unified(top, attributes)]);
    }
    // A read-only tmpfs could not take the folders of the hierarchies: it is made so afterwards.
    let mode = vec![("mode".to_owned(), Some("755".to_owned()))];
    let mut ops = vec![filesystem_at(top.clone(), "tmpfs", mode, attributes & !READONLY)];
    for (name, options) in layout.legacy_mounts() {
        let options = options.split(',').map(|option| (option.to_owned(), None)).collect();
        let target = mount.destination().join(name);
        ops.push(filesystem_at((&target).into(), "cgroup", options, attributes));
    }
    Ok(ops)
}

fn filesystem_at(
    target: Bytes,
    fstype: &str,
    options: Vec<(String, Option<String>)>,
    attributes: u64,
) -> MountOp {
    let source = fstype.to_owned();
    let filesystem = FilesystemMount { fstype: fstype.to_owned(), source, options, attributes };
    MountOp {
        target,
        source: MountSource::Filesystem(filesystem),
        set: 0,
        clear: 0,
        recursive_attributes: false,
        propagation: 0,
        follow: false,
    }
}

/// Makes device nodes on a mount useless.
pub(super) fn forbid_devices(op: &mut MountOp) {
    match &mut op.source {
        MountSource::Filesystem(filesystem) => filesystem.attributes |= NODEV,
        MountSource::Bind { .. } => op.set |= NODEV,
    }
}
