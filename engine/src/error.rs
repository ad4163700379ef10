//! Errors of creating, finding, running and removing containers.

use crate::mount::MountError;
use crate::network::NetworkOptionError;
use crate::record::RecordError;
use crate::security::SecurityOptionError;
use crate::settings::attachment::AttachmentError;
use crate::settings::{DeviceError, HealthError, LimitError, NamespaceError, PrivilegeError};
use crate::update::UpdateError;
use crate::volume::VolumeCreateError;
use kiln_image::layer::WriteError;
use kiln_image::store::StoreError;
use kiln_image::sys::CallError;
use kiln_network::{NetworkError, PublishError};
use kiln_runtime::SpawnError;
use kiln_runtime::apparmor::AppArmorError;
use kiln_runtime::cgroup::CgroupError;
use kiln_runtime::plan::PlanError;
use kiln_runtime::view::ViewError;

/// Failure of an operation on containers.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No container has this name or id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// Several ids begin with these digits.
    #[error("multiple containers found with provided prefix: {0}")]
    Ambiguous(String),
    /// Another container has this name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// Name that was requested.
        name: String,
        /// Id of the container with this name.
        id: String,
    },
    /// Text that is not a valid name.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName(String),
    /// The container runs, and killing it was not requested.
    #[error(
        "cannot remove container \"/{0}\": container is running: stop the container before removing or force remove"
    )]
    IsRunning(String),
    /// The container is started again soon, and killing it was not requested.
    #[error(
        "cannot remove container \"/{0}\": container is restarting: stop the container before removing or force remove"
    )]
    IsRestarting(String),
    /// The container's program does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// Its processes are frozen already.
    #[error("Container {0} is already paused")]
    AlreadyPaused(String),
    /// Its processes are not frozen.
    #[error("Container {0} is not paused")]
    NotPaused(String),
    /// Its processes are frozen, and a further one would be, too.
    #[error("Container {0} is paused, unpause the container before exec")]
    Paused(String),
    /// The new name of a container is the one that it has.
    #[error("Renaming a container with the same name as its current name")]
    SameName,
    /// Its record does not name its cgroups, whose device rules a further process would escape.
    #[error("container {0} was started by an older version of kiln, which did not record its cgroups")]
    UnknownCgroups(String),
    /// Neither the image nor the user names a program.
    #[error("no command specified")]
    NoCommand,
    /// Another process holds the container's lock without running it.
    #[error(
        "container {0} is in use by another process, which starts, runs or removes it: end that process, or try again later"
    )]
    Busy(String),
    /// No network has this name or id.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// A network of a container has been removed.
    #[error(
        "failed to set up container networking: network {0} not found: it has been removed since the container was connected to it, and `kiln network disconnect {0} CONTAINER` disconnects the container"
    )]
    NetworkGone(String),
    /// Several ids begin with these digits.
    #[error("network {0} is ambiguous ({1} matches found based on ID prefix)")]
    AmbiguousNetwork(String, usize),
    /// Another network has this name.
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// A network that every store has cannot be created or removed.
    #[error("{}", predefined(.0, .1))]
    PredefinedNetwork(String, &'static str),
    /// Containers that run are connected to the network.
    #[error("error while removing network: network {name} has active endpoints ({endpoints})")]
    NetworkInUse {
        /// Name of the network.
        name: String,
        /// Names and ids of the containers.
        endpoints: String,
    },
    /// The description of a new network cannot be.
    #[error(transparent)]
    NetworkOption(#[from] NetworkOptionError),
    /// A container cannot be connected to a network in this way.
    #[error(transparent)]
    Attachment(#[from] AttachmentError),
    /// A network cannot be created or removed on this host.
    #[error(transparent)]
    NetworkSetup(NetworkError),
    /// A container cannot be connected to a network.
    #[error("failed to set up container networking: network {network}: {source}")]
    Connect {
        /// Name of the network.
        network: String,
        /// Cause of the failure.
        source: NetworkError,
    },
    /// A container whose address links need does not run.
    #[error("Cannot link to a non running container: /{0} AS /{1}/{2}")]
    LinkNotRunning(String, String, String),
    /// The monitor of a container did not do what it was asked for.
    #[error("{0}")]
    Monitor(String),
    /// No volume has this name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// Containers use the volume.
    #[error("remove {name}: volume is in use - [{containers}]")]
    VolumeInUse {
        /// Name of the volume.
        name: String,
        /// Ids of the containers, separated by commas.
        containers: String,
    },
    /// A volume cannot be created.
    #[error("create{name}: {reason}", name = name.as_ref().map_or_else(String::new, |name| format!(" {name}")))]
    CreateVolume {
        /// Name that was requested; `None` for a generated one.
        name: Option<String>,
        /// Reason why it is not created.
        reason: VolumeCreateError,
    },
    /// What a volume is by its options cannot be mounted.
    #[error("error while mounting volume '{name}': failed to mount local volume: mount {device}: {reason}")]
    VolumeMount {
        /// Name of the volume.
        name: String,
        /// Device, server or directory that is mounted.
        device: String,
        /// Reason of the kernel, or of the look-up of a server.
        reason: String,
    },
    /// No running container has the files of a volume in memory.
    #[error("volume {0} is in memory, and has files only while a container that uses it runs")]
    NotInMemory(String),
    /// A container cannot be changed.
    #[error("Cannot update container {id}: {reason}")]
    Update {
        /// Id of the container.
        id: String,
        /// Reason why it stays as it is.
        reason: UpdateError,
    },
    /// A limit cannot be set.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A namespace cannot be shared.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A privilege does not exist, or cannot be given.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// A health check is invalid.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// A container whose health is waited for has no health check.
    #[error("container {0} has no health check")]
    NoHealthCheck(String),
    /// The directory of a container cannot be watched.
    #[error("cannot watch the container (inotify)")]
    Watch(#[source] rustix::io::Errno),
    /// An option of confinement is invalid.
    #[error(transparent)]
    Security(#[from] SecurityOptionError),
    /// A time zone does not exist on the host.
    #[error("unrecognized time zone {0:?}: /usr/share/zoneinfo of this host has none of that name")]
    TimeZone(String),
    /// A signal does not exist.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// A mount cannot be carried out.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The files of an image cannot be copied into a volume.
    #[error("cannot fill a volume with the image's files")]
    Fill(#[from] WriteError),
    /// The specification of the container cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The container did not start.
    #[error(transparent)]
    Start(#[from] SpawnError),
    /// The file tree of the container cannot be mounted.
    #[error("cannot open the files of the container")]
    View(#[from] ViewError),
    /// The network cannot be set up.
    #[error("cannot connect the container to a network: {0}")]
    Network(#[from] NetworkError),
    /// Ports of the host cannot be published.
    #[error(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({id}): {source}"
    )]
    Publish {
        /// Name of the container.
        name: String,
        /// Id of the container.
        id: String,
        /// Cause of the failure.
        source: Box<PublishError>,
    },
    /// The AppArmor profile cannot be loaded or used.
    #[error(transparent)]
    AppArmor(#[from] AppArmorError),
    /// The cgroup cannot be created or used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// An operation on the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record of the container cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The log of the container cannot be opened.
    #[error("cannot open the log in `{path}`", path = path.display())]
    Log {
        /// Directory of the log, or socket of the journal.
        path: std::path::PathBuf,
        /// Cause of the failure.
        source: std::io::Error,
    },
    /// The streams of the container cannot be made, or its monitor cannot be reached.
    #[error("cannot connect to the container's streams")]
    Streams(#[source] rustix::io::Errno),
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Texts of the reference about a predefined network.
fn predefined(name: &str, what: &str) -> String {
    match what {
        "cannot be removed" => format!("{name} is a pre-defined network and cannot be removed"),
        what => format!("{what} {name} network"),
    }
}

impl EngineError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            EngineError::Store(error) => error.is_full(),
            EngineError::Call(error) => error.is_full(),
            EngineError::Fill(error) => error.is_full(),
            EngineError::Start(SpawnError::Caller(error)) => {
                error.downcast_ref::<EngineError>().is_some_and(EngineError::is_full)
            }
            _ => false,
        }
    }
}
