//! Cgroup hierarchies of a host, and the cgroups of this process in them.

use super::{CgroupError, write};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Mounted hierarchies, and this process's cgroup in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    unified: Option<Hierarchy>,
    /// Controllers of the version 2 hierarchy, once they were read.
    unified_controllers: OnceLock<Vec<String>>,
    legacy: Vec<LegacyHierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// Cgroup of this process, below the mount.
    own: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LegacyHierarchy {
    controllers: Vec<String>,
    place: Hierarchy,
}

/// A mounted version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyMount {
    /// Name of its directory below /sys/fs/cgroup.
    pub name: String,
    /// Its controllers, or its own name as `name=…`.
    pub controllers: Vec<String>,
}

impl LegacyMount {
    /// Options for mounting it again, separated by commas.
    pub fn joined_options(&self) -> String {
        let option = |controller: &String| match controller.strip_prefix("name=") {
            Some(_) => format!("none,{controller}"),
            None => controller.clone(),
        };
        self.controllers.iter().map(option).collect::<Vec<_>>().join(",")
    }
}

impl Layout {
    /// Detects the hierarchies of this host.
    pub fn detect() -> Layout {
        let own = read_record("/proc/self/cgroup", 2 << 10);
        Layout::unified_as_usual(&own).unwrap_or_else(|| Layout::parse(&read_mounts(), &own))
    }

    /// Detects a host with version 2 at its usual mount point, seen from its root, without reading the list of mounts,
    /// which grows with every container. All runtimes leave version 1 hierarchies mounted elsewhere to their special
    /// purposes. `None` for all other hosts.
    fn unified_as_usual(own: &str) -> Option<Layout> {
        const MOUNT: &str = "/sys/fs/cgroup";
        const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
        /// Inode number of a hierarchy's root directory (kernfs).
        const TOP: u64 = 1;
        let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let usual = rustix::fs::statfs(MOUNT).ok()?.f_type == CGROUP2_SUPER_MAGIC
            && rustix::fs::stat(MOUNT).ok()?.st_ino == TOP;
        usual.then(|| Layout { unified: Some(place(MOUNT, "/", group)), ..Layout::default() })
    }

    /// Parses `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)).
    fn parse(mounts: &str, own: &str) -> Layout {
        let mut layout = Layout::default();
        for line in mounts.lines() {
            let Some((head, tail)) = line.split_once(" - ") else { continue };
            let head: Vec<&str> = head.split(' ').collect();
            let tail: Vec<&str> = tail.split(' ').collect();
            let (Some(root), Some(mount), Some(kind)) = (head.get(3), head.get(4), tail.first()) else {
                continue;
            };
            let options = tail.get(2).copied().unwrap_or_default();
            match *kind {
                "cgroup2" if layout.unified.is_none() => {
                    layout.unified = Some(place(mount, root, own_group(own, "")));
                }
                "cgroup" => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| {
                            !matches!(*option, "rw" | "ro" | "xattr" | "none" | "clone_children")
                        })
                        .filter(|option| !option.starts_with("release_agent="))
                        .map(str::to_owned)
                        .collect();
                    let Some(first) = controllers.first() else { continue };
                    let place = place(mount, root, own_group(own, first));
                    // A hierarchy that is mounted several times counts once, at its first mount point; the path leads
                    // to the last mount there.
                    let known = layout.legacy.iter_mut().find(|known| known.controllers == controllers);
                    match known {
                        Some(known) if known.place.mount == place.mount => known.place = place,
                        Some(_) => {}
                        None => layout.legacy.push(LegacyHierarchy { controllers, place }),
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// True when a controller belongs to the version 2 hierarchy.
    pub(super) fn is_unified(&self, controller: &str) -> bool {
        self.unified_controllers().iter().any(|known| known == controller)
    }

    /// Directory in the version 2 hierarchy below which cgroups are created; `None` without the hierarchy.
    ///
    /// On a pure version 2 host cgroups are created beside this process, not below it: a cgroup with processes cannot
    /// enable controllers for its children.
    pub(super) fn unified_dir(&self) -> Option<PathBuf> {
        let unified = self.unified.as_ref()?;
        let own = match unified.own.parent() {
            Some(parent) if self.legacy.is_empty() => parent,
            _ => &unified.own,
        };
        Some(unified.mount.join(own))
    }

    /// Directories of this process in all version 1 hierarchies.
    pub(super) fn legacy_dirs(&self) -> Vec<PathBuf> {
        self.legacy.iter().map(|hierarchy| hierarchy.place.mount.join(&hierarchy.place.own)).collect()
    }

    /// Mounted version 1 hierarchies of the host.
    pub fn legacy_mounts(&self) -> Vec<LegacyMount> {
        self.legacy
            .iter()
            .filter_map(|hierarchy| {
                let name = hierarchy.place.mount.file_name()?.to_str()?.to_owned();
                Some(LegacyMount { name, controllers: hierarchy.controllers.clone() })
            })
            .collect()
    }

    /// Controllers, mount point, and this process's directory of every version 1 hierarchy.
    pub(super) fn hierarchies(&self) -> impl Iterator<Item = (&[String], &Path, PathBuf)> {
        self.legacy.iter().map(|hierarchy| {
            let place = &hierarchy.place;
            (hierarchy.controllers.as_slice(), place.mount.as_path(), place.mount.join(&place.own))
        })
    }

    /// True when the version 2 hierarchy is mounted, with or without controllers.
    pub fn has_unified(&self) -> bool {
        self.unified.is_some()
    }

    /// Version 2 directory of this process; `None` without the hierarchy.
    pub(crate) fn unified_own(&self) -> Option<PathBuf> {
        self.unified.as_ref().map(|unified| unified.mount.join(&unified.own))
    }

    /// Mount point of the version 2 hierarchy; `None` when it is not mounted.
    pub(super) fn unified_mount(&self) -> Option<&Path> {
        self.unified.as_ref().map(|unified| unified.mount.as_path())
    }

    /// Controllers of the version 2 hierarchy.
    pub(super) fn unified_controllers(&self) -> &[String] {
        self.unified_controllers.get_or_init(|| {
            let list = self.unified_mount().map(|mount| read_record(mount.join("cgroup.controllers"), 1024));
            list.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        })
    }

    /// True when the memory controller is that of version 2.
    pub fn has_unified_memory(&self) -> bool {
        self.is_unified("memory")
    }

    /// True when memory cgroups can limit swap.
    pub fn counts_swap(&self) -> bool {
        if self.has_unified_memory() {
            // The root cgroup has no limits, so that its files do not tell.
            let own = self.unified_own().filter(|own| Some(own.as_path()) != self.unified_mount());
            let limits = own.filter(|own| own.join("memory.max").exists());
            return limits.is_none_or(|own| own.join("memory.swap.max").exists());
        }
        let memory =
            self.hierarchies().find(|(controllers, ..)| controllers.iter().any(|name| name == "memory"));
        memory.is_some_and(|(_, _, own)| own.join("memory.memsw.limit_in_bytes").exists())
    }

    /// True when no hierarchy is mounted.
    pub fn is_none(&self) -> bool {
        self.unified.is_none() && self.legacy.is_empty()
    }

    /// Controllers of all hierarchies, sorted; named hierarchies of version 1 have none.
    pub fn controllers(&self) -> Vec<String> {
        let legacy = self.legacy.iter().flat_map(|hierarchy| &hierarchy.controllers);
        let all = legacy.chain(self.unified_controllers()).filter(|name| !name.starts_with("name="));
        all.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// True when only the version 2 hierarchy is mounted.
    pub fn is_unified_only(&self) -> bool {
        self.unified.is_some() && self.legacy.is_empty()
    }

    /// Enables a controller for the children of a directory.
    pub(super) fn enable_in(&self, dir: &Path, controller: &str) -> Result<(), CgroupError> {
        let Some(unified) = &self.unified else { return Ok(()) };
        let below = dir.strip_prefix(&unified.mount).unwrap_or(dir).to_owned();
        let mut path = unified.mount.clone();
        let mut names = below.components();
        loop {
            let control = path.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(&control).unwrap_or_default();
            if !enabled.split_whitespace().any(|known| known == controller) {
                match write(&control, &format!("+{controller}")) {
                    Err(CgroupError::File { errno: libc::EBUSY, .. })
                        if path == unified.mount && path.join("cgroup.type").exists() =>
                    {
                        make_room(&path)?;
                        write(&control, &format!("+{controller}"))?;
                    }
                    other => other?,
                }
            }
            match names.next() {
                Some(name) => path.push(name),
                None => return Ok(()),
            }
        }
    }
}

/// Moves the processes of the topmost cgroup into a new cgroup below it.
///
/// In a cgroup namespace, for example that of a container, the topmost cgroup contains processes, and the kernel
/// enables no controller for the children of such a cgroup (the no-internal-process rule, cgroups(7)). The host's own
/// topmost cgroup is exempt, and has no file `cgroup.type`.
fn make_room(top: &Path) -> Result<(), CgroupError> {
    const LEAF: &str = "kiln-init";
    const ROUNDS: usize = 10;
    let leaf = top.join(LEAF);
    fs::create_dir_all(&leaf).map_err(CgroupError::file("make", &leaf))?;
    let procs = leaf.join("cgroup.procs");
    // Processes created during a round are moved in the next one.
    for _ in 0..ROUNDS {
        let present = read_record(top.join("cgroup.procs"), 4096);
        if present.trim().is_empty() {
            return Ok(());
        }
        // Processes of other pid namespaces have pid 0 here, which would refer to this process.
        for pid in present.lines().filter(|pid| *pid != "0") {
            match fs::write(&procs, pid) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(CgroupError::file("write", &procs)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Reads the list of mounts: a file of many records, which arrives in pieces.
fn read_mounts() -> String {
    let mut text = Vec::with_capacity(16 << 10);
    let read = open("/proc/self/mountinfo".as_ref()).and_then(|file| {
        while read_more(&file, &mut text)? > 0 {
            text.reserve(1);
        }
        Ok(())
    });
    read.ok().and_then(|()| String::from_utf8(text).ok()).unwrap_or_default()
}

/// Reads a file of /proc or of a cgroup that has one record: the kernel fills the buffer as far as it can, so a result
/// shorter than `room` is complete. Empty when it cannot be read.
pub(super) fn read_record(path: impl AsRef<Path>, room: usize) -> String {
    let mut text = Vec::with_capacity(room);
    let read = open(path.as_ref()).and_then(|file| {
        while read_more(&file, &mut text)? > 0 && text.len() == text.capacity() {
            text.reserve(room);
        }
        Ok(())
    });
    read.ok().and_then(|()| String::from_utf8(text).ok()).unwrap_or_default()
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Reads as much as the buffer has room for; returns the number of bytes.
fn read_more(file: &OwnedFd, text: &mut Vec<u8>) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(file, rustix::buffer::spare_capacity(text)) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Cgroup in a line `N:controllers:/path` of `/proc/self/cgroup`; the version 2 line has no controllers.
fn own_group<'a>(own: &'a str, controller: &str) -> &'a str {
    own.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let controllers = fields.nth(1)?;
            Some((controllers, fields.next()?))
        })
        .find(|(controllers, _)| controllers.split(',').any(|known| known == controller))
        .map_or("/", |(_, path)| path)
}

/// Hierarchy with this process's cgroup below its mount. A mount may show only part of its hierarchy: the cgroup's path
/// is then relative to that part.
fn place(mount: &str, root: &str, group: &str) -> Hierarchy {
    let below = group.strip_prefix(root).unwrap_or(group);
    // A cgroup outside of the visible part: the top of that part is used.
    let below = if below.starts_with("/..") { "" } else { below };
    Hierarchy { mount: PathBuf::from(mount), own: PathBuf::from(below.trim_start_matches('/')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine() {
        let mounts = "\
30 20 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 20 0:27 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
32 20 0:28 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw";
        let own = "3:cpu,cpuacct:/a/b\n1:name=systemd:/x\n0::/c\n";
        let layout = Layout::parse(mounts, own);
        let dirs = ["/sys/fs/cgroup/cpu/a/b", "/sys/fs/cgroup/systemd/x"].map(PathBuf::from);
        assert_eq!(layout.legacy_dirs(), dirs);
        assert_eq!(layout.unified_dir(), Some("/sys/fs/cgroup/unified/c".into()));
        assert!(!layout.is_unified("cpu") && !layout.is_unified_only());
        let mounts = layout.legacy_mounts();
        assert_eq!(
            (mounts[0].name.as_str(), mounts[0].controllers.join(",")),
            ("cpu", "cpu,cpuacct".to_owned())
        );
        assert_eq!(mounts[1].joined_options(), "none,name=systemd");
    }

    #[test]
    fn a_version_2_machine() {
        let mounts = "32 20 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let layout = Layout::parse(mounts, "0::/user.slice/session.scope\n");
        assert_eq!(layout.unified_dir(), Some("/sys/fs/cgroup/user.slice".into()));
        assert!(layout.is_unified_only());
    }

    #[test]
    fn hierarchies_that_are_mounted_twice() {
        let mounts = "\
30 20 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
31 20 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
32 20 0:26 / /elsewhere/cpu rw - cgroup cgroup rw,cpu
33 31 0:27 /a /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids";
        let layout = Layout::parse(mounts, "2:pids:/a/b\n1:cpu:/c\n");
        let dirs = ["/sys/fs/cgroup/cpu/c", "/sys/fs/cgroup/pids/b"].map(PathBuf::from);
        assert_eq!(layout.legacy_dirs(), dirs);
        let names: Vec<String> = layout.legacy_mounts().into_iter().map(|mount| mount.name).collect();
        assert_eq!(names, ["cpu", "pids"]);
    }

    #[test]
    fn inside_a_container() {
        let mounts = "32 20 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let layout = Layout::parse(mounts, "5:memory:/docker/abc\n");
        assert_eq!(layout.legacy_dirs(), [PathBuf::from("/sys/fs/cgroup/memory/")]);
    }
}
