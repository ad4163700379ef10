//! Namespaces that a container shares with the host or with another container.

use serde::{Deserialize, Serialize};

/// Namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Process ids of the container.
    pub pid: NamespaceMode,
    /// System V IPC, POSIX message queues, and /dev/shm.
    pub ipc: NamespaceMode,
    /// Host name and domain name.
    pub uts: NamespaceMode,
    /// View of the cgroups.
    pub cgroup: NamespaceMode,
}

/// Owner of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// The container and no other.
    #[default]
    Private,
    /// The container, and others that ask for it; of IPC only.
    Shareable,
    /// The container alone, without a /dev/shm; of IPC only.
    None,
    /// The host and its processes.
    Host,
    /// Another container, by name or id.
    Container(String),
}

/// A mode that a namespace does not have, or options that contradict it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// A mode that does not exist.
    #[error("invalid {kind} mode: {mode}")]
    Mode {
        /// Kind of namespace, in capitals.
        kind: &'static str,
        /// Mode as its user wrote it.
        mode: String,
    },
    /// User namespaces of containers.
    #[error(
        "the user namespace mode {0:?} is not supported: containers run in the host's user namespace, with fewer capabilities"
    )]
    Users(String),
    /// Two options of which the first needs a namespace that the second leaves out.
    #[error("conflicting options: {0} and the {1} mode")]
    Conflict(&'static str, &'static str),
    /// A container that does not run.
    #[error("cannot join the {kind} namespace of a non running container: {id}")]
    NotRunning {
        /// Kind of namespace, in capitals.
        kind: &'static str,
        /// Id of the other container.
        id: String,
    },
    /// A container whose IPC namespace is private.
    #[error(
        "can't join IPC of container {0}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    )]
    NotShareable(String),
    /// A container that no longer exists.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
}

impl NamespaceMode {
    /// Reads a mode of the namespace `kind`: PID, IPC, UTS or CGROUP.
    ///
    /// # Errors
    /// [`NamespaceError::Mode`] for modes that this kind does not have.
    pub fn parse(kind: &'static str, text: &str) -> Result<NamespaceMode, NamespaceError> {
        let has_containers = kind != "CGROUP";
        Ok(match (text, text.split_once(':')) {
            ("" | "private", _) => NamespaceMode::Private,
            ("host", _) => NamespaceMode::Host,
            ("shareable", _) if kind == "IPC" => NamespaceMode::Shareable,
            ("none", _) if kind == "IPC" => NamespaceMode::None,
            (_, Some(("container", name))) if has_containers && !name.is_empty() => {
                NamespaceMode::Container(name.to_owned())
            }
            _ => return Err(NamespaceError::Mode { kind, mode: text.to_owned() }),
        })
    }

    /// Text of the mode in Docker's options; `private` is the text of a container's own namespace.
    pub fn text(&self, private: &str) -> String {
        match self {
            NamespaceMode::Private => private.to_owned(),
            NamespaceMode::Shareable => "shareable".to_owned(),
            NamespaceMode::None => "none".to_owned(),
            NamespaceMode::Host => "host".to_owned(),
            NamespaceMode::Container(name) => format!("container:{name}"),
        }
    }
}

impl Namespaces {
    /// The modes with the names of their kinds.
    pub(crate) fn all_mut(&mut self) -> [(&'static str, &mut NamespaceMode); 4] {
        let Namespaces { pid, ipc, uts, cgroup } = self;
        [("PID", pid), ("IPC", ipc), ("UTS", uts), ("CGROUP", cgroup)]
    }
}

/// Checks a mode of user namespaces: only the host's is supported.
///
/// # Errors
/// [`NamespaceError::Users`] for the others, [`NamespaceError::Mode`] for modes that do not exist.
pub fn user_mode(text: &str) -> Result<(), NamespaceError> {
    let known = ["private", "keep-id", "auto", "nomap", "ns", "container"];
    match text.split(':').next().unwrap_or_default() {
        "" | "host" => Ok(()),
        name if known.contains(&name) => Err(NamespaceError::Users(text.to_owned())),
        _ => Err(NamespaceError::Mode { kind: "USER", mode: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        use NamespaceMode::{Container, Host, None, Private, Shareable};
        assert_eq!(NamespaceMode::parse("PID", "container:x"), Ok(Container("x".into())));
        assert_eq!(NamespaceMode::parse("IPC", "shareable"), Ok(Shareable));
        assert_eq!(NamespaceMode::parse("IPC", "none"), Ok(None));
        assert_eq!(NamespaceMode::parse("UTS", "host"), Ok(Host));
        assert_eq!(NamespaceMode::parse("CGROUP", "private"), Ok(Private));
        for (kind, text) in [
            ("PID", "shareable"),
            ("PID", "x"),
            ("UTS", "none"),
            ("CGROUP", "container:x"),
            ("IPC", "container:"),
        ] {
            assert!(NamespaceMode::parse(kind, text).is_err(), "{kind} {text}");
        }
        assert!(user_mode("host").is_ok());
        assert!(matches!(user_mode("keep-id:uid=1"), Err(NamespaceError::Users(_))));
        assert!(matches!(user_mode("x"), Err(NamespaceError::Mode { .. })));
    }
}
