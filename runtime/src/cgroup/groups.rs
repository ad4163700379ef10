//! Cgroups of a container at a path that the caller chooses: creation, limits, processes, freezing, removal.
//!
//! A container is always in a cgroup of the version 2 hierarchy where one is mounted, with or without controllers:
//! creating a process in it costs nothing, and it can list, freeze and kill processes. It is in cgroups of version 1
//! hierarchies where these are needed or visible. A process that another moves into one waits for an RCU grace period
//! of the kernel; a thread that moves itself does not (`SetupOp::EnterCgroups`).

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

/// Location of a container's cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path below the mount of each hierarchy when it is absolute, otherwise below the caller's own cgroups.
    pub path: PathBuf,
    /// Hierarchies in which they are created.
    pub extent: Extent,
}

/// Hierarchies in which a container has cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Hierarchies that limits need.
    Limits,
    /// Version 1 hierarchies, and that of version 2 if limits need it.
    Legacy,
    /// Hierarchies that limits need, and that of version 2 where one is mounted.
    Unified,
    /// All hierarchies that are mounted.
    All,
}

/// Cgroups of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    unified: Option<PathBuf>,
    legacy: Vec<LegacyGroup>,
    /// True when some of them existed before.
    #[serde(default)]
    reused: bool,
    /// Directories above these that had to be created, outermost first.
    above: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LegacyGroup {
    controllers: Vec<String>,
    path: PathBuf,
}

/// Maximum time for a cgroup to become empty after its processes were killed.
const REMOVAL: Duration = Duration::from_secs(10);

impl Groups {
    /// Value for containers without cgroups.
    pub const NONE: &'static Groups =
        &Groups { unified: None, legacy: Vec::new(), reused: false, above: Vec::new() };

    /// Creates the cgroups and sets their limits. On failure the created ones are removed.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] for a limit without its controller, [`CgroupError::File`] when the kernel refuses
    /// a cgroup or a value.
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

    /// Sets limits of new cgroups or of those in use.
    pub fn apply(&self, layout: &Layout, resources: Option<&LinuxResources>) -> Result<(), CgroupError> {
        let settings = resources.map(limits::settings).unwrap_or_default();
        let mut failed = Vec::new();
        for setting in &settings {
            if let Err(error) = self.apply_one(layout, setting) {
                // A limit that depends on another may be valid after that one is changed.
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
                    // The BFQ scheduler prefixes the file with its name; neither file exists without a scheduler that
                    // has it.
                    let other = group.path.join(file.replace("blkio.", "blkio.bfq."));
                    return if other.exists() { write(&other, value) } else { Ok(()) };
                }
                write(&path, value)
            }
            // Specified for the other version only: it has no effect here.
            (_, None) => Ok(()),
            (None, Some(_)) if setting.unified.is_none() && layout.is_unified_only() => Ok(()),
            (None, Some(_)) => {
                Err(CgroupError::NoController { limit: setting.limit, controller: setting.controller })
            }
        }
    }

    /// Writes a file of the version 2 cgroup by name.
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

    /// Restricts the devices to those that the rules allow; the last matching rule decides. `dir` is the version 2
    /// directory; `None` without one.
    pub fn restrict(&self, dir: Option<BorrowedFd<'_>>, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        // By the version 1 list where the container is in such a cgroup: other programs read it, and every kernel has
        // it.
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

    /// Processes that were in the cgroups before the container; they may be frozen.
    pub fn others(&self) -> Result<Vec<i32>, CgroupError> {
        if self.reused { self.processes() } else { Ok(Vec::new()) }
    }

    /// True for existing cgroups that are frozen: a container in them would never start.
    pub fn is_reused_frozen(&self) -> bool {
        self.reused && self.is_frozen()
    }

    /// Thaws the version 1 freezer cgroup of a process, whether or not Kiln created it.
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

    /// Opens the version 2 directory, in which a process can be created; `None` without one.
    pub fn dir(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.unified.as_deref().map(open_dir).transpose()
    }

    /// Path of the version 2 directory; `None` without one.
    pub fn unified_path(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Directory in a version 1 hierarchy; `None` without one.
    pub fn legacy_path(&self, mount: &LegacyMount) -> Option<&Path> {
        let group = self.legacy.iter().find(|group| group.controllers == mount.controllers)?;
        Some(&group.path)
    }

    /// Version 1 directory with a controller; `None` without one.
    pub fn path_of(&self, controller: &str) -> Option<&Path> {
        let group =
            self.legacy.iter().find(|group| group.controllers.iter().any(|known| known == controller));
        group.map(|group| group.path.as_path())
    }

    /// Controllers with their directories; the version 2 directory has the empty name.
    pub fn paths(&self) -> Vec<(&str, &Path)> {
        let legacy = self
            .legacy
            .iter()
            .flat_map(|group| group.controllers.iter().map(|name| (name.as_str(), group.path.as_path())));
        self.unified.iter().map(|path| ("", path.as_path())).chain(legacy).collect()
    }

    /// True when a process must be moved into version 1 cgroups after its creation.
    pub fn needs_attach(&self) -> bool {
        !self.legacy.is_empty()
    }

    /// Files by which a thread moves itself into the version 1 cgroups.
    pub(crate) fn task_files(&self) -> Vec<Bytes> {
        self.legacy.iter().map(|group| Bytes::from(&group.path.join("tasks"))).collect()
    }

    /// Moves a process into the version 1 cgroups.
    pub fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        self.legacy.iter().try_for_each(|group| write(&group.path.join("cgroup.procs"), &pid.to_string()))
    }

    /// Moves running processes into all cgroups.
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

    /// Pids of all processes of the container, in the pid namespace of this process.
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

    /// Freezes or thaws all processes; returns when they are frozen.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] without a freezer; `EBUSY` when version 1 processes do not freeze in time: they
    /// are thawed then.
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
                    // A partly frozen cgroup is worse than one that runs.
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

    /// True while the processes are frozen.
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
                // The root cgroup lacks that file.
                Err(error) if gone(&error) => {}
                Err(error) => return Err(CgroupError::file("write", &dir.join("cgroup.kill"))(error)),
            }
        }
        // Frozen, so that no process is created meanwhile; a killed process must run to die.
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

    /// Removes the cgroups and those below when they are empty; waits for processes that are dying.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when a cgroup still contains processes after ten seconds.
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

    /// True for cgroups that existed before, in which other processes may be.
    pub fn are_reused(&self) -> bool {
        self.reused
    }

    /// Removes the cgroups unless they contain other processes.
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
            // Other processes may be in it by now.
            let _ = fs::remove_dir(path);
        }
    }

    /// Creates missing cgroups for later limits, and moves the container's processes into them.
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

    /// Removes the cgroups if they are empty; false when they are not.
    pub fn remove_if_empty(&self) -> bool {
        let dirs = self.unified.iter().chain(self.legacy.iter().map(|group| &group.path));
        let mut removed = true;
        for dir in dirs {
            removed &= fs::remove_dir(dir).is_ok();
        }
        self.remove_above();
        removed
    }

    /// True when there are no cgroups.
    pub fn is_none(&self) -> bool {
        self.unified.is_none() && self.legacy.is_empty()
    }

    /// True when none of the cgroups contains a process.
    pub fn is_empty(&self) -> bool {
        let dirs = self.unified.iter().chain(self.legacy.iter().map(|group| &group.path));
        dirs.flat_map(|dir| with_below(dir))
            .all(|dir| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().trim().is_empty())
    }

    /// True while the process with this pid and start time runs. One that has ended can stay in the list of processes,
    /// where the host's first process reaps none.
    pub fn is_running(pid: i32, ticks: &str) -> bool {
        let has_ended = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
        };
        !ticks.is_empty() && Groups::start_time(pid).is_some_and(|now| now == ticks) && !has_ended()
    }

    /// Start time of the process `pid`, in ticks since boot: together with the pid it identifies a process uniquely.
    /// `None` when it has ended.
    pub fn start_time(pid: i32) -> Option<String> {
        start_time(u32::try_from(pid).ok()?)
    }
}

/// Name of a controller in version 1.
fn legacy_name(controller: &str) -> &str {
    if controller == "io" { "blkio" } else { controller }
}

/// Moves the processes that `list` returns into cgroups, including processes created meanwhile; processes that end
/// meanwhile are ignored. A process in the last cgroup was moved, or is a child of a moved process, and is in all of
/// them.
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

/// A directory and all directories below it, the deepest last.
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

/// Waits until `cgroup.events` of a version 2 cgroup satisfies a condition; false on timeout.
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
