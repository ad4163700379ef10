//! From an OCI runtime specification to the list of set-up operations. Pure: the host is neither read nor changed.
//!
//! The order is that of the established runtimes: namespaces, root, mounts in the order of the specification, devices,
//! terminal, hidden and read-only paths, the change of root, then identity and confinement, and the program last.

mod enter;
mod identity;
mod mounts;
mod namespaces;

pub use enter::enter;
pub use identity::processors;
use mounts::GroupView;
pub use mounts::{MountOptionError, can_be_covered, filesystem};

use crate::cgroup::{Groups, Layout};
use crate::container::{
    Cgroups, DeviceNodes, Entry, Keyring, LineEnds, ParentWork, Pivot, Request, Terminal,
};
use crate::op::{
    Bytes, ConsoleSize, DeviceOp, FdSlot, HierarchiesOp, HookOp, HookOutput, MountOp, Plan, Point, RootOp,
    SetupOp,
};
use crate::seccomp::SeccompError;
use oci_spec::runtime::{Hook, Linux, LinuxDeviceType, LinuxNamespaceType, PosixRlimitType, Spec};
use std::path::{Path, PathBuf};

/// Devices that every container has in /dev: name, major and minor number.
pub const STANDARD_DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

impl Default for ConsoleSize {
    fn default() -> ConsoleSize {
        ConsoleSize { rows: 24, columns: 80 }
    }
}

/// Reason for which a specification cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A required part is missing.
    #[error("the container specification has no `{0}`")]
    Missing(&'static str),
    /// A part that this runtime does not support.
    #[error("the container specification asks for {0}, which is not supported")]
    Unsupported(String),
    /// A path that must be absolute.
    #[error("{0} `{path}` is not an absolute path", path = .1.display())]
    NotAbsolute(&'static str, PathBuf),
    /// The root directory is the host's `/`.
    #[error("the container's root is `/`, that of the host: a container needs a directory of its own")]
    HostRoot,
    /// A device number out of range.
    #[error("device `{path}` has the {1} number {2}, which is out of range", path = .0.display())]
    Device(PathBuf, &'static str, i64),
    /// A hook with a timeout of zero or less.
    #[error("the timeout of hook `{path}` is not a positive number of seconds", path = .0.display())]
    HookTimeout(PathBuf),
    /// A kernel parameter for which the specification has a field.
    #[error("sysctl `{0}` is not allowed as it conflicts with the field `{1}`, which is there for that")]
    SysctlConflict(String, &'static str),
    /// Scheduler parameters that contradict each other.
    #[error("sched_setattr: `SCHED_DEADLINE` {0}")]
    Deadline(String),
    /// A name that network devices cannot have.
    #[error("`{0}` cannot be the name of a network device")]
    DeviceName(String),
    /// Two network devices with one name.
    #[error("the network devices `{0}` and `{1}` would both be called `{2}` in the container")]
    SameDeviceName(String, String, String),
    /// An invalid uid or gid.
    #[error("no user and no group can have the id {0}")]
    Id(u32),
    /// A resource limit that is set twice.
    #[error("the container specification sets the limit {0} twice")]
    LimitTwice(PosixRlimitType),
    /// Ranges of ids that contradict each other.
    #[error("the {0} `{1}` {2}")]
    Mapping(&'static str, String, &'static str),
    /// A namespace that is listed twice.
    #[error("the container specification lists the {0} namespace twice")]
    Twice(LinuxNamespaceType),
    /// Id mappings of a new user namespace are missing.
    #[error("the container specification asks for a new user namespace but has no {0}")]
    NoMappings(&'static str),
    /// Settings without the namespace that they require.
    #[error("{0} needs a {1} namespace of the container's own, and the specification has none")]
    NeedsNamespace(&'static str, LinuxNamespaceType),
    /// A capability that does not exist.
    #[error("unknown capability `{0}`")]
    Capability(String),
    /// A mount with invalid options.
    #[error(transparent)]
    Mount(#[from] MountOptionError),
    /// A system call filter that cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// A kernel parameter that no namespace of the container separates from the host.
    #[error("kernel parameter `{0}` is not separate for the container")]
    Sysctl(String),
    /// An environment entry without `=`, or a text that contains NUL.
    #[error("{0} holds a NUL character")]
    Nul(&'static str),
}

/// Plans the set-up of a container.
///
/// # Errors
/// Fails for specifications that are invalid, or that need what this runtime does not support; the host is not
/// consulted.
pub fn plan(spec: &Spec, request: &Request<'_>) -> Result<Plan, PlanError> {
    let process = spec.process().as_ref().ok_or(PlanError::Missing("process"))?;
    let root = spec.root().as_ref().ok_or(PlanError::Missing("root"))?;
    if root.path().as_os_str().is_empty() {
        return Err(PlanError::Missing("root path"));
    }
    if request.root.is_none() && mounts::is_top(root.path()) {
        return Err(PlanError::HostRoot);
    }
    let linux = spec.linux().as_ref();
    let namespaces = namespaces::read(spec, request)?;
    let mut planner = Planner {
        spec,
        request,
        linux,
        namespaces,
        outside: Vec::new(),
        readonly: Vec::new(),
        is_in_groups: false,
        setup: Vec::new(),
    };
    planner.begin(process)?;
    planner.names();
    planner.root(root)?;
    planner.mounts()?;
    planner.devices()?;
    if process.terminal() == Some(true) {
        let Terminal { size, lines } = request.terminal;
        planner.push(SetupOp::Console { size, bind: true, plain: lines == LineEnds::Plain });
    }
    for (target, follow) in std::mem::take(&mut planner.readonly) {
        planner.push(SetupOp::Mount(MountOp { follow, ..mounts::make_readonly(target) }));
    }
    planner.sysctls()?;
    planner.hidden_paths()?;
    if !process.cwd().is_absolute() {
        return Err(PlanError::NotAbsolute("working directory", process.cwd().clone()));
    }
    planner.push(SetupOp::MakeDir { path: process.cwd().into(), mode: 0o755 });
    planner.hooks_before_pivot()?;
    planner.push(SetupOp::Pivot { by_moving: request.pivot == Pivot::Move });
    planner.finish_root(root)?;
    planner.process(process)?;
    let program = identity::program(process, request.program)?;
    Ok(Plan {
        namespaces: planner.namespaces.made,
        joined: planner.namespaces.joined,
        users: planner.namespaces.users,
        outside: planner.outside,
        clocks: planner.namespaces.clocks,
        cgroup: request.cgroups.born_in,
        setup: planner.setup,
        program,
    })
}

struct Planner<'a> {
    spec: &'a Spec,
    request: &'a Request<'a>,
    linux: Option<&'a Linux>,
    namespaces: namespaces::Namespaces,
    outside: Vec<SetupOp>,
    /// File systems that become read-only once all mounts on them exist.
    readonly: Vec<(Bytes, bool)>,
    /// True once the process is in its cgroups.
    is_in_groups: bool,
    setup: Vec<SetupOp>,
}

impl Planner<'_> {
    fn push(&mut self, op: SetupOp) {
        self.setup.push(op);
    }

    /// Waits at `point`, unless the process already waits for the parent at another one: the parent's work for a new
    /// process is done then.
    fn wait_for_parent(&mut self, point: Point) {
        if !self.setup.iter().any(|op| matches!(op, SetupOp::Wait(_))) {
            self.push(SetupOp::Wait(point));
        }
    }

    /// Namespaces, keyring, and operations that need the host's privileges.
    fn begin(&mut self, process: &oci_spec::runtime::Process) -> Result<(), PlanError> {
        if self.request.parent.has(ParentWork::START) {
            self.push(SetupOp::Wait(Point::Start));
        }
        if self.namespaces.users.is_some() {
            self.outside = identity::limits(process)?;
            self.push(SetupOp::Wait(Point::IdMaps));
        }
        // Before `BecomeRoot`, while the process owns its files in /proc.
        if self.namespaces.own_time {
            let clocks = std::mem::take(&mut self.namespaces.clocks);
            self.push(SetupOp::NewTime(clocks));
        }
        if self.namespaces.users.is_some() {
            self.push(SetupOp::BecomeRoot);
        }
        self.push(SetupOp::HideProcess);
        for join in std::mem::take(&mut self.namespaces.joined_inside) {
            self.push(join);
        }
        if self.namespaces.made & LinuxNamespaceType::Network as u64 != 0 {
            self.push(SetupOp::LoopbackUp);
        }
        if self.request.keyring == Keyring::New {
            self.push(SetupOp::NewKeyring);
        }
        Ok(())
    }

    /// Lets the process enter its cgroups, and a cgroup namespace rooted there if it has one.
    fn enter_cgroups(&mut self) {
        if self.request.parent.has(ParentWork::CGROUPS) {
            self.wait_for_parent(Point::Cgroups);
        }
        // Once: there may be several mounts of cgroups.
        let Cgroups { groups, entry, .. } = self.request.cgroups;
        let groups = groups.filter(|groups| groups.needs_attach() && !self.is_in_groups);
        if let (Entry::BySelf | Entry::BySelfIfPossible, Some(groups)) = (entry, groups) {
            let is_required = entry == Entry::BySelf;
            self.push(SetupOp::EnterCgroups { tasks: groups.task_files(), is_required });
        }
        self.is_in_groups = true;
        if self.namespaces.own_cgroup && !std::mem::replace(&mut self.namespaces.made_cgroup, true) {
            // Last, since the namespace is rooted at the cgroup of the process at that time.
            self.push(SetupOp::Unshare(libc::CLONE_NEWCGROUP as u64));
        }
    }

    fn root(&mut self, root: &oci_spec::runtime::Root) -> Result<(), PlanError> {
        let before = match self.propagation()? {
            None => libc::MS_PRIVATE,
            // Peers of the host's mounts stay peers; only the mount of the root directory is cut off.
            Some((libc::MS_SHARED, _)) => 0,
            Some(_) => libc::MS_SLAVE,
        };
        self.push(SetupOp::Propagation(before));
        let mount = self.request.root.map(mounts::filesystem).transpose()?;
        let path = self.request.bundle.map_or_else(|| root.path().clone(), |bundle| bundle.join(root.path()));
        self.push(SetupOp::Root(RootOp {
            path: (&path).into(),
            mount,
            set: if self.request.devices == DeviceNodes::Exclusive { mounts::NODEV } else { 0 },
            cut_off: before == 0,
        }));
        Ok(())
    }

    /// SELinux label of all files on the container's mounts; `None` when labels are not enforced or there is none.
    fn mount_label(&self) -> Option<&str> {
        let label = self.linux.and_then(|linux| linux.mount_label().as_deref());
        label.filter(|label| !label.is_empty() && self.request.identity.modules.selinux)
    }

    fn finish_root(&mut self, root: &oci_spec::runtime::Root) -> Result<(), PlanError> {
        if let Some((bits, recursive)) = self.propagation()? {
            self.push(SetupOp::RootPropagation { bits, recursive });
        }
        if root.readonly() == Some(true) {
            self.push(SetupOp::ReadonlyRoot);
        }
        Ok(())
    }

    /// `MS_…` propagation bits of the root, and whether they apply to all mounts below; `None` when not specified.
    fn propagation(&self) -> Result<Option<(u64, bool)>, PlanError> {
        let name = self.linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let bits = mounts::propagation(name)
            .ok_or_else(|| PlanError::Unsupported(format!("root propagation `{name}`")))?;
        Ok(Some((bits, name.starts_with('r'))))
    }

    fn hooks_before_pivot(&mut self) -> Result<(), PlanError> {
        let Some(hooks) = self.spec.hooks().as_ref().filter(|_| self.request.parent.has(ParentWork::HOOKS))
        else {
            return Ok(());
        };
        // Hooks in the host's namespaces receive the container's state from the parent as well.
        let told =
            [hooks.prestart(), hooks.create_runtime(), hooks.create_container(), hooks.start_container()];
        if told.into_iter().flatten().any(|hooks| !hooks.is_empty()) {
            self.push(SetupOp::Wait(Point::Hooks));
        }
        self.hooks("createContainer", hooks.create_container().as_deref().unwrap_or_default())
    }

    fn hooks(&mut self, name: &str, hooks: &[Hook]) -> Result<(), PlanError> {
        if hooks.is_empty() {
            return Ok(());
        }
        let hooks = hooks.iter().map(hook).collect::<Result<_, _>>()?;
        self.push(SetupOp::Hooks { name: name.to_owned(), hooks });
        Ok(())
    }

    fn names(&mut self) {
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        if let Some(name) = given(self.spec.hostname()) {
            self.push(SetupOp::Hostname(name));
        }
        if let Some(name) = given(self.spec.domainname()) {
            self.push(SetupOp::Domainname(name));
        }
    }

    fn mounts(&mut self) -> Result<(), PlanError> {
        for (index, mount) in self.spec.mounts().iter().flatten().enumerate() {
            if !mount.destination().is_absolute() {
                return Err(PlanError::NotAbsolute("mount destination", mount.destination().clone()));
            }
            let is_unified_only = self.request.cgroups.layout.is_none_or(Layout::is_unified_only);
            if mount.typ().as_deref() == Some("cgroup2") && !is_unified_only {
                // Explicitly version 2, on hosts that also have version 1.
                self.enter_cgroups();
            } else if matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) {
                self.enter_cgroups();
                let view = if self.namespaces.made_cgroup {
                    GroupView::New
                } else if self.namespaces.has(LinuxNamespaceType::Cgroup) {
                    GroupView::Joined
                } else {
                    GroupView::Named
                };
                let groups = self.request.cgroups.groups.unwrap_or(Groups::NONE);
                for op in mounts::cgroup(mount, self.request.cgroups.layout, groups, view)? {
                    let op = match op {
                        SetupOp::Mount(op) => SetupOp::Mount(self.guarded(op)),
                        SetupOp::Hierarchies(op) if self.request.devices == DeviceNodes::Exclusive => {
                            let attributes = op.attributes | mounts::NODEV;
                            SetupOp::Hierarchies(HierarchiesOp { attributes, ..op })
                        }
                        other => other,
                    };
                    self.push(op);
                }
                continue;
            }
            let mut op = mounts::mount(mount, self.request.bundle, self.mount_label())?;
            if let Some((_, handle)) = self.request.sources.iter().find(|(at, _)| *at == index) {
                op.source = crate::op::MountSource::Handle(*handle);
            }
            if let Some(users) = &self.namespaces.users {
                mounts::leave_out_group(&mut op, users);
            }
            let mut op = self.guarded(op);
            if mounts::take_readonly(&mut op) {
                self.readonly.push((op.target.clone(), op.follow));
            }
            self.push(SetupOp::Mount(op));
        }
        self.enter_cgroups();
        Ok(())
    }

    /// Adds `nodev` where there is no device filter: then only the bound device nodes may open devices.
    fn guarded(&self, mut op: MountOp) -> MountOp {
        if self.request.devices == DeviceNodes::Exclusive && !op.target.as_path().starts_with("/dev/pts") {
            mounts::forbid_devices(&mut op);
        }
        op
    }

    /// Nodes and links of /dev, unless another /dev is mounted into the container.
    fn devices(&mut self) -> Result<(), PlanError> {
        let mounts = || self.spec.mounts().iter().flatten();
        let foreign =
            mounts().any(|mount| mount.destination() == Path::new("/dev") && mounts::is_bind(mount));
        if foreign {
            return Ok(());
        }
        let bind = self.request.devices != DeviceNodes::Made;
        let devices = self.linux.and_then(|linux| linux.devices().as_ref());
        let mut listed = Vec::new();
        for device in devices.into_iter().flatten() {
            if !device.path().is_absolute() {
                return Err(PlanError::NotAbsolute("device path", device.path().clone()));
            }
            let number = |what: &'static str, value: i64| {
                u32::try_from(value).map_err(|_| PlanError::Device(device.path().clone(), what, value))
            };
            for id in [device.uid(), device.gid()].into_iter().flatten() {
                identity::check_id(id)?;
            }
            listed.push(device.path().clone());
            // Always a link to the container's own devpts.
            if device.path() == Path::new("/dev/ptmx") {
                continue;
            }
            self.push(SetupOp::Device(DeviceOp {
                path: device.path().into(),
                kind: match device.typ() {
                    LinuxDeviceType::B => 'b',
                    LinuxDeviceType::P => 'p',
                    _ => 'c',
                },
                major: number("major", device.major())?,
                minor: number("minor", device.minor())?,
                mode: device.file_mode().unwrap_or(0o666) & 0o7777,
                uid: device.uid().unwrap_or(0),
                gid: device.gid().unwrap_or(0),
                bind,
                node: self.node(device.path()),
            }));
        }
        for (name, major, minor) in STANDARD_DEVICES {
            let path = Path::new("/dev").join(name);
            if listed.contains(&path) {
                continue;
            }
            let node = self.node(&path);
            self.push(SetupOp::Device(DeviceOp {
                path: Bytes::from(&path),
                kind: 'c',
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
                bind,
                node,
            }));
        }
        self.device_links();
        Ok(())
    }

    fn device_links(&mut self) {
        for (target, path) in [
            ("/proc/self/fd", "/dev/fd"),
            ("/proc/self/fd/0", "/dev/stdin"),
            ("/proc/self/fd/1", "/dev/stdout"),
            ("/proc/self/fd/2", "/dev/stderr"),
            ("pts/ptmx", "/dev/ptmx"),
            ("/proc/kcore", "/dev/core"),
        ] {
            self.push(SetupOp::Link { target: target.into(), path: path.into() });
        }
    }

    fn node(&self, path: &Path) -> Option<FdSlot> {
        self.request.nodes.iter().find(|(at, _)| at == path).map(|(_, slot)| *slot)
    }

    fn sysctls(&mut self) -> Result<(), PlanError> {
        let Some(sysctls) = self.linux.and_then(|linux| linux.sysctl().as_ref()) else { return Ok(()) };
        let mut names: Vec<_> = sysctls.iter().collect();
        names.sort();
        for (name, value) in names {
            // Both forms are in use: `net.ipv4.ip_forward` and `net/ipv4/ip_forward`.
            let dotted = name.replace('/', ".");
            let domain = self.spec.domainname().as_ref().filter(|domain| !domain.is_empty());
            if dotted == "kernel.hostname" {
                return Err(PlanError::SysctlConflict(name.clone(), "hostname"));
            }
            if dotted == "kernel.domainname" && domain.is_some_and(|domain| domain != value) {
                return Err(PlanError::SysctlConflict(name.clone(), "domainname"));
            }
            if !self.namespaces.owns_sysctl(&dotted) {
                return Err(PlanError::Sysctl(name.clone()));
            }
            self.push(SetupOp::Sysctl { name: name.clone(), value: value.clone() });
        }
        Ok(())
    }

    fn hidden_paths(&mut self) -> Result<(), PlanError> {
        let Some(linux) = self.linux else { return Ok(()) };
        for path in linux.readonly_paths().iter().flatten() {
            self.push(SetupOp::Readonly(absolute("read-only path", path)?));
        }
        for path in linux.masked_paths().iter().flatten() {
            self.push(SetupOp::Mask(absolute("masked path", path)?));
        }
        Ok(())
    }
}

/// Network devices of the host to move into the container: names on the host and in the container.
///
/// # Errors
/// [`PlanError::DeviceName`] for invalid names, [`PlanError::SameDeviceName`] for two devices with one name.
pub fn network_devices(spec: &Spec) -> Result<Vec<(String, String)>, PlanError> {
    let Some(linux) = spec.linux() else { return Ok(Vec::new()) };
    let devices = linux.net_devices().iter().flatten().map(|(name, device)| {
        let inside = device.name().clone().filter(|inside| !inside.is_empty());
        (name.clone(), inside.unwrap_or_else(|| name.clone()))
    });
    let mut devices: Vec<(String, String)> = devices.collect();
    // A table has no order, but a plan does.
    devices.sort();
    for (place, (name, inside)) in devices.iter().enumerate() {
        if let Some(wrong) = [name, inside].into_iter().find(|name| !is_device_name(name)) {
            return Err(PlanError::DeviceName(wrong.clone()));
        }
        if let Some((other, _)) = devices[..place].iter().find(|(_, taken)| taken == inside) {
            return Err(PlanError::SameDeviceName(other.clone(), name.clone(), inside.clone()));
        }
    }
    let namespaces = linux.namespaces().iter().flatten();
    let separate = namespaces.into_iter().any(|one| one.typ() == LinuxNamespaceType::Network);
    if !devices.is_empty() && !separate {
        return Err(PlanError::NeedsNamespace("netDevices", LinuxNamespaceType::Network));
    }
    Ok(devices)
}

/// True for valid names of network interfaces (`dev_valid_name` of the kernel).
fn is_device_name(name: &str) -> bool {
    const MAX_NAME: usize = 15;
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !matches!(name, "." | "..")
        && !name.contains(|letter: char| letter == '/' || letter == ':' || letter.is_whitespace())
}

/// Checks the hooks that run last before the start: afterwards no error can be reported.
pub fn check_hooks(spec: &Spec) -> Result<(), PlanError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let lists = [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    lists.into_iter().flatten().flatten().try_for_each(|one| hook(one).map(drop))
}

fn absolute(what: &'static str, path: &str) -> Result<Bytes, PlanError> {
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(PlanError::NotAbsolute(what, path.into()))
}

/// Converts a hook to an operation.
pub fn hook(hook: &Hook) -> Result<HookOp, PlanError> {
    if !hook.path().is_absolute() {
        return Err(PlanError::NotAbsolute("hook", hook.path().clone()));
    }
    let list = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds @ 1..) => Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
        Some(_) => return Err(PlanError::HookTimeout(hook.path().clone())),
    };
    Ok(HookOp {
        path: hook.path().into(),
        arguments: list(hook.args().as_deref().unwrap_or_default()),
        environment: hook.env().as_deref().map(list),
        output: HookOutput::default(),
        timeout,
    })
}

#[cfg(test)]
mod tests;
