//! A plan, its operations in order, and the points at which it waits.

use super::{
    Bytes, CapabilityOp, ClockOffset, ConsoleSize, DeviceOp, HierarchiesOp, HookOp, IdMaps, MountOp, RootOp,
    SchedulerOp, UserIds,
};
use serde::{Deserialize, Serialize};

/// Index into the descriptors that are handed over together with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdSlot(pub usize);

/// A whole container about to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `CLONE_NEW…` bits of the namespaces that the process is born into.
    pub namespaces: u64,
    /// Namespaces that exist and must be entered before the process is made: those of processes and time,
    /// and others that a new user namespace would have no rights over. Done by a process in between.
    pub joined: Vec<JoinOp>,
    /// Who is who in a new user namespace; the parent writes this.
    pub users: Option<IdMaps>,
    /// What the parent does to the process at [`Point::Users`]: limits, which root of a new user namespace could
    /// not raise.
    pub outside: Vec<SetupOp>,
    /// Clocks of a time namespace that a process in between makes.
    pub clocks: Vec<ClockOffset>,
    /// The cgroup v2 directory it is born into.
    pub cgroup: Option<FdSlot>,
    /// What is done before the program runs, in order.
    pub setup: Vec<SetupOp>,
    /// The program.
    pub program: Program,
}

/// A namespace to enter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinOp {
    /// Its kind, as a `CLONE_NEW…` bit; several bits for all of a process's namespaces at once.
    pub kinds: u64,
    /// A file that stands for it, or a process's handle.
    pub at: JoinAt,
}

/// What stands for a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAt {
    /// A file such as `/proc/1/ns/net`.
    Path(Bytes),
    /// A descriptor that is handed over.
    Slot(FdSlot),
}

/// The program of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its arguments, its own name first.
    pub arguments: Vec<Bytes>,
    /// Its environment as `NAME=value`.
    pub environment: Vec<Bytes>,
    /// Descriptors from 3 on that it keeps.
    pub kept_fds: u32,
    /// Run it by a handle on its file, so that the kernel looks for no interpreter by a path (see `seal`).
    pub by_handle: bool,
}

/// Where setting up stops until the parent says go. The parent's word may carry the container's state, for hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Point {
    /// Before anything else.
    Start,
    /// Until the users of the new namespace are known.
    Users,
    /// Until the process is in its control groups. The parent says so unasked.
    Groups,
    /// Until devices are guarded. The parent says so unasked.
    Devices,
    /// Until the filter of system calls is compiled, which comes with the word. The parent says so unasked.
    Filter,
    /// Until the hooks of the host's side have run: all is mounted, the root has not changed.
    Hooks,
}

impl Point {
    /// The parent has nothing to do at this point that it does not do for every process at once: it says go when that is
    /// done, and is not asked. Of such points a plan has one at most, before all others.
    pub(crate) fn is_unasked(self) -> bool {
        matches!(self, Point::Groups | Point::Devices | Point::Filter)
    }
}

/// One step of setting up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SetupOp {
    /// Waits for the parent to say go.
    Wait(Point),
    /// Makes a time namespace with such clocks and enters it.
    NewTime(Vec<ClockOffset>),
    /// Becomes root of the new user namespace.
    BecomeRoot,
    /// From here on nobody in the container may look into this process (CVE-2016-9962).
    HideProcess,
    /// Enters an existing namespace.
    Join(FdSlot),
    /// Enters the existing namespace that a path names.
    JoinPath {
        /// Its kind, as a `CLONE_NEW…` bit.
        kind: u64,
        /// The file that stands for it.
        path: Bytes,
    },
    /// Brings up the loopback interface of a new network namespace.
    LoopbackUp,
    /// Makes a namespace that must be made late: `CLONE_NEW…` bits.
    Unshare(u64),
    /// Sets the host name.
    Hostname(String),
    /// Sets the NIS domain name.
    Domainname(String),
    /// Cuts the mount tree off from its peers: `MS_…` propagation, recursively.
    Propagation(u64),
    /// Mounts the root file system and enters it.
    Root(RootOp),
    /// Mounts something below the root.
    Mount(MountOp),
    /// Mounts version 1 cgroup hierarchies in directories of a new tmpfs.
    Hierarchies(HierarchiesOp),
    /// Moves this process, which has one thread, into version 1 cgroups.
    ///
    /// A thread that moves itself does not wait for a grace period of the kernel, unlike one that moves a process (Linux 5.5).
    EnterCgroups {
        /// The `tasks` files of the cgroups.
        tasks: Vec<Bytes>,
        /// Whether one that refuses the process ends the set-up. Without limits it goes on: the kernel refuses processes of
        /// real-time schedulers, for one.
        is_required: bool,
    },
    /// Makes a device node below the root.
    Device(DeviceOp),
    /// Makes a symbolic link below the root, unless something is there.
    Link {
        /// What it leads to.
        target: Bytes,
        /// Where it is.
        path: Bytes,
    },
    /// Makes a terminal from the container's own devpts and sends its master to the parent.
    Console {
        /// Lines and columns.
        size: ConsoleSize,
        /// Whether it is shown at /dev/console too.
        bind: bool,
        /// Lines end as the program says: no carriage returns are added.
        plain: bool,
    },
    /// Takes the present root for the container's: for processes that enter one that runs.
    PresentRoot,
    /// Makes the new root the root; for roots that the kernel cannot pivot to, by moving it there.
    Pivot {
        /// Move instead of pivot.
        by_moving: bool,
    },
    /// Sets the propagation of the root mount.
    RootPropagation {
        /// `MS_…` bits.
        bits: u64,
        /// That of all mounts below too.
        recursive: bool,
    },
    /// Makes the root read-only.
    ReadonlyRoot,
    /// Writes a kernel parameter.
    Sysctl {
        /// Name with dots.
        name: String,
        /// Value.
        value: String,
    },
    /// Makes a path read-only.
    Readonly(Bytes),
    /// Hides a path.
    Mask(Bytes),
    /// Sets a resource limit; `clamp` lowers it to what is allowed instead of failing.
    Limit {
        /// `RLIMIT_…` name.
        resource: String,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
        /// Whether to be content with less.
        clamp: bool,
    },
    /// Sets the out-of-memory score adjustment.
    OomScore(i32),
    /// Sets the execution domain (personality(2)).
    Personality(u64),
    /// Sets how the process is scheduled.
    Scheduler(SchedulerOp),
    /// Sets the I/O class and priority (ioprio_set(2)).
    IoPriority {
        /// 1 real time, 2 best effort, 3 idle.
        class: u32,
        /// 0 to 7.
        priority: u32,
    },
    /// Sets the processors that the process may run on.
    Affinity(Vec<u32>),
    /// May run on all processors that its groups allow, whatever the caller is kept on.
    AnyProcessor,
    /// Sets the memory policy (set_mempolicy(2)).
    MemoryPolicy {
        /// `MPOL_…` with flags.
        mode: i32,
        /// Nodes as a bit mask.
        nodes: Vec<u64>,
    },
    /// The label that the program runs under: written to `/proc/self/attr/`.
    Label {
        /// File below `attr`, such as `exec` or `apparmor/exec`.
        file: String,
        /// What is written.
        value: String,
    },
    /// Runs hooks in this process's namespaces.
    Hooks {
        /// Their name in the specification.
        name: String,
        /// The hooks.
        hooks: Vec<HookOp>,
    },
    /// Makes sure that the program exists, so that a mistake is told before the container waits.
    FindProgram,
    /// Tells the parent that all is ready, then waits until somebody connects to this socket and says go. What
    /// follows is told to them.
    Gate(FdSlot),
    /// Starts a new session keyring.
    NewKeyring,
    /// Makes the working directory and those above it, unless they exist.
    MakeDir {
        /// Where.
        path: Bytes,
        /// Permissions of directories that are made.
        mode: u32,
    },
    /// Sets `HOME` from the container's own `/etc/passwd`, unless it is set.
    Home(u32),
    /// Looks a user up in the container's own `/etc/passwd` and `/etc/group`; `HOME` is set from it.
    FindUser(String),
    /// Becomes a user given by numbers; with `keep_groups` a member of the caller's groups too.
    User {
        /// The numbers.
        ids: UserIds,
        /// Stay a member of all groups.
        keep_groups: bool,
    },
    /// Enters the working directory while root can, which its user perhaps cannot.
    TryWorkingDir(Bytes),
    /// Enters the working directory, unless that has been done.
    WorkingDir(Bytes),
    /// Gives up all capabilities for ever but these (bit mask).
    Bounding(u64),
    /// Sets the other capability sets.
    Capabilities(CapabilityOp),
    /// No program started from here may gain rights.
    NoNewPrivileges,
    /// Loads a system call filter.
    Seccomp {
        /// Instructions, each as one number (see `sys::install_seccomp`); none when the parent tells them with its
        /// unasked word.
        program: Vec<u64>,
        /// `SECCOMP_FILTER_FLAG_…` bits.
        flags: u32,
        /// Where calls are told: the descriptor for it goes to the parent.
        listens: bool,
    },
    /// File mode creation mask.
    Umask(u32),
}
