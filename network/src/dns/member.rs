//! Members of networks: containers, their names and addresses, each in a file that the resolver reads.

use super::super::store;
use super::super::{NetworkError, file};
use kiln_runtime::cgroup::Groups;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A container whose names are known to the containers of its networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id of the container: letters and digits.
    pub id: String,
    /// Networks of the container; a name is looked up in the first one that knows it.
    pub networks: Vec<Membership>,
    /// Servers for names that no container has; empty for those of the host.
    pub servers: Vec<IpAddr>,
    /// False when the container may not reach servers outside: all of its networks are internal.
    pub forwards: bool,
}

/// A network of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Name of the network.
    pub network: String,
    /// Addresses of the container in the network.
    pub addresses: Vec<IpAddr>,
    /// Names of the container in the network: its name, which is that of its addresses, short id, and aliases.
    pub names: Vec<String>,
}

/// Process that uses a name: its pid, and its start time in ticks since boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) pid: i32,
    pub(super) ticks: String,
}

/// A member as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    #[serde(flatten)]
    pub(super) member: Member,
    pub(super) user: User,
}

impl User {
    pub(super) fn of(pid: i32) -> User {
        User { pid, ticks: Groups::start_time(pid).unwrap_or_default() }
    }

    pub(super) fn is_running(&self) -> bool {
        Groups::is_running(self.pid, &self.ticks)
    }
}

/// Directory with a file for each member.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn open(dir: &Path) -> Result<Files, NetworkError> {
        let dir = dir.join("members");
        fs::create_dir_all(&dir).map_err(file("make", &dir))?;
        Ok(Files { dir })
    }

    /// Stored member. `None` when there is none, or the id cannot be one.
    pub(super) fn read(&self, id: &str) -> Option<Stored> {
        store::read(&self.path(id)?)
    }

    pub(super) fn write(&self, stored: &Stored) -> Result<(), NetworkError> {
        let id = &stored.member.id;
        let path = self.path(id).ok_or_else(|| NetworkError::BadId(id.clone()))?;
        store::write(&path, stored)
    }

    pub(super) fn remove(&self, id: &str) {
        if let Some(path) = self.path(id) {
            // What stays is removed when the next resolver reads all files.
            let _ = fs::remove_file(path);
        }
    }

    /// All members whose process runs. The files of others are removed.
    pub(super) fn all(&self) -> Vec<Stored> {
        let stored = store::names(&self.dir).into_iter().filter_map(|id| {
            let stored = self.read(&id).filter(|stored| stored.member.id == id && stored.user.is_running());
            if stored.is_none() {
                self.remove(&id);
            }
            stored
        });
        stored.collect()
    }

    /// `None` for an id that would lead elsewhere.
    fn path(&self, id: &str) -> Option<PathBuf> {
        let is_id = !id.is_empty() && id.len() < 256 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_id.then(|| self.dir.join(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_ended_processes_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        let stored = |id: &str, user: User| {
            let member =
                Member { id: id.to_owned(), networks: Vec::new(), servers: Vec::new(), forwards: true };
            Stored { member, user }
        };
        let own = stored("aa", User::of(rustix::process::getpid().as_raw_pid()));
        files.write(&own).unwrap();
        files.write(&stored("bb", User { ticks: "1".to_owned(), ..own.user.clone() })).unwrap();
        fs::write(dir.path().join("members/cc"), "{").unwrap();
        assert_eq!(files.all(), std::slice::from_ref(&own));
        assert_eq!(store::names(&dir.path().join("members")), ["aa"]);
        let error = files.write(&stored("../aa", own.user)).unwrap_err();
        assert_eq!(error.to_string(), "`../aa` cannot be the id of a container");
    }
}
