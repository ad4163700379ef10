//! Settings of a container besides its OCI specification, as types whose invalid combinations cannot be written.

use crate::cgroup::{Groups, Layout};
use crate::op::{ConsoleSize, FdSlot};
use oci_spec::runtime::{LinuxPersonality, LinuxSeccomp, Mount};
use std::path::{Path, PathBuf};

/// A container to plan. The default has its root directory in place, no cgroups, and no work for the parent.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// Mount on the specification's root directory; `None` when that directory is the root itself.
    pub root: Option<&'a Mount>,
    /// Directory to which relative paths of the specification refer.
    pub bundle: Option<&'a Path>,
    /// Network namespace to join; `None` creates a new one, if the specification lists one.
    pub network: Option<FdSlot>,
    /// Cgroups of the container, and how its process enters them.
    pub cgroups: Cgroups<'a>,
    /// Way in which device nodes are created.
    pub devices: DeviceNodes,
    /// Device nodes that the parent passes as detached mounts, by path in the container.
    pub nodes: &'a [(PathBuf, FdSlot)],
    /// Sources of bind mounts that the parent opened, by the mount's index in the specification.
    pub sources: &'a [(usize, FdSlot)],
    /// Points at which the process waits for its parent.
    pub parent: ParentWork,
    /// Gate at which the process waits after all set-up; `None` runs the program at once.
    pub gate: Option<Gate>,
    /// Way in which the root directory becomes `/`.
    pub pivot: Pivot,
    /// Session keyring of the process.
    pub keyring: Keyring,
    /// Processors on which the process starts.
    pub affinity: Affinity,
    /// Terminal, for specifications that ask for one.
    pub terminal: Terminal,
    /// User and privileges of the process.
    pub identity: Identity<'a>,
    /// File and descriptors of the program.
    pub program: ProgramFile,
}

/// A further process to plan, in a running container.
#[derive(Clone, Debug)]
pub struct ExecRequest<'a> {
    /// Pidfd of the container's init process.
    pub target: FdSlot,
    /// Namespaces of the container that differ from the caller's, as `CLONE_NEW…` bits.
    pub namespaces: u64,
    /// Version 2 cgroup in which the process is created.
    pub cgroup: Option<FdSlot>,
    /// Points at which the process waits; only [`ParentWork::START`] and [`ParentWork::CGROUPS`] count.
    pub parent: ParentWork,
    /// Execution domain of the container.
    pub personality: Option<&'a LinuxPersonality>,
    /// System call filter of the container.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// Session keyring of the process.
    pub keyring: Keyring,
    /// Terminal, for processes that ask for one.
    pub terminal: Terminal,
    /// User and privileges of the process.
    pub identity: Identity<'a>,
    /// File and descriptors of the program.
    pub program: ProgramFile,
}

/// Cgroups of a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cgroups<'a> {
    /// The host's hierarchies; `None` shows the container only those of version 2.
    pub layout: Option<&'a Layout>,
    /// The container's cgroups, the only ones of the host that it can see; `None` shows it no cgroups.
    pub groups: Option<&'a Groups>,
    /// Version 2 cgroup in which the process is created.
    pub born_in: Option<FdSlot>,
    /// Whether the process moves itself into the version 1 cgroups of `groups`. It can when it is in the host's user
    /// namespace and begins in the mount namespace of its parent.
    pub entry: Entry,
}

/// Way in which a process enters version 1 cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// The parent moves the process, if there are cgroups to enter.
    #[default]
    ByParent,
    /// The process moves itself, and continues when that fails: the cgroups limit nothing.
    BySelfIfPossible,
    /// The process moves itself, and fails when that fails.
    BySelf,
}

/// Way in which device nodes are created; it follows from how access to other devices is prevented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceNodes {
    /// By mknod(2): device rules of a cgroup decide which devices may be opened.
    #[default]
    Made,
    /// Bound from the host, since mknod(2) is not permitted; device rules decide which devices may be opened.
    Bound,
    /// Bound from the host, and no other mount may open devices: there are no device rules.
    Exclusive,
}

/// Points at which a process waits for its parent; a set of the constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParentWork(u8);

impl ParentWork {
    /// Empty set: the process does not wait.
    pub const NONE: ParentWork = ParentWork(0);
    /// Wait before any other operation.
    pub const START: ParentWork = ParentWork(1);
    /// Wait until the process is in its cgroups.
    pub const CGROUPS: ParentWork = ParentWork(2);
    /// Wait until device rules are in force.
    pub const DEVICES: ParentWork = ParentWork(4);
    /// Wait until the parent has compiled the specification's filter; passed where the process waits anyway.
    pub const FILTER: ParentWork = ParentWork(8);
    /// Wait until the hooks in the host's namespaces have run; the specification's other hooks are run as well.
    pub const HOOKS: ParentWork = ParentWork(16);

    /// Union of both sets.
    #[must_use]
    pub const fn and(self, other: ParentWork) -> ParentWork {
        ParentWork(self.0 | other.0)
    }

    /// The same set, with `other` added when `condition` holds.
    #[must_use]
    pub const fn and_if(self, condition: bool, other: ParentWork) -> ParentWork {
        if condition { self.and(other) } else { self }
    }

    /// True when the set contains all of `other`.
    pub const fn has(self, other: ParentWork) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Gate at which a container waits to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// A listening socket for connections of `start`.
    pub socket: FdSlot,
    /// Report a program that does not exist before waiting.
    pub finds_program: bool,
}

/// Way in which the root directory becomes `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pivot {
    /// By pivot_root(2), as on most hosts.
    #[default]
    Root,
    /// By moving the mount and chroot(2), for an old root that pivot_root(2) refuses to leave (a RAM disk).
    Move,
}

/// Session keyring of a process (keyrings(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keyring {
    /// A new session keyring.
    #[default]
    New,
    /// The caller's session keyring.
    Caller,
}

/// Processors on which a process starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Processors of its caller.
    #[default]
    Caller,
    /// All processors that its cgroups allow, even if the caller is limited to some.
    Any,
}

/// Terminal of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Initial size of the terminal.
    pub size: ConsoleSize,
    /// Line ends of its output.
    pub lines: LineEnds,
}

/// Line ends of a terminal's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineEnds {
    /// With a carriage return before the newline, as on every new terminal.
    #[default]
    Terminal,
    /// As the program writes them: the reader may not be a terminal.
    Plain,
}

/// User and privileges of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// User name, looked up in the container; `None` for the specification's uid and gid.
    pub user: Option<&'a str>,
    /// Source of the variable `HOME`.
    pub home: Home,
    /// Supplementary groups of the process.
    pub groups: SupplementaryGroups,
    /// Supplementary groups besides those of a user that is looked up, by name or gid.
    pub more_groups: &'a [String],
    /// Filter for processes for which the specification has none.
    pub filter: Filter,
    /// Security modules whose labels and profiles are set.
    pub modules: Modules,
}

/// Source of a process's `HOME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// Environment of the specification, or the entry of a user that is looked up by name.
    #[default]
    Given,
    /// The container's user database, also for users specified by uid.
    Looked,
}

/// Supplementary groups of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SupplementaryGroups {
    /// Groups of the specification or of the user's entry.
    #[default]
    Own,
    /// The caller's groups are kept.
    Caller,
}

/// System call filter for processes for which the specification has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// No system call filter.
    #[default]
    None,
    /// The default profile ([`crate::seccomp`]).
    Default,
}

/// Security modules that are active and whose labels are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// SELinux: labels of processes and files.
    pub selinux: bool,
    /// AppArmor: profiles of processes.
    pub apparmor: bool,
}

/// File and descriptors of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramFile {
    /// Number of file descriptors from 3 on that the program keeps.
    pub kept_fds: u32,
    /// Way in which the file is executed.
    pub run: ExecMethod,
}

/// Way in which a program's file is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecMethod {
    /// By its path: the runtime's own file is sealed.
    #[default]
    Path,
    /// By a file descriptor that was checked first: the runtime's own file is not sealed (see [`crate::seal`]).
    Handle,
}
