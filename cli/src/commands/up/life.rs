//! The container of a project: made and started in place of the one before, stopped, removed.

use super::interrupt::Interrupt;
use super::ports::{self, Chosen};
use super::project::{LABEL, Project};
use crate::commands::build::remove_unused;
use crate::commands::run::{Flags, start_error};
use crate::commands::stop::{Patience, stop_one};
use crate::config::STATE;
use crate::error::{CliError, code};
use crate::session::{self, Session};
use crate::{text, ui};
use kiln_engine::mount::{MountPoint, MountRequest, Wanted};
use kiln_engine::{Container, Containers, Listed, Owned, RunOptions, StartOptions};
use kiln_image::digest::ImageId;
use kiln_image::store::{Image, Store};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Name of the internal command that starts a container: its arguments are the store's root and the container's id.
pub const BEGIN: &str = "container-begin";
/// Seconds for a container to end before one with a new image starts, unless it has a time of `--stop-timeout`.
const RESTART_GRACE: u64 = 1;
/// Number of times that other free ports are tried.
const TRIES: usize = 3;

/// The containers that `kiln up` makes of a project's images.
pub(super) struct Life<'a> {
    pub(super) session: &'a Session,
    pub(super) containers: &'a Containers<'a>,
    pub(super) project: &'a Project,
    pub(super) flags: &'a Flags,
    pub(super) options: RunOptions,
    pub(super) interrupt: &'a Interrupt,
}

/// End of an attempt to replace a container.
pub(super) enum Replaced {
    /// The new container runs, or has ended meanwhile.
    Started(Box<Container>),
    /// It did not start, with this exit code; the reason was printed.
    NotStarted(u8),
    /// Another command has replaced or removed the container in the meantime.
    Taken,
    /// This signal came while the old container was stopped, which is removed.
    Interrupted(i32),
}

/// Which container may be replaced.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// Any of the project.
    Any,
    /// The one with this id, if there is one.
    Only(Option<&'a str>),
}

impl Before<'_> {
    /// Time for the old container to end. The user waits for a restart after an edit, and many programs ignore the signal:
    /// as the first process of a pid namespace they only get those that they handle.
    fn patience(self, old: &Container) -> Patience {
        match self {
            Before::Only(_) if old.settings.stop_timeout.is_none() => Patience::Seconds(RESTART_GRACE),
            _ => Patience::OfContainer,
        }
    }
}

impl Life<'_> {
    /// The project's container; `None` when its name is free.
    ///
    /// # Errors
    ///
    /// Fails when a container of the same name was made otherwise.
    pub(super) fn current(&self) -> Result<Option<Box<Container>>, CliError> {
        let name = &self.project.name;
        let foreign = |id: &str, made: String| {
            CliError::failed(format!("the name {name} is in use by container {}, {made}", text::short(id)))
                .hint(format!(
                    "choose another name (--name NAME), or remove that container: kiln rm -f {name}"
                ))
        };
        match self.containers.named(name)? {
            None => Ok(None),
            Some(Listed::Damaged(damaged)) => Err(foreign(&damaged.id, "whose record is damaged".to_owned())),
            Some(Listed::Sound(container)) => match container.settings.labels.get(LABEL) {
                Some(dir) if *dir == self.project.label() => Ok(Some(container)),
                Some(dir) => Err(foreign(&container.id, format!("which `kiln up` made of {dir}"))),
                None => Err(foreign(&container.id, "which `kiln up` has not made".to_owned())),
            },
        }
    }

    /// Starts a container of an image in place of the project's container, on its ports and with its volumes. `stopped` is
    /// called when the old one has ended and still has its log.
    ///
    /// # Errors
    ///
    /// Fails when the old container cannot be removed, or the new one not be made.
    pub(super) fn replace(
        &self,
        image: &ImageId,
        before: Before<'_>,
        ports_before: &Chosen,
        stopped: &mut dyn FnMut(),
    ) -> Result<Replaced, CliError> {
        let _lock = self.project.lock();
        let old = self.current()?;
        if let Before::Only(id) = before
            && id != old.as_ref().map(|old| old.id.as_str())
        {
            return Ok(Replaced::Taken);
        }
        // Layers of the image must not be collected before the container pins them.
        let using = self.session.store.use_layers()?;
        let image = self.session.store.read_image(self.session.store.resolve(&image.to_string())?)?;
        let mut options = self.options.clone();
        let mut kept = ports_before.clone();
        if let Some(old) = &old {
            options.kept = kept_volumes(&mut options.mounts, old, &image);
            kept.extend(ports::chosen(old));
            self.stop_for_another(old, before)?;
            stopped();
            if let Some(signal) = self.interrupt.signal() {
                self.remove(old)?;
                return Ok(Replaced::Interrupted(signal));
            }
            // Removed by the new one when that exists: its volumes belong to one of them at any moment.
            options.replaces = true;
        }
        let started = self.start(&image, options, &kept);
        drop(using);
        if let Some(old) = &old {
            // Those that the new container does not mount.
            self.containers.remove_anonymous_volumes(old)?;
            forget(&self.session.store, &old.image);
        }
        started
    }

    /// Stops the container that another one replaces. A second signal kills it.
    fn stop_for_another(&self, old: &Container, before: Before<'_>) -> Result<(), CliError> {
        if old.state.is_live() && matches!(before, Before::Any) {
            ui::tell_line(&format!(
                "stopping the old container {} (pressing Ctrl-C twice kills it)",
                old.name
            ));
        }
        let process = self.containers.live(old).ok().and_then(|live| live.pidfd().try_clone().ok());
        self.interrupt.set_process(process);
        let stopped = stop_one(self.containers, old, None, &before.patience(old));
        self.interrupt.set_process(None);
        stopped.map(drop)
    }

    /// Creates and starts a container. Ports that another program takes in the meantime are chosen again.
    fn start(&self, image: &Image, mut options: RunOptions, kept: &Chosen) -> Result<Replaced, CliError> {
        let has_choice = options.published.is_empty() && options.network.has_networks();
        for attempt in 1.. {
            if has_choice {
                let exposed = image.config.config.exposed_ports.keys().chain(&options.exposed);
                options.published.ports = ports::requests(exposed, kept, ports::is_free);
            }
            let name = self.project.image();
            let owned = self.flags.create(self.containers, (image, &name), &options)?;
            let container = owned.container.clone();
            drop(owned);
            let (code, message) = self.begin(&container.id)?;
            if code == 0 {
                return Ok(match self.containers.find(&container.id)? {
                    Listed::Sound(container) => Replaced::Started(container),
                    Listed::Damaged(_) => Replaced::Taken,
                });
            }
            self.remove(&container)?;
            if has_choice && attempt < TRIES && message.contains("port is already allocated") {
                continue;
            }
            ui::tell(&message);
            return Ok(Replaced::NotStarted(code));
        }
        unreachable!("the last attempt returns")
    }

    /// Starts a container in another process: this one has threads, and a monitor is forked from a process without. Returns
    /// its exit code and its messages.
    fn begin(&self, id: &str) -> Result<(u8, String), CliError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(BEGIN).arg(self.containers.root()).arg(id);
        // A signal from the terminal must not end it in the middle of the start.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let done = command
            .output()
            .map_err(|error| CliError::failed(format!("cannot run /proc/self/exe: {error}")))?;
        let code = done.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(code::USAGE);
        Ok((code, String::from_utf8_lossy(&done.stderr).into_owned()))
    }

    /// Removes a container with its anonymous volumes.
    pub(super) fn remove(&self, container: &Container) -> Result<(), CliError> {
        self.containers.remove(&Listed::Sound(Box::new(container.clone())), true)?;
        Ok(self.containers.remove_anonymous_volumes(container)?)
    }

    /// Stops a container, calls `stopped`, and removes it with its anonymous volumes. One that another command has removed is
    /// no failure.
    pub(super) fn end(&self, container: &Container, stopped: &mut dyn FnMut()) -> Result<(), CliError> {
        let _lock = self.project.lock();
        let Ok(Listed::Sound(container)) = self.containers.find(&container.id) else { return Ok(()) };
        session::adopt(self.containers, &container);
        stop_one(self.containers, &container, None, &Patience::OfContainer)?;
        stopped();
        self.remove(&container)
    }
}

/// Anonymous volumes that go over to a new container: those that it would have at the same targets. Requests for them are
/// removed from `mounts`.
fn kept_volumes(mounts: &mut Vec<MountRequest>, old: &Container, image: &Image) -> Vec<MountPoint> {
    let is_kept = |point: &&MountPoint| {
        if point.anonymous_volume().is_none() {
            return false;
        }
        match mounts.iter().position(|request| request.target == point.target) {
            Some(at) if matches!(mounts[at].source, Wanted::Volume { name: None, .. }) => {
                mounts.remove(at);
                true
            }
            Some(_) => false,
            None => {
                let mut volumes = image.config.config.volumes.keys();
                volumes.any(|path| path.trim_end_matches('/') == point.target)
            }
        }
    };
    old.settings.mounts.iter().filter(is_kept).cloned().collect()
}

/// Removes an image that nothing uses any more. A failure only leaves it in the list of images.
pub(super) fn forget(store: &Store, image: &ImageId) {
    if let Err(error) = remove_unused(store, &BTreeSet::from([image.clone()])) {
        tracing::debug!(?error, "an image that was replaced stays");
    }
}

/// Carries out the internal command [`BEGIN`]; returns its exit code.
pub fn begin_here(arguments: &[OsString]) -> u8 {
    let begun = || -> Result<(), CliError> {
        let [root, id] = arguments else { return Err(CliError::failed("container-begin needs ROOT and ID")) };
        let monitor = session::start_monitor()?;
        let store = Store::open(Path::new(root))?;
        let containers = Containers::open(&store)?;
        let Listed::Sound(container) = containers.find(&id.to_string_lossy())? else { return Ok(()) };
        // Another command has started it.
        let Some(owned): Option<Owned> = containers.take(&container)? else { return Ok(()) };
        let options = StartOptions { state: Path::new(STATE), size: (0, 0), attach: None };
        let started = monitor.start(&containers, owned, &options);
        started.map(drop).map_err(|failure| start_error(&failure))
    };
    begun().map_or_else(|error| error.report(), |()| 0)
}
