//! Records of containers: `container.json` in the directory of each.

use crate::exec::is_same_process;
use crate::log::LogSettings;
use crate::name;
use crate::restart::RestartPolicy;
use crate::settings::Settings;
use kiln_image::digest::ImageId;
use kiln_image::sys::{CallError, Named};
use kiln_network::Binding;
use kiln_runtime::cgroup::Groups;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize};
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Largest record that is read, in bytes: arguments and environment of a program stay far below.
const LARGEST: u64 = 16 << 20;

/// Record of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Id: 64 hexadecimal digits.
    pub id: String,
    /// Name, without a slash.
    pub name: String,
    /// Time of creation, RFC 3339.
    pub created: String,
    /// Id of its image.
    pub image: ImageId,
    /// Reference of the image as the user wrote it.
    pub image_name: String,
    /// Settings that its program runs with.
    pub settings: Settings,
    /// True when it is removed at its end.
    pub auto_remove: bool,
    /// True while a start is still to come, of one that was only created or is restarted: with `auto_remove` it stays
    /// until then.
    #[serde(default)]
    pub awaits_start: bool,
    /// State of its program.
    pub state: State,
    /// AppArmor profile that it runs under; empty for none.
    #[serde(default)]
    pub profile: String,
    /// Its cgroups, none where none could be created; `None` while it does not run, and in records of older versions.
    #[serde(default)]
    pub groups: Option<Groups>,
    /// Pipes of its program's standard streams; `None` while it does not run, and with a terminal.
    #[serde(default)]
    pub pipes: Option<Pipes>,
    /// True while its program runs whose terminal was lost with a monitor that was killed.
    #[serde(default)]
    pub has_lost_terminal: bool,
    /// Endpoints in networks, in the order of its interfaces; none while it does not run, and without a network.
    #[serde(default, alias = "endpoint", deserialize_with = "one_or_several")]
    pub endpoints: Vec<Endpoint>,
    /// Whether its program is started again after its end.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Number of restarts by the policy since the last start by the user.
    #[serde(default)]
    pub restarts: u32,
    /// True when the user has stopped it.
    #[serde(default)]
    pub is_stopped: bool,
    /// True when its standard input ends with that of the first command that is attached.
    #[serde(default)]
    pub stdin_once: bool,
    /// Way in which its output is logged.
    #[serde(default)]
    pub log: LogSettings,
}

impl Container {
    /// True when it is started at boot: its policy wants that, and the user has not stopped it, or does not count for the
    /// policy. One that was never started is not.
    pub fn starts_at_boot(&self) -> bool {
        let was_started = !matches!(self.state, State::Created { .. });
        was_started && self.restart.starts_at_boot(self.is_stopped)
    }

    /// Ports that the container exposes at its own address, such as `80/tcp`: none unless it runs and has a network.
    pub fn open_ports(&self) -> impl Iterator<Item = &String> {
        let is_open = self.state.is_live() && self.settings.network.has_networks();
        self.settings.exposed.iter().filter(move |_| is_open)
    }

    /// Ports of the host that are published for it now.
    pub fn bindings(&self) -> &[Binding] {
        let holder = self.endpoints.iter().find(|endpoint| !endpoint.ports.is_empty());
        holder.map_or(&[], |endpoint| &endpoint.ports)
    }
}

/// A container whose record cannot be read.
#[derive(Debug)]
pub struct Damaged {
    /// Name of its directory, which is the id.
    pub id: String,
    /// Name that points to it; empty for none.
    pub name: String,
    /// Time at which its directory last changed, RFC 3339.
    pub created: String,
    /// Reason why the record cannot be read.
    pub reason: RecordError,
}

/// Container in a list.
#[derive(Debug)]
pub enum Listed {
    /// Container with a readable record.
    Sound(Box<Container>),
    /// Container that can only be removed.
    Damaged(Damaged),
}

impl Listed {
    pub(crate) fn sound(container: Container) -> Listed {
        Listed::Sound(Box::new(container))
    }

    /// Id of the container.
    pub fn id(&self) -> &str {
        match self {
            Listed::Sound(container) => &container.id,
            Listed::Damaged(damaged) => &damaged.id,
        }
    }

    /// Name of the container; empty for none.
    pub fn name(&self) -> &str {
        match self {
            Listed::Sound(container) => &container.name,
            Listed::Damaged(damaged) => &damaged.name,
        }
    }

    /// Time of creation, RFC 3339; for a damaged one the time of its last change.
    pub fn created(&self) -> &str {
        match self {
            Listed::Sound(container) => &container.created,
            Listed::Damaged(damaged) => &damaged.created,
        }
    }

    /// True while its program runs or is started again soon, as far as the record shows.
    pub fn is_running(&self) -> bool {
        matches!(self, Listed::Sound(container) if container.state.is_live())
    }
}

/// Reason why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A system call failed.
    #[error("its record or its lock cannot be used")]
    Call(#[from] CallError),
    /// The path is a directory, a pipe or a link.
    #[error("its record is not a regular file")]
    Kind,
    /// The file is larger than any record.
    #[error("its record is larger than {} MiB", LARGEST >> 20)]
    Size,
    /// The text is not JSON, or has another shape.
    #[error("its record is malformed, or was written by a newer version of kiln")]
    Json(#[source] serde_json::Error),
    /// The id or the name cannot be this container's.
    #[error("its record is that of another container")]
    Other,
}

/// Reads the record of the container `id` at `path`. `None` when there is none.
pub(crate) fn read(path: &Path, id: &str) -> Result<Option<Container>, RecordError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(RecordError::Kind),
        Err(errno) => return Err(CallError { call: "open", path: path.to_owned(), errno }.into()),
    };
    let stat = fs::fstat(&file).call("stat", path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(RecordError::Kind);
    }
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST + 1).read_to_end(&mut bytes).call("read", path)?;
    if bytes.len() as u64 > LARGEST {
        return Err(RecordError::Size);
    }
    let container: Container = serde_json::from_slice(&bytes).map_err(RecordError::Json)?;
    if container.id != id || name::check(&container.name).is_err() {
        return Err(RecordError::Other);
    }
    Ok(Some(container))
}

/// State of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Created, and never started.
    Created {
        /// Error of the last attempt to start it; `None` without one.
        error: Option<String>,
        /// Exit code returned to the user: 125, 126 or 127 after a failed start.
        code: i32,
    },
    /// The program of the container runs.
    Running {
        /// Pid of the program in the host's pid namespace.
        pid: i32,
        /// Time of the start, RFC 3339.
        started: String,
        /// Start time of the process in ticks since boot; empty in records of older versions.
        #[serde(default)]
        ticks: String,
        /// Boot id of the kernel that runs it; empty in records of older versions.
        #[serde(default)]
        boot: String,
        /// True while its processes are frozen.
        #[serde(default)]
        paused: bool,
        /// True when the kernel has ended a process for lack of memory since the start.
        #[serde(default)]
        is_out_of_memory: bool,
    },
    /// The program ended, and is started again by the restart policy.
    Restarting {
        /// Exit code, or 128 plus the signal number.
        code: i32,
        /// Time of the start, RFC 3339.
        started: String,
        /// Time of the end, RFC 3339.
        finished: String,
    },
    /// The program of the container ended.
    Exited {
        /// Exit code, or 128 plus the signal number.
        code: i32,
        /// Time of the start, RFC 3339.
        started: String,
        /// Time of the end, RFC 3339.
        finished: String,
        /// Error of a later attempt to start it again; empty for none.
        #[serde(default)]
        error: String,
        /// True when the kernel ended a process for lack of memory.
        #[serde(default)]
        is_out_of_memory: bool,
    },
}

impl State {
    /// True while the program runs.
    pub fn is_running(&self) -> bool {
        matches!(self, State::Running { .. })
    }

    /// True while a monitor looks after the container: its program runs, or is started again soon.
    pub fn is_live(&self) -> bool {
        matches!(self, State::Running { .. } | State::Restarting { .. })
    }

    /// True when the process that a running state names runs.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            State::Running { pid, ticks, boot, .. } => {
                (boot.is_empty() || *boot == boot_id()) && is_same_process(*pid, ticks)
            }
            _ => false,
        }
    }

    /// Name of the state in Docker's output.
    pub fn status(&self) -> &'static str {
        match self {
            State::Created { .. } => "created",
            State::Running { paused: true, .. } => "paused",
            State::Running { .. } => "running",
            State::Restarting { .. } => "restarting",
            State::Exited { .. } => "exited",
        }
    }

    /// Exit code; 0 before the program ended.
    pub fn code(&self) -> i32 {
        match self {
            State::Created { code, .. } | State::Restarting { code, .. } | State::Exited { code, .. } => {
                *code
            }
            State::Running { .. } => 0,
        }
    }
}

/// Pipes of a program's standard streams, by their inode numbers: a further monitor finds them by these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipes {
    /// Standard input; 0 when it is no pipe.
    pub stdin: u64,
    /// Standard output of the program.
    pub stdout: u64,
    /// Standard error of the program.
    pub stderr: u64,
}

/// Endpoint of a container in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Id of the network; empty for the default one in records of older versions.
    #[serde(default)]
    pub network: String,
    /// Id of the endpoint: 64 hexadecimal digits; empty in records of older versions.
    #[serde(default)]
    pub id: String,
    /// Name of the interface; empty for `eth0` in records of older versions.
    #[serde(default)]
    pub(crate) interface: String,
    /// IPv4 address of the container.
    pub address: Ipv4Addr,
    /// Prefix length of the network, in bits.
    pub prefix: u8,
    /// Gateway of the default route.
    pub gateway: Ipv4Addr,
    /// IPv6 part; `None` where the network has no IPv6, and in records of older versions.
    #[serde(default)]
    pub ipv6: Option<Endpoint6>,
    /// MAC address in the form `02:42:…`, with colons.
    pub mac: String,
    /// True when it has the default route.
    #[serde(default = "yes")]
    pub is_way_out: bool,
    /// True in a network without a way out.
    #[serde(default)]
    pub internal: bool,
    /// Ports of the host that are published for it, with those that were chosen.
    #[serde(default)]
    pub ports: Vec<Binding>,
}

/// IPv6 part of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint6 {
    /// IPv6 address of the container.
    pub address: Ipv6Addr,
    /// Prefix length of the network, in bits.
    pub prefix: u8,
    /// Gateway of the default route.
    pub gateway: Ipv6Addr,
}

impl Endpoint {
    /// Name of the interface in the container.
    pub fn interface(&self) -> &str {
        if self.interface.is_empty() { "eth0" } else { &self.interface }
    }
}

fn yes() -> bool {
    true
}

/// Reads the endpoints, or the only one of records of older versions.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Endpoints {
        Several(Vec<Endpoint>),
        One(Option<Box<Endpoint>>),
    }
    Ok(match Endpoints::deserialize(deserializer)? {
        Endpoints::Several(all) => all,
        Endpoints::One(one) => one.into_iter().map(|one| *one).collect(),
    })
}

/// Current time, RFC 3339.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Id of this boot of the kernel; empty where /proc does not show it.
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_older_records_are_read() {
        #[derive(Deserialize)]
        struct Record {
            #[serde(default, alias = "endpoint", deserialize_with = "one_or_several")]
            endpoints: Vec<Endpoint>,
        }
        let read = |text: &str| serde_json::from_str::<Record>(text).unwrap().endpoints;
        assert_eq!(read("{}"), []);
        assert_eq!(read(r#"{"endpoint":null}"#), []);
        let one = r#"{"address":"10.87.0.2","prefix":16,"gateway":"10.87.0.1","mac":"02:42:0a:57:00:02"}"#;
        let old = read(&format!("{{\"endpoint\":{one}}}"));
        assert_eq!(old[0].interface(), "eth0");
        assert!(old[0].is_way_out && old[0].network.is_empty());
        assert_eq!(read(&format!("{{\"endpoints\":[{one},{one}]}}")), [old[0].clone(), old[0].clone()]);
        let json = serde_json::to_string(&old).unwrap();
        assert_eq!(read(&format!("{{\"endpoints\":{json}}}")), old);
    }
}
