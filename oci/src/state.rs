//! State of a container: a directory named after it, emptied at boot, with one file (its record on the first line, its
//! configuration unchanged below) and the socket at which it waits to be started.
//!
//! A process is identified by its pid and its start time, so that a reused pid is not mistaken for it. All files are
//! written under a temporary name and renamed.

use crate::error::{OciError, StateError};
use kiln_runtime::cgroup::{Extent, Groups};
use kiln_runtime::container::cgroup_place;
use kiln_runtime::host::Host;
use kiln_runtime::resctrl::Class;
use oci_spec::runtime::Spec;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the specification that is implemented.
pub(crate) const OCI_VERSION: &str = "1.2.1";

const STATE_FILE: &str = "state";
const GATE: &str = "gate";

/// Record of a container, the first line of its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Start time of the first process, in ticks since boot.
    pub(crate) start_time: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) owner: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) groups: Groups,
    /// Class of the container for caches and memory bandwidth; `None` when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<Class>,
    /// Separate namespaces of the container, as `CLONE_NEW…` bits.
    pub(crate) namespaces: u64,
}

/// Status of a container in its lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its creation has not ended.
    Creating,
    /// It waits to be started.
    Created,
    /// Its first process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// State as reported to callers (OCI runtime specification, "State").
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    oci_version: &'static str,
    pub(crate) id: &'a str,
    pub(crate) pid: i32,
    pub(crate) status: Status,
    pub(crate) bundle: &'a Path,
    pub(crate) rootfs: &'a Path,
    pub(crate) created: &'a str,
    annotations: &'a BTreeMap<String, String>,
    pub(crate) owner: &'a str,
}

/// Directory of all containers.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// Directory of one container.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    id: String,
}

/// Container as stored on disk.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) dir: Dir,
    pub(crate) record: Record,
    config: Vec<u8>,
}

impl Store {
    pub(crate) fn new(root: Option<&str>) -> Store {
        Store { root: root.map_or_else(default_root, PathBuf::from) }
    }

    /// Creates the directory of a new container.
    pub(crate) fn create(&self, id: &str) -> Result<Dir, OciError> {
        check_id(id)?;
        let path = self.root.join(id);
        let make = || rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700));
        let made = match make() {
            Err(rustix::io::Errno::NOENT) => {
                fs::create_dir_all(&self.root).map_err(OciError::file("make", &self.root))?;
                make()
            }
            other => other,
        };
        match made {
            Ok(()) => Ok(Dir { path, id: id.to_owned() }),
            Err(rustix::io::Errno::EXIST) => Err(OciError::Exists(id.to_owned())),
            Err(errno) => Err(OciError::file("make", &path)(errno.into())),
        }
    }

    /// Directory of a container, whether or not its record is complete.
    pub(crate) fn dir(&self, id: &str) -> Result<Dir, OciError> {
        check_id(id)?;
        let path = self.root.join(id);
        if !path.is_dir() {
            return Err(OciError::NotFound(id.to_owned()));
        }
        Ok(Dir { path, id: id.to_owned() })
    }

    /// Opens an existing container.
    pub(crate) fn open(&self, id: &str) -> Result<Container, OciError> {
        let dir = self.dir(id)?;
        let (record, config) = dir.read()?.ok_or_else(|| StateError::Creating(id.to_owned()))?;
        Ok(Container { dir, record, config })
    }

    /// All containers, sorted by id.
    pub(crate) fn list(&self) -> Result<Vec<Container>, OciError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(OciError::file("read", &self.root)(error)),
        };
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().map(str::to_owned) else { continue };
            // A container that is being created or removed at this moment is skipped.
            if let Ok(container) = self.open(&id) {
                found.push(container);
            }
        }
        found.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(found)
    }
}

fn default_root() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime.filter(|_| !rustix::process::geteuid().is_root()) {
        Some(dir) => Path::new(&dir).join("kiln-oci"),
        None => PathBuf::from("/run/kiln-oci"),
    }
}

/// Checks an id, which names directories and cgroups: it must not be a path.
fn check_id(id: &str) -> Result<(), OciError> {
    const LONGEST: usize = 255;
    if id.len() > LONGEST {
        return Err(OciError::Usage(format!(
            "invalid container ID: it has {} characters, and at most {LONGEST} make the name of a directory",
            id.len()
        )));
    }
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
    if id.is_empty() || id.starts_with('.') || !id.chars().all(fine) {
        let why = match id.chars().find(|letter| !fine(*letter)) {
            Some(letter) => format!("invalid character {letter:?}"),
            None if id.is_empty() => "it is empty".to_owned(),
            None => "it begins with a dot".to_owned(),
        };
        return Err(OciError::Usage(format!(
            "invalid container ID {id:?}: {why} (it consists of letters, digits, `_`, `+`, `-` and `.`, and does not begin with a dot)"
        )));
    }
    Ok(())
}

impl Dir {
    /// Record and configuration. `None` while the container is being created.
    fn read(&self) -> Result<Option<(Record, Vec<u8>)>, OciError> {
        let path = self.path.join(STATE_FILE);
        let mut text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OciError::file("read", &path)(error)),
        };
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        let record = serde_json::from_slice(&text[..end])
            .map_err(|source| OciError::Record { path: path.clone(), source })?;
        text.drain(..text.len().min(end + 1));
        Ok(Some((record, text)))
    }

    /// Writes the record and, below it, the configuration that the container was created from.
    pub(crate) fn write(&self, record: &Record, config: &[u8]) -> Result<(), OciError> {
        let mut text = serde_json::to_vec(record).unwrap_or_default();
        text.push(b'\n');
        text.extend_from_slice(config);
        write_beside(&self.path.join(STATE_FILE), &text)
    }

    /// Opens the gate's socket, at which the container will wait.
    pub(crate) fn make_gate(&self) -> Result<OwnedFd, OciError> {
        let failed = |errno: rustix::io::Errno| OciError::file("make", &self.path.join(GATE))(errno.into());
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
        self.with_gate(|address| rustix::net::bind(&socket, address)).map_err(failed)?;
        rustix::net::listen(&socket, 4).map_err(failed)?;
        Ok(socket)
    }

    /// Connects to a container that waits at its gate. `None` when none does.
    pub(crate) fn connect(&self) -> Option<OwnedFd> {
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).ok()?;
        self.with_gate(|address| rustix::net::connect(&socket, address)).ok()?;
        Some(socket)
    }

    /// Calls a function with the address of the gate. Socket addresses have at most 108 bytes: the directory is
    /// addressed by a descriptor.
    fn with_gate<T>(
        &self,
        call: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{GATE}", dir.as_raw_fd()))?;
        call(&address)
    }

    fn has_gate(&self) -> bool {
        self.path.join(GATE).exists()
    }

    /// Removes the gate of a container that has been started.
    pub(crate) fn remove_gate(&self) {
        let _ = fs::remove_file(self.path.join(GATE));
    }

    /// Removes the directory. The record goes first: without it the container does not exist, even if the rest fails.
    pub(crate) fn remove(&self) -> Result<(), OciError> {
        let _ = rustix::fs::unlink(self.path.join(STATE_FILE));
        if rustix::fs::rmdir(&self.path).is_ok() {
            return Ok(());
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(OciError::file("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Container {
    /// Configuration that the container was created from.
    pub(crate) fn config(&self) -> Result<Spec, OciError> {
        crate::bundle::parse(&self.dir.path.join(STATE_FILE), &self.config).map(|(spec, _)| spec)
    }

    /// Moves the container's processes into cgroups, when it was created without.
    pub(crate) fn need_groups(&mut self) -> Result<(), OciError> {
        if !self.record.groups.is_none() {
            return Ok(());
        }
        let mut place = cgroup_place(&self.config()?, &self.record.id);
        place.extent = Extent::All;
        let groups = Groups::create(Host::get().layout(), &place, None)?;
        let adopted = groups.adopt(|| crate::commands::processes(self));
        if adopted.is_err() {
            groups.remove_if_empty();
        }
        adopted?;
        self.record.groups = groups;
        self.save()
    }

    /// Writes the changed record to disk.
    pub(crate) fn save(&self) -> Result<(), OciError> {
        self.dir.write(&self.record, &self.config)
    }

    pub(crate) fn status(&self) -> Status {
        if !self.is_alive() {
            return Status::Stopped;
        }
        if self.dir.has_gate() {
            return Status::Created;
        }
        if self.record.groups.is_frozen() { Status::Paused } else { Status::Running }
    }

    fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.record.pid)).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(')') else { return false };
        let mut fields = rest.split_whitespace();
        // An ended process that was not waited for yet counts as dead.
        let is_dead = matches!(fields.next(), Some("Z" | "X" | "x") | None);
        !is_dead && fields.nth(18) == Some(self.record.start_time.as_str())
    }

    /// Pidfd of the first process. `None` when it has ended.
    pub(crate) fn pidfd(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.record.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The pid may have been reused before the pidfd was opened: check again.
        self.is_alive().then_some(pidfd)
    }

    pub(crate) fn report(&self) -> Report<'_> {
        let status = self.status();
        self.record.report(status)
    }
}

impl Record {
    pub(crate) fn report(&self, status: Status) -> Report<'_> {
        Report {
            oci_version: OCI_VERSION,
            id: &self.id,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner: &self.owner,
        }
    }

    /// Removes the cgroups and the resctrl class of the container, which has ended.
    pub(crate) fn release(&self) -> Result<(), OciError> {
        self.groups.remove()?;
        self.leave_class()
    }

    /// Removes only the resctrl class.
    pub(crate) fn leave_class(&self) -> Result<(), OciError> {
        Ok(self.class.as_ref().map_or(Ok(()), Class::remove)?)
    }

    /// State in the JSON form that hooks receive.
    pub(crate) fn state(&self, status: Status) -> Vec<u8> {
        serde_json::to_vec(&self.report(status)).unwrap_or_default()
    }
}

/// Writes a file under a temporary name and renames it, so that it is complete or absent.
pub(crate) fn write_beside(path: &Path, text: &[u8]) -> Result<(), OciError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    fs::write(&beside, text).map_err(OciError::file("write", &beside))?;
    fs::rename(&beside, path).map_err(OciError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_and_nothing_else() {
        let (longest, longer) = ("a".repeat(255), "a".repeat(256));
        for id in ["a", "A_1+x-y.z", "0", &longest] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", ".a", "a/b", "a b", "../x", "ä", "a\n", &longer] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn an_id_is_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path().join("deep/er").to_str());
        let dir = store.create("a").unwrap();
        assert!(matches!(store.create("a"), Err(OciError::Exists(_))));
        assert!(matches!(store.open("a"), Err(OciError::State(_))));
        assert!(matches!(store.open("b"), Err(OciError::NotFound(_))));
        dir.remove().unwrap();
        assert!(matches!(store.dir("a"), Err(OciError::NotFound(_))));
        assert!(store.list().unwrap().is_empty());
    }
}
