//! Opens what most commands need: settings, store, and the helper process that makes containers.

use crate::arguments::Globals;
use crate::config::{Config, STATE};
use crate::error::CliError;
use crate::{text, ui};
use kiln_engine::{Container, Containers, Listed, Monitor, Records};
use kiln_image::store::Store;
use kiln_runtime::{Spawner, host};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tracing::debug;

/// Settings and store of a command.
pub struct Session {
    /// Settings from all sources.
    pub config: Config,
    /// Store at the configured root.
    pub store: Store,
}

impl Session {
    /// Reads the settings and opens the store.
    ///
    /// # Errors
    ///
    /// Fails without root, for invalid settings, and when the store cannot be opened.
    pub fn open(globals: &Globals) -> Result<Session, CliError> {
        require_root()?;
        raise_open_files();
        let config = Config::read(globals)?;
        debug!(root = %config.root.display(), "store");
        let mut store = Store::open(&config.root)?;
        store.on_change(Box::new(durability()?));
        Ok(Session { config, store })
    }
}

/// Prints a warning for each container whose record cannot be read.
pub fn warn_of_damage(listed: &[Listed]) {
    for one in listed {
        let Listed::Damaged(damaged) = one else { continue };
        let id = text::short(&damaged.id);
        let reason = crate::error::chain(&damaged.reason);
        ui::tell_line(&format!("warning: container {id} is damaged: {reason}; `kiln rm {id}` removes it"));
    }
}

/// Lists the containers, and prints a warning for each whose record cannot be read.
///
/// # Errors
///
/// Fails when the containers cannot be listed.
pub fn warn_of_damaged(containers: &Containers<'_>) -> Result<(), CliError> {
    warn_of_damage(&containers.list()?);
    Ok(())
}

/// Starts the helper process that makes containers. Must be called before threads are started.
///
/// # Errors
///
/// Fails without root, on unsupported hosts, and when the process cannot be started.
pub fn start_helper() -> Result<Spawner, CliError> {
    require_root()?;
    host::check().map_err(|error| CliError::failed(error.to_string()))?;
    Spawner::start().map_err(|error| CliError::failed(error.to_string()))
}

/// Forks the monitor of a container. Must be called before threads are started.
///
/// # Errors
///
/// Fails without root, on unsupported hosts, and when the process cannot be started.
pub fn start_monitor() -> Result<Monitor, CliError> {
    require_root()?;
    host::check().map_err(|error| CliError::failed(error.to_string()))?;
    Ok(Monitor::fork()?)
}

/// Name of the internal command that looks after a container whose monitor was killed: its arguments are the store's root
/// and the container's id.
pub const ADOPT: &str = "container-adopt";

/// Makes a new monitor for a container if its own was killed while its program runs; returns whether it did. What cannot be
/// done is a warning: the command then shows what it can without a monitor.
pub fn adopt(containers: &Records, container: &Container) -> bool {
    if !containers.has_lost_monitor(container) {
        return false;
    }
    // In another process: this one may have threads, and a monitor is forked from a process without.
    let mut command = Command::new("/proc/self/exe");
    command.arg(ADOPT).arg(containers.root()).arg(&container.id);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let name = &container.name;
    match command.output() {
        Ok(done) if done.status.success() => {
            let lost = if container.settings.tty { "; its terminal is lost" } else { "" };
            ui::tell_line(&format!(
                "warning: the monitor of container {name} was killed, and is replaced{lost}"
            ));
            true
        }
        Ok(done) => {
            let reason = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            ui::tell_line(&format!(
                "warning: the monitor of container {name} was killed, and cannot be replaced"
            ));
            ui::tell_line(&reason);
            false
        }
        Err(_) => false,
    }
}

/// Carries out the internal command [`ADOPT`]; returns its exit code.
pub fn adopt_here(arguments: &[OsString]) -> u8 {
    let adopted = || -> Result<(), CliError> {
        let [root, id] = arguments else { return Err(CliError::failed("container-adopt needs ROOT and ID")) };
        let monitor = start_monitor()?;
        let store = Store::open(Path::new(root))?;
        let containers = Containers::open(&store)?;
        let Listed::Sound(container) = containers.find(&id.to_string_lossy())? else { return Ok(()) };
        // Another command may have been faster, or the program has ended.
        let Some(owned) = containers.take_orphan(&container)? else { return Ok(()) };
        let adopted = monitor.adopt(&containers, owned, Path::new(STATE));
        adopted.map(drop).map_err(|failure| CliError::failed(failure.to_string()))
    };
    adopted().map_or_else(|error| error.report(), |()| 0)
}

/// Raises the limit of open files to its maximum: deep trees of many layers need a file descriptor for each directory of
/// each layer. Containers keep the original limit, since the helper process is started before.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // When that is refused, the limit stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn require_root() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::failed("kiln must run as root: rootless operation is not supported yet")
        .hint("run the same command with sudo"))
}

/// Name of the internal command that syncs the store in the working directory.
pub const SYNC: &str = "store-sync";

/// Returns the action that brings changes of the store to the disk. It starts a process that syncs; with
/// `KILN_DURABILITY=strict` the command waits for that process, with `soon` (the default) it does not.
fn durability() -> Result<impl Fn(&Path) + Send + Sync, CliError> {
    let waits = match std::env::var("KILN_DURABILITY").as_deref() {
        Ok("strict") => true,
        Ok("soon" | "") | Err(_) => false,
        Ok(other) => {
            return Err(CliError::failed(format!("KILN_DURABILITY is `{other}`"))
                .hint("it is `strict` (commands wait until what they made is on disk) or `soon`"));
        }
    };
    Ok(move |root: &Path| {
        if is_in_memory(root) {
            return;
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg(SYNC).env_clear().current_dir(root).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // On failure the kernel writes the data back some seconds later.
        let Ok(mut child) = command.spawn() else { return };
        if waits {
            let _ = child.wait();
        }
    })
}

/// True for a store in memory, of which a power cut leaves nothing.
fn is_in_memory(root: &Path) -> bool {
    // TMPFS_MAGIC and RAMFS_MAGIC of linux/magic.h.
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(root).is_ok_and(|found| IN_MEMORY.contains(&(found.f_type as u64)))
}
