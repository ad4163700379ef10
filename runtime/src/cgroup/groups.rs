//! The groups of a container at a place that others name: made, filled, limited, frozen, counted, removed.
//!
//! A container is always in a group of the version 2 hierarchy where one is mounted, with or without
//! controllers: being born into it costs nothing, and it lists, freezes and kills. It is in groups of version 1 hierarchies
//! where these are needed or shown. A process that is moved into one waits for a grace period of the kernel; a thread that
//! moves itself does not (`SetupOp::EnterCgroups`).

use super::device::{self, DeviceRule};
use super::limits::{self, Setting};
use super::{CgroupError, Layout, inherit_cpuset, open_dir, start_time, write};
use crate::cgroup::LegacyMount;
use crate::host::{Feature, Host};
use crate::op::Bytes;
use oci_spec::runtime::LinuxResources;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the groups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Below the mount of each hierarchy when it is absolute, below the caller's own groups else.
    pub path: PathBuf,
    /// In which hierarchies.
    pub extent: Extent,
}

/// In which hierarchies a container has groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// In those that limits need.
    Limits,
    /// In those of version 1, and in that of version 2 if limits need it.
    Legacy,
    /// In those that limits need, and in that of version 2 where one is mounted.
    Unified,
    /// In all of them.
    All,
}

/// The groups of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    unified: Option<PathBuf>,
    legacy: Vec<LegacyGroup>,
    /// Some were there before.
    #[serde(default)]
    reused: bool,
    /// Directories above these that had to be made, outermost first.
    above: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LegacyGroup {
    controllers: Vec<String>,
    path: PathBuf,
}

/// How long a group may take to become empty after its processes were killed.
const REMOVAL: Duration = Duration::from_secs(10);

impl Groups {
    /// No group at all.
    pub const NONE: &'static Groups =
        &Groups { unified: None, legacy: Vec::new(), reused: false, above: Vec::new() };

    /// Makes the groups and sets their limits. On failure those that were made are removed again.
    pub fn create(
        layout: &Layout,
        place: &Place,
        resources: Option<&LinuxResources>,
    ) -> Result<Groups, CgroupError> {
        let mut groups = Groups::default();
        let made = groups.make(layout, place, resources).and_then(|()| groups.apply(layout, resources));
        match made {
            Ok(()) => Ok(groups),
            Err(error) => {
                groups.remove_dirs();
                Err(error)
            }
        }
    }

    fn make(
        &mut self,
        layout: &Layout,
        place: &Place,
        resources: Option<&LinuxResources>,
    ) -> Result<(), CgroupError> {
        let settings = resources.map(limits::settings).unwrap_or_default();
        let below = place.path.strip_prefix("/").ok();
        let at = |mount: &Path, own: PathBuf| match below {
            Some(below) => mount.join(below),
            None => own.join(&place.path),
        };
        let unified = matches!(place.extent, Extent::Unified | Extent::All)
            || settings.iter().any(|setting| layout.is_unified(setting.controller));
        if let (true, Some(mount), Some(own)) = (unified, layout.unified_mount(), layout.unified_dir()) {
            let path = at(mount, own);
            self.make_one(&path)?;
            self.unified = Some(path);
        }
        for (controllers, mount, own) in layout.hierarchies() {
            let needed = settings.iter().any(|setting| {
                setting.legacy.is_some()
                    && controllers.iter().any(|known| known == legacy_name(setting.controller))
            });
            if !(needed || matches!(place.extent, Extent::Legacy | Extent::All)) {
                continue;
            }
            let path = at(mount, own.clone());
            self.make_one(&path)?;
            if controllers.iter().any(|controller| controller == "cpuset") {
                let root = if below.is_some() { mount } else { &own };
                inherit_cpuset(root, &path)?;
            }
            self.legacy.push(LegacyGroup { controllers: controllers.to_vec(), path });
        }
        Ok(())
    }

    fn make_one(&mut self, path: &Path) -> Result<(), CgroupError> {
        match fs::create_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.reused = true;
                return Ok(());
            }
            Err(error) if gone(&error) => {}
            Err(error) => return Err(CgroupError::file("make", path)(error)),
        }
        let missing = super::missing_above(path);
        fs::create_dir_all(path).map_err(CgroupError::file("make", path))?;
        self.above.extend(missing);
        Ok(())
    }

    /// Sets limits, of a new group or of one in use.
    pub fn apply(&self, layout: &Layout, resources: Option<&LinuxResources>) -> Result<(), CgroupError> {
        let settings = resources.map(limits::settings).unwrap_or_default();
        let mut failed = Vec::new();
        for setting in &settings {
            if let Err(error) = self.apply_one(layout, setting) {
                // What depends on another limit may be possible when that has been changed.
                if !matches!(&error, CgroupError::File { errno: libc::EINVAL | libc::EBUSY, .. }) {
                    return Err(error);
                }
                failed.push(setting);
            }
        }
        failed.into_iter().try_for_each(|setting| self.apply_one(layout, setting))
    }

    fn apply_one(&self, layout: &Layout, setting: &Setting) -> Result<(), CgroupError> {
        if setting.controller.is_empty() {
            return self.apply_raw(layout, setting);
        }
        if layout.is_unified(setting.controller) {
            let (Some(group), Some((file, value))) = (&self.unified, &setting.unified) else { return Ok(()) };
            if let Some(parent) = group.parent() {
                layout.enable_in(parent, setting.controller)?;
            }
            let path = group.join(file.as_ref());
            if file == "io.weight" && !path.exists() {
                return write(&group.join("io.bfq.weight"), value);
            }
            return write(&path, value);
        }
        let name = legacy_name(setting.controller);
        let group = self.legacy.iter().find(|group| group.controllers.iter().any(|known| known == name));
        match (group, &setting.legacy) {
            (Some(group), Some((file, value))) => {
                let path = group.path.join(file.as_ref());
                if file.starts_with("blkio.weight") && !path.exists() {
                    // Its schedulers name it after themselves; none has it where none of them is in use.
                    let other = group.path.join(file.replace("blkio.", "blkio.bfq."));
                    return if other.exists() { write(&other, value) } else { Ok(()) };
                }
                write(&path, value)
            }
            // Wanted of the other version only: it has no meaning here.
            (_, None) => Ok(()),
            (None, Some(_)) if setting.unified.is_none() && layout.is_unified_only() => Ok(()),
            (None, Some(_)) => {
                Err(CgroupError::NoController { limit: setting.limit, controller: setting.controller })
            }
        }
    }

    /// A file of the version 2 group by name.
    fn apply_raw(&self, layout: &Layout, setting: &Setting) -> Result<(), CgroupError> {
        let Some((file, value)) = &setting.unified else { return Ok(()) };
        let no_unified = CgroupError::NoController { limit: "unified", controller: "cgroup v2" };
        let group = self.unified.as_ref().ok_or(no_unified)?;
        let name = file.as_ref();
        if name.contains('/') || name.contains("..") {
            return Err(CgroupError::File { what: "write", path: group.join(name), errno: libc::EINVAL });
        }
        let controller = name.split('.').next().unwrap_or_default();
        if controller != "cgroup"
            && let Some(parent) = group.parent()
            && layout.unified_controllers().iter().any(|known| known == controller)
        {
            layout.enable_in(parent, controller)?;
        }
        let path = group.join(name);
        if !path.exists() {
            return Err(CgroupError::NoFile(name.to_owned()));
        }
        value.lines().try_for_each(|line| write(&path, line))
    }

    /// Restricts the devices that may be used to those of rules; the last that is about one decides. `directory` is the
    /// version 2 directory, where there is one.
    pub fn restrict(&self, dir: Option<BorrowedFd<'_>>, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        // The list of version 1 where the container is in such a group anyway: others read it, and every kernel has it.
        let list = self.path_of("devices");
        if let Some(dir) = dir.filter(|_| list.is_none()) {
            return device::restrict(dir, rules).map_err(|errno| CgroupError::Devices(errno.raw_os_error()));
        }
        let Some(group) =
            self.legacy.iter().find(|group| group.controllers.iter().any(|name| name == "devices"))
        else {
            return Err(CgroupError::NoController { limit: "devices", controller: "devices" });
        };
        write(&group.path.join("devices.deny"), "a")?;
        for rule in rules {
            let (file, text) = rule.legacy();
            write(&group.path.join(file), &text)?;
        }
        Ok(())
    }

    /// Processes that were in the groups before the container; they may be frozen.
    pub fn others(&self) -> Result<Vec<i32>, CgroupError> {
        if self.reused { self.processes() } else { Ok(Vec::new()) }
    }

    /// True for groups that were there before and are stopped: a container in them would never start.
    pub fn is_reused_frozen(&self) -> bool {
        self.reused && self.is_frozen()
    }

    /// Lets a process go on whose version 1 freezer group is stopped, whoever's that is.
    pub fn thaw_process(layout: &Layout, pid: i32) {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        for (controllers, mount, _) in layout.hierarchies() {
            if !controllers.iter().any(|name| name == "freezer") {
                continue;
            }
            let line = text.lines().find_map(|line| line.split_once(":freezer:"));
            let Some((_, path)) = line else { continue };
            let file = mount.join(path.trim_start_matches('/')).join("freezer.state");
            if fs::read_to_string(&file).is_ok_and(|state| state.trim() != "THAWED") {
                let _ = fs::write(&file, "THAWED");
            }
        }
    }

    /// The version 2 directory, into which a process can be born.
    pub fn dir(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.unified.as_deref().map(open_dir).transpose()
    }

    /// Its path.
    pub fn unified_path(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The directory in a version 1 hierarchy.
    pub fn legacy_path(&self, mount: &LegacyMount) -> Option<&Path> {
        let group = self.legacy.iter().find(|group| group.controllers == mount.controllers)?;
        Some(&group.path)
    }

    /// The directory that has a controller, in either version.
    pub fn path_of(&self, controller: &str) -> Option<&Path> {
        let group =
            self.legacy.iter().find(|group| group.controllers.iter().any(|known| known == controller));
        group.map(|group| group.path.as_path())
    }

    /// Each controller with its directory; the version 2 directory has the empty name.
    pub fn paths(&self) -> Vec<(&str, &Path)> {
        let legacy = self
            .legacy
            .iter()
            .flat_map(|group| group.controllers.iter().map(|name| (name.as_str(), group.path.as_path())));
        self.unified.iter().map(|path| ("", path.as_path())).chain(legacy).collect()
    }

    /// True when a process must be moved into version 1 groups after it was made.
    pub fn needs_attach(&self) -> bool {
        !self.legacy.is_empty()
    }

    /// The files by which a thread moves itself into the version 1 groups.
    pub(crate) fn task_files(&self) -> Vec<Bytes> {
        self.legacy.iter().map(|group| Bytes::from(&group.path.join("tasks"))).collect()
    }

    /// Moves a process into the version 1 groups.
    pub fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        self.legacy.iter().try_for_each(|group| write(&group.path.join("cgroup.procs"), &pid.to_string()))
    }

    /// Moves processes that run already into all groups.
    pub fn adopt<E: From<CgroupError>>(&self, list: impl Fn() -> Result<Vec<i32>, E>) -> Result<(), E> {
        let legacy = self.legacy.iter().map(|group| group.path.as_path());
        let dirs: Vec<&Path> = self.unified.as_deref().into_iter().chain(legacy).collect();
        move_all(&dirs, list)
    }

    fn main_dir(&self) -> Option<&Path> {
        let legacy =
            || self.path_of("freezer").or_else(|| self.legacy.first().map(|group| group.path.as_path()));
        self.unified.as_deref().or_else(legacy)
    }

    /// All processes of the container, in this process's numbers.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let Some(dir) = self.main_dir() else { return Ok(Vec::new()) };
        let mut found = BTreeSet::new();
        for dir in with_below(dir) {
            let path = dir.join("cgroup.procs");
            match fs::read_to_string(&path) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) || gone(&error) => {}
                Err(error) => return Err(CgroupError::file("read", &path)(error)),
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Stops or continues all processes; returns when they have stopped.
    pub fn freeze(&self, stop: bool) -> Result<(), CgroupError> {
        if let Some(dir) = self.path_of("freezer") {
            let state = if stop { "FROZEN" } else { "THAWED" };
            let path = dir.join("freezer.state");
            let deadline = Instant::now() + REMOVAL;
            loop {
                write(&path, state)?;
                let now = fs::read_to_string(&path).map_err(CgroupError::file("read", &path))?;
                if now.trim() == state {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    // A group that is half frozen is worse than one that runs.
                    let _ = write(&path, "THAWED");
                    return Err(CgroupError::File { what: "freeze", path, errno: libc::EBUSY });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let no_freezer = CgroupError::NoController { limit: "pause", controller: "freezer" };
        let dir = self.unified.as_ref().ok_or(no_freezer)?;
        write(&dir.join("cgroup.freeze"), if stop { "1" } else { "0" })?;
        let wanted = if stop { "frozen 1" } else { "frozen 0" };
        wait_for_event(dir, REMOVAL, |events| events.lines().any(|line| line == wanted));
        Ok(())
    }

    /// True while the processes are stopped.
    pub fn is_frozen(&self) -> bool {
        let legacy =
            self.path_of("freezer").and_then(|dir| fs::read_to_string(dir.join("freezer.state")).ok());
        let unified =
            self.unified.as_ref().and_then(|dir| fs::read_to_string(dir.join("cgroup.freeze")).ok());
        legacy.is_some_and(|state| state.trim() != "THAWED")
            || unified.is_some_and(|state| state.trim() == "1")
    }

    /// Sends a signal, by number, to all processes of the container.
    pub fn signal(&self, signal: i32) -> Result<(), CgroupError> {
        if signal == libc::SIGKILL
            && Host::get().has(Feature::CgroupKill)
            && let Some(dir) = &self.unified
        {
            match fs::write(dir.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                // The root cgroup has none.
                Err(error) if gone(&error) => {}
                Err(error) => return Err(CgroupError::file("write", &dir.join("cgroup.kill"))(error)),
            }
        }
        // Stopped, so that none is born meanwhile; a killed process must run to die.
        let was_frozen = self.is_frozen();
        let frozen = !was_frozen && self.freeze(true).is_ok();
        for pid in self.processes()? {
            let pidfd =
                Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
            if let Some(pidfd) = pidfd {
                use rustix::fd::AsFd;
                let _ = crate::sys::signal(pidfd.as_fd(), signal);
            }
        }
        if frozen || was_frozen && signal == libc::SIGKILL {
            self.freeze(false)?;
        }
        Ok(())
    }

    /// Removes the groups and those below, when they are empty; waits for processes that are dying.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let dirs: Vec<&Path> = self
            .unified
            .iter()
            .map(PathBuf::as_path)
            .chain(self.legacy.iter().map(|group| group.path.as_path()))
            .collect();
        for dir in dirs {
            let deadline = Instant::now() + REMOVAL;
            let mut pause = Duration::from_micros(500);
            while let Err(error) = remove_tree(dir) {
                if gone(&error) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(CgroupError::Busy(dir.to_owned()));
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
        self.remove_above();
        Ok(())
    }

    /// True for groups that were there before, in which others may be.
    pub fn are_reused(&self) -> bool {
        self.reused
    }

    /// Removes the groups unless others are in them.
    pub fn leave(&self) {
        self.remove_dirs();
    }

    fn remove_dirs(&self) {
        for dir in self.unified.iter().chain(self.legacy.iter().map(|group| &group.path)) {
            let _ = remove_tree(dir);
        }
        self.remove_above();
    }

    fn remove_above(&self) {
        for path in self.above.iter().rev() {
            // Others may be in it by now.
            let _ = fs::remove_dir(path);
        }
    }

    /// Makes groups that are missing for limits that come later, and moves the container's processes into them.
    pub fn extend(
        &mut self,
        layout: &Layout,
        place: &Place,
        resources: &LinuxResources,
    ) -> Result<(), CgroupError> {
        let mut more = Groups::default();
        more.make(layout, place, Some(resources))?;
        let missing = more.legacy.iter().filter(|group| !self.legacy.contains(group));
        let missing: Vec<LegacyGroup> = missing.cloned().collect();
        let dirs: Vec<&Path> = missing.iter().map(|group| group.path.as_path()).collect();
        move_all(&dirs, || self.processes())?;
        self.legacy.extend(missing);
        self.above.extend(more.above);
        Ok(())
    }

    /// Removes the groups if they are empty; false when they are not.
    pub fn remove_if_empty(&self) -> bool {
        let dirs = self.unified.iter().chain(self.legacy.iter().map(|group| &group.path));
        let mut removed = true;
        for dir in dirs {
            removed &= fs::remove_dir(dir).is_ok();
        }
        self.remove_above();
        removed
    }

    /// True when there is no group at all.
    pub fn are_none(&self) -> bool {
        self.unified.is_none() && self.legacy.is_empty()
    }

    /// True when none of the groups holds a process.
    pub fn is_empty(&self) -> bool {
        let dirs = self.unified.iter().chain(self.legacy.iter().map(|group| &group.path));
        dirs.flat_map(|dir| with_below(dir))
            .all(|dir| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().trim().is_empty())
    }

    /// When the process `pid` was started, in ticks since boot: with the pid it names a process for good.
    pub fn start_time(pid: i32) -> Option<String> {
        start_time(u32::try_from(pid).ok()?)
    }
}

/// Version 1 calls it by another name.
fn legacy_name(controller: &str) -> &str {
    if controller == "io" { "blkio" } else { controller }
}

/// Moves the processes that `list` tells into groups, those that are born meanwhile too; those that end meanwhile are
/// no matter. Whoever is in the last group was moved, or born of one that was, and is in all of them.
fn move_all<E: From<CgroupError>>(dirs: &[&Path], list: impl Fn() -> Result<Vec<i32>, E>) -> Result<(), E> {
    let Some(last) = dirs.last() else { return Ok(()) };
    let mut tried = BTreeSet::new();
    loop {
        let members = fs::read_to_string(last.join("cgroup.procs")).unwrap_or_default();
        let members: BTreeSet<i32> = members.lines().filter_map(|line| line.parse().ok()).collect();
        let mut new = list()?;
        new.retain(|pid| !members.contains(pid) && tried.insert(*pid));
        if new.is_empty() {
            return Ok(());
        }
        for (pid, dir) in new.iter().flat_map(|pid| dirs.iter().map(move |dir| (pid, dir))) {
            let path = dir.join("cgroup.procs");
            match fs::write(&path, pid.to_string()) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.map_err(CgroupError::file("write", &path))?,
            }
        }
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// A directory and all below it, the deepest last.
fn with_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let below = fs::read_dir(&found[at]).into_iter().flatten().flatten();
        let dirs: Vec<PathBuf> = below
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.extend(dirs);
        at += 1;
    }
    found
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if !gone(&error) => {}
        other => return other,
    }
    let mut below = with_below(dir);
    while let Some(dir) = below.pop() {
        match fs::remove_dir(&dir) {
            Err(error) if !gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Waits until `cgroup.events` of a version 2 group says something.
fn wait_for_event(dir: &Path, limit: Duration, holds: impl Fn(&str) -> bool) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    use std::io::{Read, Seek};
    let deadline = Instant::now() + limit;
    let Ok(mut file) = fs::File::open(dir.join("cgroup.events")) else { return false };
    loop {
        let mut text = String::new();
        if file.rewind().is_err() || file.read_to_string(&mut text).is_err() || holds(&text) {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut polled = [PollFd::new(&file, PollFlags::PRI)];
        let _ = rustix::event::poll(&mut polled, Some(&timeout));
    }
}
