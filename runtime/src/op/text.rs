//! Plans as text: one line for each operation, for users and golden files.

use super::{
    Bytes, CapabilityOp, ClockOffset, DeviceOp, FdSlot, FilesystemMount, HierarchiesOp, HierarchyView,
    HookOp, IdMaps, IdRange, JoinAt, JoinOp, Links, MountOp, MountSource, Plan, Point, Program, RootOp,
    SchedulerOp, SetupOp,
};
use crate::capability;
use std::fmt::{self, Display, Formatter};

/// Namespaces by their `CLONE_NEW…` bits, in the order of namespaces(7).
const NAMESPACES: [(u64, &str); 8] = [
    (libc::CLONE_NEWCGROUP as u64, "cgroup"),
    (libc::CLONE_NEWIPC as u64, "ipc"),
    (libc::CLONE_NEWNET as u64, "network"),
    (libc::CLONE_NEWNS as u64, "mount"),
    (libc::CLONE_NEWPID as u64, "pid"),
    (0x80, "time"),
    (libc::CLONE_NEWUSER as u64, "user"),
    (libc::CLONE_NEWUTS as u64, "uts"),
];

/// `MOUNT_ATTR_…` bits (mount_setattr(2)); those for access times are never combined.
const ATTRIBUTES: [(u64, &str); 8] = [
    (0x1, "ro"),
    (0x2, "nosuid"),
    (0x4, "nodev"),
    (0x8, "noexec"),
    (0x10, "noatime"),
    (0x20, "strictatime"),
    (0x80, "nodiratime"),
    (0x20_0000, "nosymfollow"),
];

/// Propagation by its `MS_…` bit (mount(2)).
const PROPAGATION: [(u64, &str); 4] = [
    (libc::MS_SHARED, "shared"),
    (libc::MS_SLAVE, "slave"),
    (libc::MS_PRIVATE, "private"),
    (libc::MS_UNBINDABLE, "unbindable"),
];

/// Names of the set bits, separated by commas; bits without a name in hexadecimal.
fn bits(value: u64, names: &[(u64, &str)]) -> String {
    let known = names.iter().filter(|(bit, _)| value & bit != 0);
    let rest = names.iter().fold(value, |rest, (bit, _)| rest & !bit);
    let mut words: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    words.join(",")
}

fn attributes(value: u64) -> String {
    bits(value, &ATTRIBUTES)
}

fn capabilities(mask: u64) -> String {
    match mask {
        0 => "none".to_owned(),
        u64::MAX => "all".to_owned(),
        mask => capability::names(mask).join(","),
    }
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Bytes as text; quoted where a space or a control character would be misread.
impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        let is_plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '"';
        if !text.is_empty() && text.chars().all(is_plain) {
            f.write_str(&text)
        } else {
            write!(f, "{text:?}")
        }
    }
}

impl Display for FdSlot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "fd[{}]", self.0)
    }
}

impl Display for Point {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Point::Start => "start",
            Point::IdMaps => "id maps",
            Point::Cgroups => "cgroups",
            Point::Devices => "device rules",
            Point::Filter => "filter",
            Point::Hooks => "hooks",
        })
    }
}

impl Display for IdRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

impl Display for IdMaps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "uids {} gids {}", list(&self.users), list(&self.groups))
    }
}

impl Display for ClockOffset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}.{:09}s", self.clock, self.seconds, self.nanoseconds)
    }
}

impl Display for JoinOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of ", bits(self.kinds, &NAMESPACES))?;
        match &self.at {
            JoinAt::Path(path) => write!(f, "{path}"),
            JoinAt::Slot(slot) => write!(f, "{slot}"),
        }
    }
}

impl Display for FilesystemMount {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.fstype, Bytes::from(self.source.as_str()))?;
        let option = |(key, value): &(String, Option<String>)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        };
        let options: Vec<String> = self.options.iter().map(option).collect();
        if !options.is_empty() {
            write!(f, " [{}]", options.join(","))?;
        }
        if self.attributes != 0 {
            write!(f, " {}", attributes(self.attributes))?;
        }
        Ok(())
    }
}

impl Display for RootOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        match &self.mount {
            Some(mount) => write!(f, " with {mount}")?,
            None => f.write_str(" as it is")?,
        }
        if self.set != 0 {
            write!(f, " set {}", attributes(self.set))?;
        }
        f.write_str(if self.cut_off { " cut off from its peers" } else { "" })
    }
}

impl Display for MountSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            MountSource::Filesystem(mount) => write!(f, "{mount}"),
            MountSource::Bind { path, recursive: true } => write!(f, "rbind {path}"),
            MountSource::Bind { path, recursive: false } => write!(f, "bind {path}"),
            MountSource::Handle(slot) => write!(f, "{slot}"),
            MountSource::Remount => f.write_str("remount"),
        }
    }
}

impl Display for Links {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (is_set, text) in [
            (self.copy_source, " copy-symlink"),
            (self.mount_source, " src-nofollow"),
            (self.cover_target, " dest-nofollow"),
        ] {
            f.write_str(if is_set { text } else { "" })?;
        }
        Ok(())
    }
}

impl Display for MountOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.target, self.source)?;
        let recursive = |is: bool| if is { "r" } else { "" };
        for (name, value) in [("set", self.set), ("clear", self.clear)] {
            if value != 0 {
                write!(f, " {}{name} {}", recursive(self.recursive_attributes), attributes(value))?;
            }
        }
        if self.propagation != 0 {
            let name = bits(self.propagation, &PROPAGATION);
            write!(f, " {}{name}", recursive(self.recursive_propagation))?;
        }
        f.write_str(if self.copy_up { " copy-up" } else { "" })?;
        f.write_str(if self.follow { "" } else { " no-links" })?;
        write!(f, "{}", self.links)
    }
}

impl Display for HierarchiesOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.target, attributes(self.attributes))?;
        for mount in &self.mounts {
            match &mount.shows {
                HierarchyView::Nothing => write!(f, " {}:empty", mount.name)?,
                HierarchyView::Cgroup(path) => write!(f, " {}:{path}", mount.name)?,
                HierarchyView::Namespace(options) => write!(f, " {}:namespace[{options}]", mount.name)?,
            }
        }
        self.links.iter().try_for_each(|(name, target)| write!(f, " {name}->{target}"))
    }
}

impl Display for DeviceOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let DeviceOp { path, kind, major, minor, mode, uid, gid, bind, node } = self;
        write!(f, "{path} {kind} {major}:{minor} mode {mode:o} owner {uid}:{gid}")?;
        match (node, bind) {
            (Some(slot), _) => write!(f, " {slot}"),
            (None, true) => f.write_str(" bound"),
            (None, false) => f.write_str(" made"),
        }
    }
}

impl Display for HookOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))?;
        match self.timeout {
            Some(seconds) => write!(f, " within {seconds} s"),
            None => Ok(()),
        }
    }
}

impl Display for SchedulerOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SchedulerOp { policy, flags, nice, priority, runtime, deadline, period } = self;
        write!(f, "policy {policy} flags {flags:#x} nice {nice} priority {priority}")?;
        write!(f, " runtime {runtime} deadline {deadline} period {period}")
    }
}

impl Display for CapabilityOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let set = capabilities;
        write!(f, "effective {} permitted {}", set(self.effective), set(self.permitted))?;
        write!(f, " inheritable {} ambient {}", set(self.inheritable), set(self.ambient))
    }
}

impl Display for SetupOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_namespaces(f)
            .or_else(|| self.write_files(f))
            .or_else(|| self.write_process(f))
            .unwrap_or_else(|| write!(f, "{self:?}"))
    }
}

impl SetupOp {
    /// Writes waits, namespaces and names; `None` for other operations.
    fn write_namespaces(&self, f: &mut Formatter<'_>) -> Option<fmt::Result> {
        Some(match self {
            SetupOp::Wait(point) => write!(f, "wait for the parent: {point}"),
            SetupOp::NewTime(clocks) => write!(f, "new time namespace {}", list(clocks)),
            SetupOp::BecomeRoot => f.write_str("become root of the user namespace"),
            SetupOp::HideProcess => f.write_str("hide this process"),
            SetupOp::Join(slot) => write!(f, "join the namespace of {slot}"),
            SetupOp::JoinPath { kind, path } => write!(f, "join {} of {path}", bits(*kind, &NAMESPACES)),
            SetupOp::LoopbackUp => f.write_str("loopback up"),
            SetupOp::Unshare(kinds) => write!(f, "new {} namespace", bits(*kinds, &NAMESPACES)),
            SetupOp::Hostname(name) => write!(f, "hostname {name}"),
            SetupOp::Domainname(name) => write!(f, "domainname {name}"),
            SetupOp::EnterCgroups { tasks, is_required } => {
                let word = if *is_required { "must enter" } else { "enter" };
                write!(f, "{word} cgroups {}", list(tasks))
            }
            SetupOp::Gate(slot) => write!(f, "wait at the gate {slot}"),
            SetupOp::NewKeyring => f.write_str("new session keyring"),
            SetupOp::Hooks { name, hooks } => write!(f, "hooks {name}: {}", list(hooks)),
            _ => return None,
        })
    }

    /// Writes mounts, nodes and directories; `None` for other operations.
    fn write_files(&self, f: &mut Formatter<'_>) -> Option<fmt::Result> {
        Some(match self {
            SetupOp::Propagation(0) => f.write_str("keep all mounts as they are"),
            SetupOp::Propagation(kind) => write!(f, "make all mounts {}", bits(*kind, &PROPAGATION)),
            SetupOp::Root(root) => write!(f, "root {root}"),
            SetupOp::Mount(mount) => write!(f, "mount {mount}"),
            SetupOp::Hierarchies(op) => write!(f, "mount cgroup hierarchies {op}"),
            SetupOp::Device(device) => write!(f, "device {device}"),
            SetupOp::Link { target, path } => write!(f, "link {path} -> {target}"),
            SetupOp::Console { size, bind, plain } => {
                let shown = if *bind { " at /dev/console" } else { "" };
                let lines = if *plain { " with plain line ends" } else { "" };
                write!(f, "terminal {}x{}{shown}{lines}", size.columns, size.rows)
            }
            SetupOp::PresentRoot => f.write_str("root as it is"),
            SetupOp::Pivot { by_moving: false } => f.write_str("pivot to the root"),
            SetupOp::Pivot { by_moving: true } => f.write_str("move the root to /"),
            SetupOp::RootPropagation { bits: kind, recursive } => {
                write!(f, "make the root {}{}", if *recursive { "r" } else { "" }, bits(*kind, &PROPAGATION))
            }
            SetupOp::ReadonlyRoot => f.write_str("make the root read-only"),
            SetupOp::Readonly(path) => write!(f, "make read-only {path}"),
            SetupOp::Mask(path) => write!(f, "hide {path}"),
            SetupOp::Sysctl { name, value } => write!(f, "sysctl {name}={value}"),
            SetupOp::MakeDir { path, mode } => write!(f, "mkdir {path} mode {mode:o}"),
            SetupOp::TryWorkingDir(path) => write!(f, "try chdir {path}"),
            SetupOp::WorkingDir(path) => write!(f, "chdir {path}"),
            SetupOp::FindProgram => f.write_str("find the program"),
            _ => return None,
        })
    }

    /// Writes limits, identity and confinement; `None` for other operations.
    fn write_process(&self, f: &mut Formatter<'_>) -> Option<fmt::Result> {
        Some(match self {
            SetupOp::Limit { resource, soft, hard, clamp } => {
                write!(f, "limit {resource} {soft}:{hard}{}", if *clamp { " or less" } else { "" })
            }
            SetupOp::OomScore(score) => write!(f, "oom score {score}"),
            SetupOp::Personality(domain) => write!(f, "personality {domain:#x}"),
            SetupOp::Scheduler(op) => write!(f, "scheduler {op}"),
            SetupOp::IoPriority { class, priority } => write!(f, "I/O class {class} priority {priority}"),
            SetupOp::Affinity(processors) => write!(f, "processors {}", list(processors)),
            SetupOp::AnyProcessor => f.write_str("processors all"),
            SetupOp::MemoryPolicy { mode, nodes } => write!(f, "memory policy {mode:#x} nodes {nodes:x?}"),
            SetupOp::Label { file, value } => write!(f, "label {file} {value}"),
            SetupOp::Home(uid) => write!(f, "HOME of uid {uid}"),
            SetupOp::FindUser { user, groups, keep_groups } => {
                let mut groups = groups.clone();
                groups.extend(keep_groups.then(|| "those of the caller".to_owned()));
                let word = if groups.is_empty() { "" } else { " groups " };
                write!(f, "user {user}{word}{}", groups.join(","))
            }
            SetupOp::User { ids, keep_groups } => {
                let mut groups: Vec<String> = ids.groups.iter().map(u32::to_string).collect();
                groups.extend(keep_groups.then(|| "those of the caller".to_owned()));
                let word = if groups.is_empty() { "" } else { " groups " };
                write!(f, "uid {} gid {}{word}{}", ids.uid, ids.gid, groups.join(","))
            }
            SetupOp::Bounding(mask) => write!(f, "bounding {}", capabilities(*mask)),
            SetupOp::Capabilities(sets) => write!(f, "capabilities {sets}"),
            SetupOp::NoNewPrivileges => f.write_str("no new privileges"),
            SetupOp::Seccomp { program, flags, listens } => {
                let source = if program.is_empty() { "from the parent" } else { "compiled" };
                let listens = if *listens { " with a listener" } else { "" };
                write!(f, "seccomp filter {source} flags {flags:#x}{listens}")
            }
            SetupOp::Umask(mask) => write!(f, "umask {mask:03o}"),
            _ => return None,
        })
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("exec")?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))?;
        if self.kept_fds != 0 {
            write!(f, " with {} descriptors from 3", self.kept_fds)?;
        }
        f.write_str(if self.by_handle { " by handle" } else { "" })?;
        self.environment.iter().try_for_each(|entry| write!(f, "\n  {entry}"))
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let made = bits(self.namespaces, &NAMESPACES);
        write!(f, "process in new namespaces: {}", if made.is_empty() { "none" } else { &made })?;
        if let Some(slot) = self.cgroup {
            write!(f, "; born into the cgroup {slot}")?;
        }
        writeln!(f)?;
        self.joined.iter().try_for_each(|join| writeln!(f, "enter first: {join}"))?;
        if !self.clocks.is_empty() {
            writeln!(f, "clocks: {}", list(&self.clocks))?;
        }
        if let Some(users) = &self.users {
            writeln!(f, "id maps: {users}")?;
        }
        self.outside.iter().try_for_each(|op| writeln!(f, "by the parent: {op}"))?;
        self.setup.iter().try_for_each(|op| writeln!(f, "{op}"))?;
        writeln!(f, "{}", self.program)
    }
}
