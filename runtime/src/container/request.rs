//! What a caller wants of a container besides its OCI specification, as types whose invalid combinations cannot be written.

use crate::cgroup::{Groups, Layout};
use crate::op::{ConsoleSize, FdSlot};
use oci_spec::runtime::{LinuxPersonality, LinuxSeccomp, Mount};
use std::path::{Path, PathBuf};

/// A container to plan. The default is one with its root directory in place, no cgroups, and no part of the parent.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// Mounted on the specification's root directory; `None` when that directory is the root itself.
    pub root: Option<&'a Mount>,
    /// The directory at which relative paths of the specification begin.
    pub bundle: Option<&'a Path>,
    /// Network namespace to join; `None` makes a new one, where the specification has one.
    pub network: Option<FdSlot>,
    /// Cgroups of the container, and how its process enters them.
    pub cgroups: Cgroups<'a>,
    /// How device nodes come into being.
    pub devices: DeviceNodes,
    /// Device nodes that the parent hands over as detached mounts, by path in the container.
    pub nodes: &'a [(PathBuf, FdSlot)],
    /// Sources of bind mounts that the parent opened, by the mount's index in the specification.
    pub sources: &'a [(usize, FdSlot)],
    /// The points at which the process waits for its parent.
    pub parent: ParentWork,
    /// Wait to be started, after all set-up; `None` runs the program at once.
    pub gate: Option<Gate>,
    /// How the root directory becomes `/`.
    pub pivot: Pivot,
    /// The session keyring.
    pub keyring: Keyring,
    /// The processors that the process starts on.
    pub affinity: Affinity,
    /// The terminal, for specifications that ask for one.
    pub terminal: Terminal,
    /// User and privileges.
    pub identity: Identity<'a>,
    /// The program's file and descriptors.
    pub program: ProgramFile,
}

/// A further process to plan, in a container that runs.
#[derive(Clone, Debug)]
pub struct ExecRequest<'a> {
    /// A pidfd of the container's init process.
    pub target: FdSlot,
    /// The container's namespaces that differ from the caller's, as `CLONE_NEW…` bits.
    pub namespaces: u64,
    /// A version 2 cgroup that the process is born into.
    pub cgroup: Option<FdSlot>,
    /// Of [`ParentWork`] the start and the cgroups count.
    pub parent: ParentWork,
    /// The container's execution domain.
    pub personality: Option<&'a LinuxPersonality>,
    /// The container's system call filter.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// The session keyring.
    pub keyring: Keyring,
    /// The terminal, for processes that ask for one.
    pub terminal: Terminal,
    /// User and privileges.
    pub identity: Identity<'a>,
    /// The program's file and descriptors.
    pub program: ProgramFile,
}

/// Cgroups of a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cgroups<'a> {
    /// The host's hierarchies; `None` shows the container those of version 2 alone.
    pub layout: Option<&'a Layout>,
    /// The container's own cgroups, which are all that it is shown of the host's; `None` shows it none.
    pub groups: Option<&'a Groups>,
    /// A version 2 cgroup that the process is born into.
    pub born_in: Option<FdSlot>,
    /// Whether the process moves itself into the version 1 cgroups of `groups`. It can where it is in the host's user
    /// namespace and begins in the mount namespace of its parent.
    pub entry: Entry,
}

/// How a process enters version 1 cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Its parent moves it, if anything does.
    #[default]
    ByParent,
    /// It moves itself, and continues where it cannot: the cgroups limit nothing.
    BySelfIfPossible,
    /// It moves itself, and fails where it cannot.
    BySelf,
}

/// How device nodes come into being, which follows from what keeps the container from other devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceNodes {
    /// By mknod(2): device rules of a cgroup decide what may be opened.
    #[default]
    Made,
    /// Bound from the host, since none can be made; device rules decide what may be opened.
    Bound,
    /// Bound from the host, and no other mount may open devices: there are no device rules.
    Exclusive,
}

/// The points at which a process waits for its parent; a set of the constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParentWork(u8);

impl ParentWork {
    /// None: the process does not wait.
    pub const NONE: ParentWork = ParentWork(0);
    /// Before anything else.
    pub const START: ParentWork = ParentWork(1);
    /// Until it is in its cgroups.
    pub const CGROUPS: ParentWork = ParentWork(2);
    /// Until device rules are in force.
    pub const DEVICES: ParentWork = ParentWork(4);
    /// Until the parent has compiled the specification's filter; passed where the process waits anyway.
    pub const FILTER: ParentWork = ParentWork(8);
    /// Until the hooks of the host's side have run; the specification's other hooks are carried out, too.
    pub const HOOKS: ParentWork = ParentWork(16);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: ParentWork) -> ParentWork {
        ParentWork(self.0 | other.0)
    }

    /// The same set, with `other` where `condition` holds.
    #[must_use]
    pub const fn and_if(self, condition: bool, other: ParentWork) -> ParentWork {
        if condition { self.and(other) } else { self }
    }

    /// True when all of `other` are in the set.
    pub const fn has(self, other: ParentWork) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Where a container waits to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// A listening socket.
    pub socket: FdSlot,
    /// Report a program that does not exist before waiting.
    pub finds_program: bool,
}

/// How the root directory becomes `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pivot {
    /// By pivot_root(2).
    #[default]
    Root,
    /// By moving the mount and chroot(2), where the old root cannot be pivoted away from (a RAM disk).
    Move,
}

/// The session keyring of a process (keyrings(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keyring {
    /// A new one.
    #[default]
    New,
    /// That of the caller.
    Caller,
}

/// The processors that a process starts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Those of its caller.
    #[default]
    Caller,
    /// All that its cgroups allow, even if the caller is kept on some.
    Any,
}

/// A container's terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Its initial size.
    pub size: ConsoleSize,
    /// How its lines end.
    pub lines: LineEnds,
}

/// How lines of a terminal end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineEnds {
    /// With a carriage return before the newline, as on every new terminal.
    #[default]
    Terminal,
    /// As the program writes them: the reader may be no terminal.
    Plain,
}

/// User and privileges of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// A user by name, looked up in the container; `None` for the specification's uid and gid.
    pub user: Option<&'a str>,
    /// Where `HOME` comes from.
    pub home: Home,
    /// Supplementary groups.
    pub groups: SupplementaryGroups,
    /// The filter of processes for which the specification has none.
    pub filter: Filter,
    /// Security modules whose labels and profiles are set.
    pub modules: Modules,
}

/// Where a process's `HOME` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// The environment of the specification, or the user that is looked up by name.
    #[default]
    Given,
    /// The container's user database, also for users given by uid.
    Looked,
}

/// Supplementary groups of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SupplementaryGroups {
    /// Those of the specification or the user.
    #[default]
    Own,
    /// The caller's, kept.
    Caller,
}

/// The system call filter of processes for which the specification has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// None.
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

/// The program's file and its descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramFile {
    /// How many descriptors from 3 on the program keeps.
    pub kept_fds: u32,
    /// How the file is executed.
    pub run: RunBy,
}

/// How a program's file is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunBy {
    /// By its path: the runtime's own file is sealed.
    #[default]
    Path,
    /// By a handle that was looked at first: the runtime's own file is not sealed (see [`crate::seal`]).
    Handle,
}
