//! What a command opens: settings, store, and the helper that makes containers.

use crate::arguments::Globals;
use crate::config::Config;
use crate::error::CliError;
use crate::{text, ui};
use kiln_engine::{Containers, Listed};
use kiln_image::store::Store;
use kiln_runtime::{Spawner, host};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Settings and store.
pub struct Session {
    /// The settings.
    pub config: Config,
    /// The store.
    pub store: Store,
}

impl Session {
    /// Opens the store.
    pub fn open(globals: &Globals) -> Result<Session, CliError> {
        require_root()?;
        raise_open_files();
        let config = Config::read(globals)?;
        let mut store = Store::open(&config.root)?;
        store.on_change(Box::new(durability()?));
        Ok(Session { config, store })
    }
}

/// Tells of containers whose records cannot be read, a line for each.
pub fn warn_of_damage(listed: &[Listed]) {
    for one in listed {
        let Listed::Damaged(damaged) = one else { continue };
        let id = text::short(&damaged.id);
        let reason = crate::error::chain(&damaged.reason);
        ui::tell_line(&format!("warning: container {id} is damaged: {reason}; `kiln rm {id}` removes it"));
    }
}

/// Tells of containers whose records cannot be read, among all.
pub fn warn_of_damaged(containers: &Containers<'_>) -> Result<(), CliError> {
    warn_of_damage(&containers.list()?);
    Ok(())
}

/// Starts the helper that makes containers. Must come before anything that makes threads.
pub fn start_helper() -> Result<Spawner, CliError> {
    require_root()?;
    host::check().map_err(|error| CliError::failed(error.to_string()))?;
    Spawner::start().map_err(|error| CliError::failed(error.to_string()))
}

/// Deep trees of many layers need a handle for each directory of each. Containers get the limit that this process began
/// with: the helper that makes them is started before.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where that is not allowed, things are as they were.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn require_root() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::failed("kiln must run as root: rootless operation is not supported yet")
        .hint("run the same command with sudo"))
}

/// The word that has the program sync the store in its current directory, instead of a command.
pub const SYNC: &str = "store-sync";

/// How changes of the store reach the disk: `KILN_DURABILITY` is `strict`, where a command waits for that, or `soon`, where
/// a process of its own does, which the command does not wait for.
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
        // What cannot be synced now is synced by the kernel, some seconds later.
        let Ok(mut child) = command.spawn() else { return };
        if waits {
            let _ = child.wait();
        }
    })
}

/// True for a store that no power cut leaves anything of.
fn is_in_memory(root: &Path) -> bool {
    // TMPFS_MAGIC and RAMFS_MAGIC of linux/magic.h.
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(root).is_ok_and(|found| IN_MEMORY.contains(&(found.f_type as u64)))
}
