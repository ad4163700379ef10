//! What is done to set up a container, as data: an ordered list of operations.
//!
//! [`crate::plan`] makes the list without touching anything, [`crate::init`] carries it out in the new
//! process. It travels between processes as JSON.

use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path or argument as bytes: a string where it is UTF-8, numbers where it is not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// As a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The names that a path leads over, as they are written: `..` takes one away.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        let parts = self.0.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let mut names: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            if part == b".." {
                names.pop();
            } else {
                names.push(part.to_vec());
            }
        }
        names
    }

    /// As a C string, cut at a NUL, which no path or argument of a process can hold.
    pub fn to_c_string(&self) -> CString {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        CString::new(&self.0[..end]).expect("the text was cut at its first NUL")
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        Bytes(text.into_bytes())
    }
}

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Bytes {
        Bytes(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<&PathBuf> for Bytes {
    fn from(path: &PathBuf) -> Bytes {
        path.as_path().into()
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Raw(Vec<u8>),
        }
        Ok(Bytes(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Raw(bytes) => bytes,
        }))
    }
}

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

/// Users and groups of a user namespace (user_namespaces(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Users.
    pub users: Vec<IdRange>,
    /// Groups.
    pub groups: Vec<IdRange>,
}

/// A run of ids inside, and what they are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// Whether `id` is one of those inside.
    pub(crate) fn holds(&self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|offset| offset < self.count)
    }
}

/// How far a clock of a time namespace is from the host's (time_namespaces(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Whole seconds.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
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

/// Files that what a hook says is added to, by stream; where there is none it is passed over, but for what a failing hook
/// has to say on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOutput {
    /// For standard output.
    pub stdout: Option<Bytes>,
    /// For standard error.
    pub stderr: Option<Bytes>,
}

/// A program that is run on the way (OCI runtime specification, "POSIX-platform Hooks").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOp {
    /// What to run.
    pub path: Bytes,
    /// Its arguments, its own name first; empty for just that.
    pub arguments: Vec<Bytes>,
    /// Its environment, when the specification gives one; the caller's else.
    pub environment: Option<Vec<Bytes>>,
    /// Files that what it says is added to.
    pub output: HookOutput,
    /// Seconds after which it is killed.
    pub timeout: Option<u32>,
}

/// How the process is scheduled: the fields of `struct sched_attr`, which see (sched_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "sched_setattr(2) documents them")]
pub struct SchedulerOp {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
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

/// The root file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootOp {
    /// A directory to mount on.
    pub path: Bytes,
    /// What to mount there; `None` for the directory itself.
    pub mount: Option<FilesystemMount>,
    /// `MOUNT_ATTR_…` bits to set on it and all mounts below.
    pub set: u64,
    /// Cut the mount that holds the directory off from its peers first: they would be shown the root.
    pub cut_off: bool,
}

/// A file system to mount: type, options for the file system, attributes of the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemMount {
    /// Such as `overlay`.
    pub fstype: String,
    /// Source name, shown in mount tables.
    pub source: String,
    /// Keys with or without a value, in order.
    pub options: Vec<(String, Option<String>)>,
    /// `MOUNT_ATTR_…` bits.
    pub attributes: u64,
}

/// Something mounted below the root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountOp {
    /// Where, from the root.
    pub target: Bytes,
    /// What.
    pub source: MountSource,
    /// `MOUNT_ATTR_…` bits to set on a bind mount.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// Applies `set` and `clear` to all mounts below too.
    pub recursive_attributes: bool,
    /// `MS_…` propagation.
    pub propagation: u64,
    /// Applies it to all mounts below too.
    pub recursive_propagation: bool,
    /// Fill a new tmpfs with what it covers.
    pub copy_up: bool,
    /// Whether links in the target are followed (inside the root). Not for /proc, /sys and /dev: a link
    /// there leads the set-up of the others astray.
    pub follow: bool,
    /// What is done with links at the ends of a bind mount's paths.
    pub links: Links,
}

/// What is done with links at the ends of a bind mount's paths, instead of following them (options of crun).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// A source that is a link is not mounted: the target becomes a link like it (`copy-symlink`).
    pub copy_source: bool,
    /// A source that is a link is mounted itself (`src-nofollow`).
    pub mount_source: bool,
    /// A target that is a link is mounted on itself (`dest-nofollow`).
    pub cover_target: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A new file system.
    Filesystem(FilesystemMount),
    /// A file or directory of the host.
    Bind {
        /// Its path.
        path: Bytes,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A detached mount that is handed over.
    Handle(FdSlot),
    /// Nothing new: a mount that is there gets other attributes.
    Remount,
}

/// Version 1 cgroup hierarchies, each in a directory of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchiesOp {
    /// Where the directories are, from the root.
    pub target: Bytes,
    /// `MOUNT_ATTR_…` bits of all of them.
    pub attributes: u64,
    /// The hierarchies.
    pub mounts: Vec<HierarchyMount>,
    /// Names of links, with what they lead to.
    pub links: Vec<(String, String)>,
}

/// One version 1 cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyMount {
    /// Its directory's name.
    pub name: String,
    /// What is in that directory.
    pub shows: HierarchyView,
}

/// The part of a version 1 hierarchy that a container is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HierarchyView {
    /// The container has no cgroup of its own in it: an empty directory.
    Nothing,
    /// The container's own cgroup, by its path.
    Cgroup(Bytes),
    /// What the cgroup namespace that was joined shows, mounted with these options, which name the hierarchy.
    Namespace(String),
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOp {
    /// Where, from the root.
    pub path: Bytes,
    /// `b` for block devices, `c` for character devices, `p` for pipes.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bind the host's own node instead of making one.
    pub bind: bool,
    /// A node that is handed over, to bind instead of either.
    pub node: Option<FdSlot>,
}

/// Size of a new terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// Numbers of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Capability sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityOp {
    /// What counts now.
    pub effective: u64,
    /// What may be made to count.
    pub permitted: u64,
    /// What is kept over exec with the file's consent.
    pub inheritable: u64,
    /// What is kept over exec without it.
    pub ambient: u64,
}

/// Why setting up failed, as data: the failing operation's name, what it was done to, and errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupError {
    /// Which part of setting up.
    pub stage: Stage,
    /// The call that failed, such as `mount`.
    pub call: String,
    /// What it was called on.
    pub on: Bytes,
    /// Why; 0 when the reason is in `message`.
    pub errno: i32,
    /// Said instead of the errno's text when that would mislead.
    pub message: Option<String>,
}

/// Parts of setting up that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Making the process.
    Clone,
    /// Namespaces, mounts, devices, limits.
    Setup,
    /// Looking up the user.
    User,
    /// Entering the working directory.
    WorkingDir,
    /// Running the program.
    Exec,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            return f.write_str(message);
        }
        write!(f, "{}", self.call)?;
        if !self.on.0.is_empty() {
            write!(f, " `{}`", self.on.as_path().display())?;
        }
        write!(f, ": {}", describe_errno(self.errno))
    }
}

impl std::error::Error for SetupError {}

/// The text of an errno without Rust's `(os error N)`.
pub fn describe_errno(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    text.chars()
        .next()
        .map(|first| first.to_lowercase().chain(text.chars().skip(1)).collect())
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_text_or_numbers() {
        for bytes in [Bytes::from("/a"), Bytes(vec![b'/', 0xff])] {
            let json = serde_json::to_string(&bytes).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), bytes);
        }
        assert_eq!(serde_json::to_string(&Bytes::from("/a")).unwrap(), "\"/a\"");
    }

    #[test]
    fn paths_are_names() {
        for (path, names) in [("//a/./b/", "a b"), ("/a/../../proc//sys", "proc sys"), ("/", ""), ("", "")] {
            assert_eq!(Bytes::from(path).names().join(&b' '), names.as_bytes(), "{path}");
        }
    }

    #[test]
    fn errors_read_as_calls() {
        let error = SetupError {
            stage: Stage::Setup,
            call: "mount".into(),
            on: "/proc".into(),
            errno: 1,
            message: None,
        };
        assert_eq!(error.to_string(), "mount `/proc`: operation not permitted");
    }
}
