//! A plan, its operations in order, and the points at which it waits.

use super::{
    Bytes, CapabilityOp, ClockOffset, ConsoleSize, DeviceOp, HierarchiesOp, HookOp, IdMaps, MountOp, RootOp,
    SchedulerOp, UserIds,
};
use serde::{Deserialize, Serialize};

/// Index into the file descriptors that are passed together with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdSlot(pub usize);

/// Complete description of a container's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `CLONE_NEW…` bits of the namespaces in which the process is created.
    pub namespaces: u64,
    /// Existing namespaces that must be entered before the process is created: pid and time namespaces, and others over
    /// which a new user namespace would have no privileges. An intermediate process enters them.
    pub joined: Vec<JoinOp>,
    /// Id maps of a new user namespace, written by the parent; `None` without one.
    pub users: Option<IdMaps>,
    /// Operations of the parent on the process at [`Point::IdMaps`]: limits, which root of a new user namespace could
    /// not raise.
    pub outside: Vec<SetupOp>,
    /// Clocks of a time namespace that an intermediate process creates.
    pub clocks: Vec<ClockOffset>,
    /// Version 2 cgroup directory in which the process is created.
    pub cgroup: Option<FdSlot>,
    /// Operations before the program runs, in order.
    pub setup: Vec<SetupOp>,
    /// Program of the container.
    pub program: Program,
}

/// A namespace to enter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinOp {
    /// Kind as a `CLONE_NEW…` bit; several bits for several namespaces of one process at once.
    pub kinds: u64,
    /// File of the namespace, or pidfd of a process in it.
    pub at: JoinAt,
}

/// Reference to a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAt {
    /// A file such as `/proc/1/ns/net`.
    Path(Bytes),
    /// A file descriptor that the parent passes.
    Slot(FdSlot),
}

/// Program of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Arguments with the program's name first.
    pub arguments: Vec<Bytes>,
    /// Environment as `NAME=value` entries.
    pub environment: Vec<Bytes>,
    /// Number of file descriptors from 3 on that it keeps.
    pub kept_fds: u32,
    /// Execute it by a file descriptor, so that the kernel resolves no path to an interpreter (see `seal`).
    pub by_handle: bool,
}

/// Points at which set-up waits for a message of the parent. The message may contain the container's state, for hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Point {
    /// Before any other operation.
    Start,
    /// Until the id maps of the new user namespace are written.
    IdMaps,
    /// Until the process is in its cgroups. The parent sends this without a request.
    Cgroups,
    /// Until device rules are in force. The parent sends this without a request.
    Devices,
    /// Until the system call filter is compiled; the message contains it. The parent sends this without a request.
    Filter,
    /// Until the hooks in the host's namespaces have run: all mounts exist, the root has not changed.
    Hooks,
}

impl Point {
    /// True for points at which the parent has no work beyond that for every new process: it sends the message when
    /// that is done, without a request. A plan has at most one such point, before all others.
    pub(crate) fn is_unasked(self) -> bool {
        matches!(self, Point::Cgroups | Point::Devices | Point::Filter)
    }
}

/// One operation of set-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SetupOp {
    /// Waits for a message of the parent.
    Wait(Point),
    /// Creates a time namespace with these clocks and enters it.
    NewTime(Vec<ClockOffset>),
    /// Becomes root of the new user namespace.
    BecomeRoot,
    /// Prevents processes of the container from inspecting this process from here on (CVE-2016-9962).
    HideProcess,
    /// Enters an existing namespace.
    Join(FdSlot),
    /// Enters the existing namespace at a path.
    JoinPath {
        /// Kind as a `CLONE_NEW…` bit.
        kind: u64,
        /// File of the namespace, such as `/proc/1/ns/net`.
        path: Bytes,
    },
    /// Brings up the loopback interface of a new network namespace.
    LoopbackUp,
    /// Creates namespaces that must be created late: `CLONE_NEW…` bits.
    Unshare(u64),
    /// Sets the host name.
    Hostname(String),
    /// Sets the NIS domain name.
    Domainname(String),
    /// Cuts the mount tree off from its peers: `MS_…` propagation, recursively.
    Propagation(u64),
    /// Mounts the root file system and enters it.
    Root(RootOp),
    /// Adds a mount below the root.
    Mount(MountOp),
    /// Mounts version 1 cgroup hierarchies in directories of a new tmpfs.
    Hierarchies(HierarchiesOp),
    /// Moves this process, which has one thread, into version 1 cgroups.
    ///
    /// A thread that moves itself does not wait for an RCU grace period of the kernel, unlike one that moves a process
    /// (Linux 5.5).
    EnterCgroups {
        /// Paths of the cgroups' `tasks` files.
        tasks: Vec<Bytes>,
        /// Whether a cgroup that refuses the process ends the set-up. Without limits the set-up continues: the kernel
        /// refuses processes with a real-time scheduler, for example.
        is_required: bool,
    },
    /// Creates a device node below the root.
    Device(DeviceOp),
    /// Creates a symbolic link below the root, unless the path exists.
    Link {
        /// Target of the link.
        target: Bytes,
        /// Path of the link.
        path: Bytes,
    },
    /// Opens a terminal of the container's devpts and sends its master to the parent.
    Console {
        /// Size in lines and columns.
        size: ConsoleSize,
        /// Whether it is bound on /dev/console as well.
        bind: bool,
        /// Write lines as the program does, without carriage returns.
        plain: bool,
    },
    /// Takes the current root as the container's: for processes that enter a running container.
    PresentRoot,
    /// Makes the new root `/`, by pivot_root(2) or by moving it there.
    Pivot {
        /// Move instead of pivoting, for roots to which the kernel refuses to pivot.
        by_moving: bool,
    },
    /// Sets the propagation of the root mount.
    RootPropagation {
        /// Propagation as `MS_…` bits.
        bits: u64,
        /// Include all mounts below it.
        recursive: bool,
    },
    /// Makes the root read-only.
    ReadonlyRoot,
    /// Writes a kernel parameter.
    Sysctl {
        /// Name with dots, such as `net.ipv4.ip_forward`.
        name: String,
        /// Value to be written.
        value: String,
    },
    /// Makes a path read-only.
    Readonly(Bytes),
    /// Hides a path from the container.
    Mask(Bytes),
    /// Sets a resource limit.
    Limit {
        /// Name of the limit, `RLIMIT_…`.
        resource: String,
        /// Soft limit in the resource's unit.
        soft: u64,
        /// Hard limit in the resource's unit.
        hard: u64,
        /// Lower the limit to the allowed value instead of failing.
        clamp: bool,
    },
    /// Sets the out-of-memory score adjustment.
    OomScore(i32),
    /// Sets the execution domain (personality(2)).
    Personality(u64),
    /// Sets scheduling policy and priority of the process.
    Scheduler(SchedulerOp),
    /// Sets the I/O class and priority (ioprio_set(2)).
    IoPriority {
        /// Class: 1 real time, 2 best effort, 3 idle.
        class: u32,
        /// Priority in the class, 0 to 7.
        priority: u32,
    },
    /// Sets the processors on which the process may run.
    Affinity(Vec<u32>),
    /// Allows all processors that its cgroups allow, even if the caller is limited to some.
    AnyProcessor,
    /// Sets the memory policy (set_mempolicy(2)).
    MemoryPolicy {
        /// Mode `MPOL_…` with its flags.
        mode: i32,
        /// Memory nodes as a bit mask.
        nodes: Vec<u64>,
    },
    /// Sets the program's security label: written to `/proc/self/attr/`.
    Label {
        /// File below `attr`, such as `exec` or `apparmor/exec`.
        file: String,
        /// Label to be written.
        value: String,
    },
    /// Runs hooks in this process's namespaces.
    Hooks {
        /// Kind of the hooks in the specification.
        name: String,
        /// Hooks in their order.
        hooks: Vec<HookOp>,
    },
    /// Checks that the program exists, so that an error is reported before the container waits.
    FindProgram,
    /// Reports to the parent that set-up is done, then waits until a process connects to this socket and starts the
    /// container. Later failures are reported over that connection.
    Gate(FdSlot),
    /// Starts a new session keyring.
    NewKeyring,
    /// Creates the working directory and those above it, unless they exist.
    MakeDir {
        /// Path of the directory.
        path: Bytes,
        /// Permission bits of created directories.
        mode: u32,
    },
    /// Sets `HOME` from the container's `/etc/passwd`, unless it is set.
    Home(u32),
    /// Becomes a user looked up in the container's `/etc/passwd` and `/etc/group`, and sets `HOME`.
    FindUser {
        /// User as in USER.
        user: String,
        /// Supplementary groups besides those of the user, by name or gid.
        groups: Vec<String>,
        /// Keep the caller's supplementary groups instead.
        keep_groups: bool,
    },
    /// Becomes a user specified by uid and gids.
    User {
        /// Uid and gids of the user.
        ids: UserIds,
        /// Keep the caller's supplementary groups as well.
        keep_groups: bool,
    },
    /// Enters the working directory as root, since the container's user may lack the permission.
    TryWorkingDir(Bytes),
    /// Enters the working directory, unless that has been done.
    WorkingDir(Bytes),
    /// Permanently drops all capabilities but these from the bounding set (bit mask).
    Bounding(u64),
    /// Sets the other capability sets.
    Capabilities(CapabilityOp),
    /// Prevents programs started from here on from gaining privileges (`no_new_privs`).
    NoNewPrivileges,
    /// Loads a system call filter.
    Seccomp {
        /// Instructions, each as one number (see `sys::install_seccomp`); empty when the parent sends them with the
        /// message of [`Point::Filter`].
        program: Vec<u64>,
        /// `SECCOMP_FILTER_FLAG_…` bits of the filter.
        flags: u32,
        /// Whether the filter has a listener for calls; its file descriptor is sent to the parent.
        listens: bool,
    },
    /// Sets the file mode creation mask.
    Umask(u32),
}
