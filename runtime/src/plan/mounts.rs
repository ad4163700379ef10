//! Mounts of the specification as operations.

use crate::cgroup::Groups;
use crate::cgroup::Layout;
use crate::op::{
    Bytes, FilesystemMount, HierarchiesOp, HierarchyMount, HierarchyView, IdMaps, Links, MountOp,
    MountSource, SetupOp,
};
use oci_spec::runtime::Mount;
use std::path::{Path, PathBuf};

/// A mount with invalid settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountOptionError {
    /// A bind mount without a source.
    #[error("the bind mount on `{path}` has no source", path = .0.display())]
    NoSource(PathBuf),
    /// A mount that has no type and is not a bind mount.
    #[error("the mount on `{path}` has no type", path = .0.display())]
    NoType(PathBuf),
    /// A mount over a file of /proc.
    #[error("`{path}` cannot be mounted on: it is part of /proc", path = .0.display())]
    InProc(PathBuf),
    /// A mount over the container's root.
    #[error("`{path}` cannot be mounted on: it is the container's root", path = .0.display())]
    OnRoot(PathBuf),
    /// An option that other runtimes support.
    #[error("the mount option `{0}` is not supported: give the mappings as `uidMappings` and `gidMappings`")]
    Idmap(String),
    /// An option that contains a comma.
    #[error("the mount option `{0}` holds a comma")]
    Comma(String),
}

const READONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
pub(super) const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Options of a mount, apart from those of its file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parsed {
    set: u64,
    clear: u64,
    recursive: bool,
    propagation: u64,
    recursive_propagation: bool,
    bind: Option<bool>,
    remount: bool,
    copy_up: bool,
    links: Links,
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
        // Options are passed to the kernel one by one, so none can be injected behind a comma. A comma is valid in
        // paths; in any other option it is a mistake or an attack.
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
            parsed.recursive_propagation = option.starts_with('r');
            continue;
        }
        match option.as_str() {
            "bind" => parsed.bind = parsed.bind.or(Some(false)),
            "rbind" => parsed.bind = Some(true),
            "remount" => parsed.remount = true,
            "tmpcopyup" => parsed.copy_up = true,
            "copy-symlink" => parsed.links.copy_source = true,
            "src-nofollow" => parsed.links.mount_source = true,
            "dest-nofollow" => parsed.links.cover_target = true,
            // Implied by the mount's `uidMappings`.
            "idmap" | "ridmap" => {}
            other if other.starts_with("idmap=") || other.starts_with("ridmap=") => {
                return Err(MountOptionError::Idmap(option.clone()));
            }
            "defaults" | "async" | "nosync" | "loud" | "silent" | "rw" | "" => {}
            other => parsed.data.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    // The kernel changes the access time attributes only as a whole.
    if (parsed.set | parsed.clear) & ATIME != 0 {
        parsed.clear |= ATIME;
    }
    Ok(parsed)
}

/// Bits that an option sets and clears; `None` for other options.
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

pub(super) fn propagation(option: &str) -> Option<u64> {
    Some(match option {
        "private" | "rprivate" => libc::MS_PRIVATE,
        "slave" | "rslave" => libc::MS_SLAVE,
        "shared" | "rshared" => libc::MS_SHARED,
        "unbindable" | "runbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    })
}

/// Converts a mount of a file system, for any target.
pub fn filesystem(mount: &Mount) -> Result<FilesystemMount, MountOptionError> {
    let parsed = parse(mount.options().as_deref().unwrap_or_default())?;
    let fstype = mount.typ().clone().ok_or_else(|| MountOptionError::NoType(mount.destination().clone()))?;
    let source = mount.source().as_ref().map_or(fstype.clone(), |source| source.display().to_string());
    Ok(FilesystemMount { fstype, source, options: parsed.data, attributes: parsed.set })
}

/// True for mounts of a file or directory of the host.
pub(super) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.typ().as_deref() == Some("bind")
        || options.iter().any(|option| option == "bind" || option == "rbind")
}

/// Converts a mount below the root. Relative sources refer to `bundle`; `label` is the SELinux label of its files.
pub(super) fn mount(
    mount: &Mount,
    bundle: Option<&Path>,
    label: Option<&str>,
) -> Result<MountOp, MountOptionError> {
    check_proc(mount)?;
    let target = Bytes::from(mount.destination());
    let follow = !is_system_dir(mount);
    let parsed = parse(mount.options().as_deref().unwrap_or_default())?;
    let op = MountOp {
        target,
        source: MountSource::Remount,
        set: 0,
        clear: 0,
        recursive_attributes: parsed.recursive,
        propagation: parsed.propagation,
        recursive_propagation: parsed.recursive_propagation,
        copy_up: parsed.copy_up,
        follow,
        links: parsed.links,
    };
    if parsed.remount {
        return Ok(MountOp { set: parsed.set, clear: parsed.clear, ..op });
    }
    if !is_bind(mount) {
        let mut filesystem = filesystem(mount)?;
        if let Some(label) = label.filter(|_| takes_label(&filesystem.fstype)) {
            filesystem.options.push(("context".to_owned(), Some(label.to_owned())));
        }
        return Ok(MountOp {
            source: MountSource::Filesystem(filesystem),
            recursive_attributes: false,
            ..op
        });
    }
    let source =
        mount.source().as_ref().ok_or_else(|| MountOptionError::NoSource(mount.destination().clone()))?;
    let source = bundle.map_or_else(|| source.clone(), |bundle| bundle.join(source));
    let recursive = parsed.bind.unwrap_or(false);
    let source = MountSource::Bind { path: (&source).into(), recursive };
    Ok(MountOp { source, set: parsed.set, clear: parsed.clear, ..op })
}

/// True for file systems that accept one label for all their files.
fn takes_label(fstype: &str) -> bool {
    !matches!(fstype, "proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue")
}

/// Files of /proc that may be covered: those with values of the host that the container's limits are meant to change,
/// as lxcfs does.
const REPLACEABLE: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
];

/// True for targets of bind mounts that are not in /proc, or are files there whose values limits of the container change.
/// /proc itself can be covered by a proc file system.
pub fn can_be_covered(target: &Path) -> bool {
    let names = Bytes::from(target).names();
    let Some(below) = names.strip_prefix(&[b"proc".to_vec()]) else { return true };
    let below = below.join(&b'/');
    below.is_empty() || REPLACEABLE.iter().any(|name| name.as_bytes() == below)
}

/// Rejects mounts over other files of /proc: set-up and programs rely on them.
fn check_proc(mount: &Mount) -> Result<(), MountOptionError> {
    if is_top(mount.destination()) {
        return Err(MountOptionError::OnRoot(mount.destination().clone()));
    }
    let names = Bytes::from(mount.destination()).names();
    let Some(below) = names.strip_prefix(&[b"proc".to_vec()]) else { return Ok(()) };
    let below = below.join(&b'/');
    let is_proc = mount.typ().as_deref() == Some("proc");
    // Binds on /proc itself are checked when they are mounted: they must be of a proc file system.
    let allowed = if below.is_empty() {
        is_proc || is_bind(mount)
    } else {
        is_bind(mount) && REPLACEABLE.iter().any(|name| name.as_bytes() == below)
    };
    if allowed { Ok(()) } else { Err(MountOptionError::InProc(mount.destination().clone())) }
}

/// True for /proc, /sys and /dev: the rest of the set-up is below them, and a link there would redirect it.
fn is_system_dir(mount: &Mount) -> bool {
    let names = Bytes::from(mount.destination()).names();
    names.first().is_some_and(|first| matches!(first.as_slice(), b"proc" | b"sys" | b"dev"))
}

/// True for `/` in any spelling.
pub(super) fn is_top(path: &Path) -> bool {
    path.is_absolute() && Bytes::from(path).names().is_empty()
}

/// The container's cgroups: one file system on version 2 hosts, otherwise one for each hierarchy.
pub(super) fn cgroup(
    mount: &Mount,
    layout: Option<&Layout>,
    groups: &Groups,
    view: GroupView,
) -> Result<Vec<SetupOp>, MountOptionError> {
    let attributes = parse(mount.options().as_deref().unwrap_or_default())?.set;
    let top = Bytes::from(mount.destination());
    let Some(layout) = layout else { return Ok(Vec::new()) };
    if layout.is_unified_only() {
        let own = layout.unified_own();
        let op = match groups.unified_path().or(own.as_deref()).filter(|_| view == GroupView::Named) {
            Some(path) => bind_at(top, path, attributes),
            None => filesystem_at(top, "cgroup2", Vec::new(), attributes),
        };
        return Ok(vec![SetupOp::Mount(op)]);
    }
    Ok(vec![SetupOp::Hierarchies(hierarchies(top, layout, groups, view, attributes))])
}

/// Source of the cgroups that a container can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupView {
    /// A new cgroup namespace, rooted at the container's cgroups.
    New,
    /// A cgroup namespace of other processes, with an arbitrary root.
    Joined,
    /// No cgroup namespace: the paths of the container's cgroups.
    Named,
}

/// All version 1 hierarchies. A container without its own cgroup is in its caller's, which would show the cgroups of
/// the whole host: it gets empty directories.
fn hierarchies(
    target: Bytes,
    layout: &Layout,
    groups: &Groups,
    view: GroupView,
    attributes: u64,
) -> HierarchiesOp {
    let mut op = HierarchiesOp { target, attributes, mounts: Vec::new(), links: Vec::new() };
    for hierarchy in layout.legacy_mounts() {
        // Programs look for each controller by its own name.
        let names = hierarchy.name.split(',').filter(|name| *name != hierarchy.name);
        op.links.extend(names.map(|name| (name.to_owned(), hierarchy.name.clone())));
        let shows = match groups.legacy_path(&hierarchy) {
            _ if view == GroupView::Joined => HierarchyView::Namespace(hierarchy.joined_options()),
            Some(path) => HierarchyView::Cgroup(path.into()),
            None => HierarchyView::Nothing,
        };
        op.mounts.push(HierarchyMount { name: hierarchy.name, shows });
    }
    op
}

fn bind_at(target: Bytes, path: &Path, attributes: u64) -> MountOp {
    let source = MountSource::Bind { path: path.into(), recursive: false };
    MountOp { source, set: attributes, ..filesystem_at(target, "", Vec::new(), 0) }
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
        recursive_propagation: false,
        copy_up: false,
        follow: false,
        links: Links::default(),
    }
}

/// Makes a read-only tmpfs writable, since nothing could be mounted or copied into it. True when it was to be
/// read-only.
pub(super) fn take_readonly(op: &mut MountOp) -> bool {
    let MountSource::Filesystem(filesystem) = &mut op.source else { return false };
    let is_readonly = filesystem.fstype == "tmpfs" && filesystem.attributes & READONLY != 0;
    if is_readonly {
        filesystem.attributes &= !READONLY;
    }
    is_readonly
}

/// Removes the `gid` option of devpts when the user namespace does not map that gid (usually 5, tty).
pub(super) fn leave_out_group(op: &mut MountOp, users: &IdMaps) {
    let MountSource::Filesystem(filesystem) = &mut op.source else { return };
    let exists = |group: u32| users.groups.iter().any(|range| range.holds(group));
    if filesystem.fstype == "devpts" {
        filesystem.options.retain(|(key, value)| {
            let group = value.as_ref().filter(|_| key == "gid").and_then(|value| value.parse().ok());
            group.is_none_or(exists)
        });
    }
}

/// Makes the mount at `target` read-only.
pub(super) fn make_readonly(target: Bytes) -> MountOp {
    MountOp { source: MountSource::Remount, set: READONLY, ..filesystem_at(target, "", Vec::new(), 0) }
}

/// Adds `nodev`: device nodes on the mount cannot be opened.
pub(super) fn forbid_devices(op: &mut MountOp) {
    match &mut op.source {
        MountSource::Filesystem(filesystem) => filesystem.attributes |= NODEV,
        MountSource::Bind { .. } | MountSource::Handle(_) => op.set |= NODEV,
        MountSource::Remount => {}
    }
}
