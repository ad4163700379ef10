//! Containers of a store, on disk.
//!
//! ```text
//! containers/ID/container.json   record
//! containers/ID/lock             locked by the container's monitor, or by a process that creates or removes it
//! containers/ID/control          socket of the monitor (see `monitor`)
//! containers/ID/json.log…        log (see `log`)
//! containers/ID/health.json      results of health checks (see `health`)
//! containers/ID/layer/           writable layer (see overlayfs)
//! containers/ID/etc/             hosts, hostname, resolv.conf
//! containers/ID/secrets/         values of secrets, which only root can read (see `secret`)
//! containers/names/NAME          link whose target is the id: creating it reserves the name
//! containers/.new-ID, .dead-ID   being created, being removed (see `directory`)
//! spares/                        space for records on a full disk (see `spare`)
//! ```
//!
//! An unreadable record affects only its container: it is listed as damaged, keeps its layers, and can be removed.
//! Other files in the directory are ignored.

use crate::directory::{self, Lock, Making, NAMES};
use crate::error::EngineError;
use crate::name;
use crate::record::{self, Container, Damaged, Listed, RecordError, State, boot_id, now};
use crate::secret;
use crate::settings::{RunOptions, Settings};
use crate::spare;
use crate::spec::Dirs;
use kiln_image::store::{Image, Store, Syncs};
use kiln_image::sys::{self, CallError, Named};
use kiln_runtime::launch;
use oci_spec::runtime::Mount;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Exit code of a container whose end was not observed, as in Docker after a restart of its daemon.
pub(crate) const UNKNOWN_CODE: i32 = 255;
/// Note of a container whose end was not observed.
pub(crate) const UNKNOWN_END: &str = "its monitor was killed, so its exit code is unknown";
/// Note of a container that ran when the host was switched off.
const ENDED_WITH_HOST: &str = "the host was restarted while it ran, so its exit code is unknown";
/// Longest time that another process may need to start a container, or to remove it after its end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Interval between checks of a container that another process has locked.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// All containers of a store, without the store: their records, names and locks.
#[derive(Clone, Debug)]
pub struct Records {
    /// Root directory of the store.
    pub(crate) root: PathBuf,
    dir: PathBuf,
}

/// All containers of a store.
pub struct Containers<'a> {
    pub(crate) store: &'a Store,
    records: Records,
}

impl Deref for Containers<'_> {
    type Target = Records;

    fn deref(&self) -> &Records {
        &self.records
    }
}

/// Container that this process starts or runs: its lock keeps other processes from starting or removing it.
#[derive(Debug)]
pub struct Owned {
    pub(crate) records: Records,
    /// Record of the container.
    pub container: Container,
    pub(crate) lock: OwnedFd,
}

impl<'a> Containers<'a> {
    /// Opens the containers of `store`.
    pub fn open(store: &'a Store) -> Result<Containers<'a>, EngineError> {
        Ok(Containers { store, records: Records::open(store.root())? })
    }

    /// Creates a container of an image. `image_name` is the reference as the user wrote it.
    ///
    /// # Errors
    /// [`EngineError::InvalidName`], [`EngineError::NameTaken`] and [`EngineError::NoCommand`].
    pub fn create(
        &self,
        image: &Image,
        image_name: &str,
        options: &RunOptions,
    ) -> Result<Owned, EngineError> {
        if let Some(name) = &options.name {
            name::check(name)?;
        }
        options.check()?;
        let id = kiln_image::digest::hex(&random::<32>());
        let mut settings = Settings::new(&image.config.config, options, &id)?;
        self.settle_names(&mut settings, options.hostname.is_some())?;
        self.settle_networks(&mut settings, &options.attachments)?;
        // Layers of the image must not be collected before the pin is written.
        let _using = self.store.use_layers()?;
        let stack = self.store.stack(&image.config.rootfs.diff_ids)?;
        let mut making = Making::begin(self, &id)?;
        spare::keep(&self.root);
        // After `making`: on failure the lock on volumes is released before the container is removed, which takes it.
        let attached = self.attach(&stack, &image.config.config, options)?;
        settings.mounts.clone_from(&attached.points);
        attached.pin_images(self.store, &id)?;
        secret::keep(&making.path(), &options.secrets)?;
        if options.auto_remove {
            self.store.pin_until_removed(&id, &stack)?;
        } else {
            self.store.pin(&id, &stack)?;
        }
        let container = Container {
            id,
            name: String::new(),
            created: now(),
            image: image.record.id.clone(),
            image_name: image_name.to_owned(),
            settings,
            auto_remove: options.auto_remove,
            awaits_start: options.awaits_start,
            state: State::Created { error: None, code: 0 },
            profile: String::new(),
            groups: None,
            pipes: None,
            has_lost_terminal: false,
            endpoints: Vec::new(),
            restart: options.restart,
            restarts: 0,
            is_stopped: false,
            stdin_once: options.stdin_once,
            log: options.log.clone(),
        };
        let name = options.name.as_deref();
        let (container, lock) = self.place(&mut making, container, name.filter(|_| !options.replaces))?;
        attached.keep();
        let mut owned = Owned { records: self.records.clone(), container, lock };
        if let Some(name) = name.filter(|_| options.replaces) {
            // Only one that can be created takes the place of another.
            if let Err(error) = owned.take_place(name) {
                owned.remove()?;
                return Err(error);
            }
        }
        self.event(&owned.container, "create", &[]);
        Ok(owned)
    }

    /// Takes a container that does not run, to start it. `None` when its program runs. While its monitor releases it after
    /// an end, or another process starts it, this waits.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`] when it has been removed meanwhile, and [`EngineError::Busy`] when another process
    /// holds its lock for long without running it.
    pub fn take(&self, container: &Container) -> Result<Option<Owned>, EngineError> {
        let missing = || EngineError::NoSuchContainer(container.id.clone());
        let began = Instant::now();
        loop {
            let lock = self.lock(&container.id)?;
            if matches!(lock, Lock::Gone) {
                return Err(missing());
            }
            let container = self.read(&container.id)?.ok_or_else(missing)?;
            match lock {
                Lock::Held(_) if container.state.is_alive() => return Ok(None),
                Lock::Held(lock) => {
                    return Ok(Some(Owned { records: self.records.clone(), container, lock }));
                }
                _ if container.state.is_live() => return Ok(None),
                _ if began.elapsed() > PATIENCE => return Err(EngineError::Busy(container.id)),
                _ => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Takes a container whose program runs and whose monitor was killed. `None` when it has a monitor, or does not run.
    ///
    /// # Errors
    /// [`EngineError::Busy`] when another process holds its lock for long without being its monitor.
    pub fn take_orphan(&self, container: &Container) -> Result<Option<Owned>, EngineError> {
        let began = Instant::now();
        loop {
            match self.lock(&container.id)? {
                Lock::Gone => return Ok(None),
                Lock::Held(lock) => {
                    let found = self.read(&container.id)?.filter(|container| container.state.is_alive());
                    let records = self.records.clone();
                    return Ok(found.map(|container| Owned { records, container, lock }));
                }
                // A list holds the lock for a moment, and another command's monitor for good.
                Lock::Busy if self.connect(container)?.is_some() => return Ok(None),
                Lock::Busy if began.elapsed() > PATIENCE => {
                    return Err(EngineError::Busy(container.id.clone()));
                }
                Lock::Busy => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Mount that is the root of a container.
    ///
    /// # Errors
    /// Fails when a layer is missing, or the container has been removed.
    pub(crate) fn root_of(&self, container: &Container) -> Result<Mount, EngineError> {
        let stack = self.store.pinned_stack(&container.id)?;
        let dirs = Dirs::of(&self.path(&container.id));
        let syncs = if container.auto_remove { Syncs::Never } else { Syncs::Usual };
        let lowest = std::slice::from_ref(&dirs.stubs);
        Ok(self.store.writable_mount(&stack, (&dirs.upper, &dirs.work), lowest, syncs))
    }
}

impl Records {
    /// Opens the records of the store in `root`.
    ///
    /// # Errors
    /// Fails when the directory of names cannot be created.
    pub fn open(root: &Path) -> Result<Records, EngineError> {
        let dir = root.join("containers");
        let names = dir.join(NAMES);
        if !names.is_dir() {
            fs::create_dir_all(&names).call("mkdir", &names)?;
        }
        Ok(Records { root: root.to_owned(), dir })
    }

    /// Root directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory with all files of a container.
    pub fn dir_of(&self, container: &Container) -> PathBuf {
        self.path(&container.id)
    }

    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Reserves a container's name, writes its record, and moves its directory to the final path.
    fn place(
        &self,
        making: &mut Making,
        container: Container,
        wanted: Option<&str>,
    ) -> Result<(Container, OwnedFd), EngineError> {
        // A name whose container has no directory counts as free: the lock is held until the directory exists.
        let _names = self.lock_names()?;
        let name = self.take_name(wanted, &container.id)?;
        let container = Container { name, ..container };
        write_record(&making.path(), &container, None)?;
        Ok((container, making.finish()?))
    }

    /// Reserves the wanted name, or a generated one. The caller has locked the names.
    pub(crate) fn take_name(&self, wanted: Option<&str>, id: &str) -> Result<String, EngineError> {
        for attempt in 0.. {
            let name = match wanted {
                Some(name) => name.to_owned(),
                None => name::make(random(), attempt),
            };
            let path = self.path(NAMES).join(&name);
            loop {
                match std::os::unix::fs::symlink(id, &path) {
                    Ok(()) => return Ok(name),
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(named("symlink", &path)(error).into()),
                }
                let holder = fs::read_link(&path).unwrap_or_default().display().to_string();
                if directory::is_id(&holder) && self.is_left_behind(&name, &holder) {
                    // The reserving process was killed before the container existed, or while it renamed or removed it.
                    sys::remove_path(&path)?;
                } else if wanted.is_some() {
                    return Err(EngineError::NameTaken { name, id: holder });
                } else {
                    break;
                }
            }
        }
        unreachable!("attempts do not run out")
    }

    pub(crate) fn write(&self, container: &Container) -> Result<(), EngineError> {
        Ok(write_record(&self.path(&container.id), container, Some(&self.root))?)
    }

    /// Changes the record of a container under the lock on all names: no other process changes it meanwhile. Returns
    /// the changed record; `None` when the container has been removed.
    ///
    /// # Errors
    /// Fails when the record cannot be read or written.
    pub fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Container),
    ) -> Result<Option<Container>, EngineError> {
        let _names = self.lock_names()?;
        let Some(mut container) = self.read(id)? else { return Ok(None) };
        change(&mut container);
        match self.write(&container) {
            Ok(()) => Ok(Some(container)),
            // Its directory was renamed for removal meanwhile, which happens outside of this lock.
            Err(_) if !self.path(id).exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Record of a container. `None` when there is none.
    pub(crate) fn read(&self, id: &str) -> Result<Option<Container>, RecordError> {
        record::read(&self.path(id).join("container.json"), id)
    }

    /// All containers, the newest first. Records of killed monitors are corrected on the way.
    pub fn list(&self) -> Result<Vec<Listed>, EngineError> {
        let mut containers = Vec::new();
        for entry in fs::read_dir(&self.dir).call("getdents", &self.dir)? {
            let entry = entry.call("getdents", &self.dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if directory::is_id(&name) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                containers.extend(self.look_at(&name));
            } else {
                // A directory that cannot be removed now is left to the next list: it belongs to no container.
                let _ = self.remove_dead(&name);
            }
        }
        containers.sort_by(|a, b| b.created().cmp(a.created()).then_with(|| a.id().cmp(b.id())));
        Ok(containers)
    }

    /// Container with its actual state. `None` when it has been removed.
    pub(crate) fn look_at(&self, id: &str) -> Option<Listed> {
        let damaged = |reason| Some(Listed::Damaged(self.damaged(id, reason)));
        let record = match self.read(id) {
            Ok(record) => record,
            Err(reason) => return damaged(reason),
        };
        if record.as_ref().is_some_and(|c| !c.state.is_live() && !is_abandoned(c)) {
            return record.map(Listed::sound);
        }
        let _lock = match self.lock(id) {
            Ok(Lock::Held(lock)) => lock,
            Ok(Lock::Busy) => return record.map(Listed::sound),
            Ok(Lock::Gone) => return None,
            Err(error) => return damaged(error.into()),
        };
        // The monitor has ended since the first read, and may have changed the record before.
        let container = match self.read(id) {
            Ok(container) => container,
            Err(reason) => return damaged(reason),
        };
        let Some(mut container) = container.filter(|container| !is_abandoned(container)) else {
            record.iter().for_each(release_groups);
            return match self.erase(id) {
                Ok(()) => None,
                Err(EngineError::Call(error)) => damaged(error.into()),
                Err(_) => record.map(Listed::sound),
            };
        };
        if let Some(state) = without_monitor(&container.state) {
            release_groups(&container);
            container.state = state;
            (container.groups, container.endpoints) = (None, Vec::new());
            // If this write fails (the disk is full), the next list corrects the record.
            let _ = self.change(id, |record| {
                record.state = container.state.clone();
                (record.groups, record.endpoints) = (None, Vec::new());
            });
        }
        Some(Listed::sound(container))
    }

    fn damaged(&self, id: &str, reason: RecordError) -> Damaged {
        let created = fs::metadata(self.path(id)).and_then(|metadata| metadata.modified()).ok();
        let created = created.and_then(|time| jiff::Timestamp::try_from(time).ok()).unwrap_or_default();
        Damaged {
            id: id.to_owned(),
            name: self.names_of(id).into_iter().next().unwrap_or_default(),
            created: created.to_string(),
            reason,
        }
    }

    /// Finds a container by a name, an id or the beginning of one.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`], and [`EngineError::Ambiguous`] when several ids have this beginning.
    pub fn find(&self, text: &str) -> Result<Listed, EngineError> {
        let text_name = text.strip_prefix('/').unwrap_or(text);
        let mut all = self.list()?;
        let is_it = |one: &Listed| one.id() == text || (!text_name.is_empty() && one.name() == text_name);
        if let Some(index) = all.iter().position(is_it) {
            return Ok(all.swap_remove(index));
        }
        let mut found = all.into_iter().filter(|one| !text.is_empty() && one.id().starts_with(text));
        match (found.next(), found.next()) {
            (None, _) => Err(EngineError::NoSuchContainer(text.to_owned())),
            (Some(container), None) => Ok(container),
            (Some(_), Some(_)) => Err(EngineError::Ambiguous(text.to_owned())),
        }
    }

    /// Container with exactly this name; `None` when the name is free.
    ///
    /// # Errors
    /// Fails when the containers cannot be listed.
    pub fn named(&self, name: &str) -> Result<Option<Listed>, EngineError> {
        Ok(self.list()?.into_iter().find(|one| one.name() == name))
    }

    /// Containers created from an image, as far as their records can be read.
    pub fn of_image(&self, image: &kiln_image::digest::ImageId) -> Result<Vec<Container>, EngineError> {
        let sound = self.list()?.into_iter().filter_map(|listed| match listed {
            Listed::Sound(container) => Some(*container),
            Listed::Damaged(_) => None,
        });
        Ok(sound.filter(|container| container.image == *image).collect())
    }

    /// Removes a container. With `kill`, one that runs is killed first. Concurrent removal by another process is a
    /// success.
    ///
    /// # Errors
    /// [`EngineError::IsRunning`] and [`EngineError::IsRestarting`] without `kill`, and [`EngineError::Busy`] when another process
    /// holds its lock for another reason.
    pub fn remove(&self, container: &Listed, kill: bool) -> Result<(), EngineError> {
        let id = container.id();
        let began = Instant::now();
        let (mut is_told, mut ends_for_good) = (false, false);
        loop {
            match (self.lock(id), container) {
                (Ok(Lock::Held(_lock)), _) if !self.is_orphan(id) => {
                    if let Ok(Some(container)) = self.read(id) {
                        release_groups(&container);
                    }
                    return self.erase(id);
                }
                (Ok(Lock::Held(_)), _) => {}
                (Ok(Lock::Gone), _) => return Ok(()),
                (Ok(Lock::Busy), _) => {}
                // Without a usable lock file no process can run it.
                (Err(_), Listed::Damaged(_)) => return self.erase(id),
                (Err(error), Listed::Sound(_)) => return Err(error.into()),
            }
            match self.read(id) {
                Ok(Some(Container { state: State::Running { .. }, name, .. })) if !kill => {
                    return Err(EngineError::IsRunning(name));
                }
                Ok(Some(Container { state: State::Restarting { .. }, name, .. })) if !kill => {
                    return Err(EngineError::IsRestarting(name));
                }
                Ok(Some(Container { state: State::Running { pid, .. }, .. })) => {
                    ends_for_good = ends_for_good || self.end_restarts(container);
                    self.kill(id, pid)?;
                    if let Listed::Sound(container) = container
                        && !std::mem::replace(&mut is_told, true)
                    {
                        self.event(container, "kill", &[("signal", "9".to_owned())]);
                    }
                }
                Ok(Some(Container { state: State::Restarting { .. }, .. })) => {
                    ends_for_good = ends_for_good || self.end_restarts(container);
                }
                _ => {}
            }
            if began.elapsed() > PATIENCE {
                return Err(EngineError::Busy(id.to_owned()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Keeps a container that is removed at its end, because a command starts it again.
    ///
    /// # Errors
    /// Fails when the record cannot be written.
    pub fn keep_for_start(&self, container: &Container) -> Result<(), EngineError> {
        if container.auto_remove {
            self.change(&container.id, |record| record.awaits_start = true)?;
        }
        Ok(())
    }

    /// Makes the monitor of a container that is removed not start it again; false while it cannot be reached.
    fn end_restarts(&self, container: &Listed) -> bool {
        let Listed::Sound(container) = container else { return true };
        let monitor = self.connect(container).ok().flatten();
        monitor.is_some_and(|monitor| monitor.stop().is_ok())
    }

    /// True when the program of a container runs and no monitor serves it: its monitor was killed.
    pub fn has_lost_monitor(&self, container: &Container) -> bool {
        container.state.is_alive() && self.connect(container).is_ok_and(|connection| connection.is_none())
    }

    /// True when the program of a container runs although its monitor was killed.
    fn is_orphan(&self, id: &str) -> bool {
        self.read(id).is_ok_and(|record| record.is_some_and(|container| container.state.is_alive()))
    }

    /// Kills the first process of a container, after a check that the pid has not been reused.
    fn kill(&self, id: &str, pid: i32) -> Result<(), EngineError> {
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(()) };
        let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            return Ok(());
        };
        // While the monitor holds the lock the pid cannot have been reused.
        if matches!(self.lock(id)?, Lock::Busy) || self.is_orphan(id) {
            let _ = rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL);
            self.thaw(id);
        }
        Ok(())
    }
}

impl Owned {
    /// Directory of the container.
    pub(crate) fn dir(&self) -> PathBuf {
        self.records.path(&self.container.id)
    }

    /// Writes the state, and what belongs to a start. All else in the record may have been changed by other processes.
    pub(crate) fn set_state(&mut self, state: State) -> Result<(), EngineError> {
        self.container.state = state;
        let own = &self.container;
        let changed = self.records.change(&own.id, |record| {
            record.state = own.state.clone();
            record.profile.clone_from(&own.profile);
            record.groups.clone_from(&own.groups);
            record.pipes = own.pipes;
            record.has_lost_terminal = own.has_lost_terminal;
            record.endpoints.clone_from(&own.endpoints);
            record.restarts = own.restarts;
        })?;
        if let Some(changed) = changed {
            self.container = changed;
        }
        Ok(())
    }

    /// Reads from the record what the user may have changed since the start: the restart policy, and whether a command
    /// starts it again.
    pub(crate) fn read_policy(&mut self) {
        if let Ok(Some(record)) = self.records.read(&self.container.id) {
            self.container.restart = record.restart;
            self.container.awaits_start = record.awaits_start;
            self.container.settings.attachments = record.settings.attachments;
        }
    }

    /// Removes the container and its files.
    pub fn remove(self) -> Result<(), EngineError> {
        self.records.erase(&self.container.id)
    }
}

/// Kills what is left in the cgroups of a container whose program ended without a monitor, and removes them: the processes
/// of a container without a pid namespace outlive the first one.
fn release_groups(container: &Container) {
    const SIGKILL: i32 = 9;
    let is_of_this_boot =
        matches!(&container.state, State::Running { boot, .. } if boot.is_empty() || *boot == boot_id());
    if let Some(groups) = container.groups.as_ref().filter(|groups| is_of_this_boot && !groups.are_reused()) {
        // What is busy for a moment is removed by a later start.
        let _ = groups.signal(SIGKILL);
        groups.remove_if_empty();
    }
}

/// True when a container without a monitor is to be removed: it was to be at its end, or before its first start by a command
/// that was killed.
fn is_abandoned(container: &Container) -> bool {
    container.auto_remove && !container.awaits_start && !container.state.is_alive()
}

/// State of a container whose monitor was killed; `None` when it stays: the program runs, or had ended before.
fn without_monitor(state: &State) -> Option<State> {
    let ended = |code, started: &String, finished, error: &str| State::Exited {
        code,
        started: started.clone(),
        finished,
        error: error.to_owned(),
        is_out_of_memory: false,
    };
    match state {
        State::Running { .. } if state.is_alive() => None,
        State::Running { started, boot, .. } if !boot.is_empty() && *boot != boot_id() => {
            Some(ended(UNKNOWN_CODE, started, now(), ENDED_WITH_HOST))
        }
        State::Running { pid, ticks, started, .. } => Some(match launch::unreaped_code(*pid, ticks) {
            Some(code) => ended(code, started, now(), ""),
            None => ended(UNKNOWN_CODE, started, now(), UNKNOWN_END),
        }),
        State::Restarting { code, started, finished } => Some(ended(*code, started, finished.clone(), "")),
        State::Created { .. } | State::Exited { .. } => None,
    }
}

/// Writes a record in the directory of its container; on a full disk, in the space `spare` that the store keeps for that.
fn write_record(dir: &Path, container: &Container, spare: Option<&Path>) -> Result<(), CallError> {
    let (new, path) = (dir.join("container.json.new"), dir.join("container.json"));
    let bytes = serde_json::to_vec(container).expect("a record is made of texts and numbers");
    let written = fs::File::create(&new).call("open", &new);
    match (written.and_then(|mut file| file.write_all(&bytes).call("write", &new)), spare) {
        (Err(error), Some(root)) if error.is_full() => spare::write(root, &new, &bytes)?,
        (written, _) => written?,
    }
    fs::rename(&new, &path).call("rename", &path)
}

fn named(call: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CallError {
    let path = path.to_owned();
    move |error| CallError { call, path, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(N), "the kernel gives a few random bytes at once");
    bytes
}

#[cfg(test)]
mod tests;
