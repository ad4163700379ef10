//! From an OCI runtime specification to the list of set-up operations. Pure: nothing is touched.
//!
//! The order is that of the established runtimes: namespaces, root, mounts in the order given, devices,
//! terminal, hidden and read-only paths, the change of root, then identity and confinement, and the
//! program last.

mod mounts;

pub use mounts::{MountOptionError, filesystem};

use crate::capability;
use crate::cgroup::Layout;
use crate::op::{
    Bytes, CapabilityOp, ConsoleSize, DeviceOp, FdSlot, MountOp, Plan, Program, RootOp, SetupOp, UserIds,
};
use crate::seccomp::{self, SeccompError};
use oci_spec::runtime::{
    LinuxNamespaceType, Mount, PosixRlimit, PosixRlimitType, Process as ProcessSpec, Spec,
};
use std::path::{Path, PathBuf};

/// What a plan needs besides the specification.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions<'a> {
    /// Mounted on the specification's root folder; the folder itself is the root when there is none.
    pub root: Option<&'a Mount>,
    /// A user by name, looked up in the container; the specification's numbers otherwise.
    pub user: Option<&'a str>,
    /// The size of the terminal, for processes that want one.
    pub console: ConsoleSize,
    /// A network namespace that is ready; a fresh one otherwise.
    pub network: Option<FdSlot>,
    /// A version 2 group that the process is born into.
    pub cgroup: Option<FdSlot>,
    /// Wait to be told to go on before anything else.
    pub wait: bool,
    /// No filter guards devices: none may be opened but those made here.
    pub no_device_filter: bool,
    /// Load the default system call filter when the specification names none.
    pub default_filter: bool,
    /// The machine's control groups, for showing them.
    pub layout: Option<&'a Layout>,
}

impl Default for ConsoleSize {
    fn default() -> ConsoleSize {
        ConsoleSize { rows: 24, columns: 80 }
    }
}

/// Why a specification cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A part that every container needs.
    #[error("the container specification has no `{0}`")]
    Missing(&'static str),
    /// A part that this runtime does not carry out.
    #[error("the container specification asks for {0}, which is not supported")]
    Unsupported(String),
    /// A path that must begin at the root.
    #[error("{0} `{path}` is not an absolute path", path = .1.display())]
    NotAbsolute(&'static str, PathBuf),
    /// A capability that does not exist.
    #[error("unknown capability `{0}`")]
    Capability(String),
    /// A mount that cannot be read.
    #[error(transparent)]
    Mount(#[from] MountOptionError),
    /// A system call filter that cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// A kernel parameter that is not the container's own.
    #[error("kernel parameter `{0}` is not separate for the container")]
    Sysctl(String),
    /// An environment entry without `=`, or a text with a NUL in it.
    #[error("{0} holds a NUL character")]
    Nul(&'static str),
}

/// Makes the plan for a container.
pub fn plan(spec: &Spec, options: &PlanOptions<'_>) -> Result<Plan, PlanError> {
    let process = spec.process().as_ref().ok_or(PlanError::Missing("process"))?;
    let root = spec.root().as_ref().ok_or(PlanError::Missing("root"))?;
    let mut planner = Planner { spec, options, namespaces: 0, setup: Vec::new() };
    planner.namespaces()?;
    planner.push(SetupOp::NewKeyring);
    planner.names();
    planner.push(SetupOp::Propagation(propagation(spec)?));
    let mount = options.root.map(mounts::filesystem).transpose()?;
    planner.push(SetupOp::Root(RootOp { path: root.path().into(), mount }));
    planner.mounts()?;
    planner.devices();
    if process.terminal() == Some(true) {
        planner.push(SetupOp::Console(options.console));
    }
    planner.sysctls()?;
    planner.hidden_paths();
    if !process.cwd().is_absolute() {
        return Err(PlanError::NotAbsolute("working folder", process.cwd().clone()));
    }
    planner.push(SetupOp::MakeFolder { path: process.cwd().into(), mode: 0o755 });
    if root.readonly() == Some(true) {
        planner.push(SetupOp::ReadonlyRoot);
    }
    planner.push(SetupOp::Pivot);
    planner.limits(process);
    planner.identity(process)?;
    let program = program(process)?;
    let cgroup = options.cgroup;
    Ok(Plan { namespaces: planner.namespaces, cgroup, setup: planner.setup, program })
}

struct Planner<'a> {
    spec: &'a Spec,
    options: &'a PlanOptions<'a>,
    namespaces: u64,
    setup: Vec<SetupOp>,
}

impl Planner<'_> {
    fn push(&mut self, op: SetupOp) {
        self.setup.push(op);
    }

    fn namespaces(&mut self) -> Result<(), PlanError> {
        if self.options.wait {
            self.push(SetupOp::WaitForGo);
        }
        let linux = self.spec.linux().as_ref();
        let mut own_cgroup = false;
        for namespace in linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten() {
            let kind = namespace.typ();
            if let Some(path) = namespace.path() {
                match kind {
                    LinuxNamespaceType::Pid | LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                        return Err(PlanError::Unsupported(format!("joining an existing {kind} namespace")));
                    }
                    _ => self.push(SetupOp::JoinPath(path.into())),
                }
                continue;
            }
            match kind {
                LinuxNamespaceType::Mount => self.namespaces |= libc::CLONE_NEWNS as u64,
                LinuxNamespaceType::Pid => self.namespaces |= libc::CLONE_NEWPID as u64,
                LinuxNamespaceType::Ipc => self.namespaces |= libc::CLONE_NEWIPC as u64,
                LinuxNamespaceType::Uts => self.namespaces |= libc::CLONE_NEWUTS as u64,
                LinuxNamespaceType::Network => match self.options.network {
                    Some(slot) => self.push(SetupOp::Join(slot)),
                    None => self.namespaces |= libc::CLONE_NEWNET as u64,
                },
                LinuxNamespaceType::Cgroup => own_cgroup = true,
                LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                    return Err(PlanError::Unsupported(format!("a {kind} namespace")));
                }
            }
        }
        if self.namespaces & libc::CLONE_NEWNS as u64 == 0 {
            return Err(PlanError::Unsupported("sharing the machine's mounts".to_owned()));
        }
        if own_cgroup {
            // Late, since it is rooted at the group that the process is in by then.
            self.push(SetupOp::Unshare(libc::CLONE_NEWCGROUP as u64));
        }
        Ok(())
    }

    fn names(&mut self) {
        if let Some(name) = self.spec.hostname() {
            self.push(SetupOp::Hostname(name.clone()));
        }
        if let Some(name) = self.spec.domainname() {
            self.push(SetupOp::Domainname(name.clone()));
        }
    }

    fn mounts(&mut self) -> Result<(), PlanError> {
        for mount in self.spec.mounts().iter().flatten() {
            if !mount.destination().is_absolute() {
                return Err(PlanError::NotAbsolute("mount destination", mount.destination().clone()));
            }
            let ops = match mount.typ().as_deref() {
                Some("cgroup") => mounts::cgroup(mount, self.options.layout)?,
                _ => vec![mounts::mount(mount)?],
            };
            for op in ops {
                self.push(SetupOp::Mount(self.guarded(op)));
            }
        }
        Ok(())
    }

    /// Without a device filter no mount but the machine's own device nodes may open devices.
    fn guarded(&self, mut op: MountOp) -> MountOp {
        if self.options.no_device_filter && !op.target.as_path().starts_with("/dev/pts") {
            mounts::forbid_devices(&mut op);
        }
        op
    }

    /// Nodes and links of /dev, when the container gets a /dev of its own.
    fn devices(&mut self) {
        let own_dev =
            self.spec.mounts().iter().flatten().any(|mount| mount.destination() == Path::new("/dev"));
        if !own_dev {
            return;
        }
        for (name, minor, major) in [
            ("null", 3, 1),
            ("zero", 5, 1),
            ("full", 7, 1),
            ("random", 8, 1),
            ("urandom", 9, 1),
            ("tty", 0, 5),
        ] {
            self.push(SetupOp::Device(DeviceOp {
                path: format!("/dev/{name}").into(),
                kind: 'c',
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
                bind: self.options.no_device_filter,
            }));
        }
        let linux = self.spec.linux().as_ref();
        for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
            self.push(SetupOp::Device(DeviceOp {
                path: device.path().into(),
                kind: device.typ().as_str().chars().next().unwrap_or('c'),
                major: device.major() as u32,
                minor: device.minor() as u32,
                mode: device.file_mode().unwrap_or(0o666),
                uid: device.uid().unwrap_or(0),
                gid: device.gid().unwrap_or(0),
                bind: self.options.no_device_filter,
            }));
        }
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

    fn sysctls(&mut self) -> Result<(), PlanError> {
        let linux = self.spec.linux().as_ref();
        let Some(sysctls) = linux.and_then(|linux| linux.sysctl().as_ref()) else { return Ok(()) };
        let mut names: Vec<_> = sysctls.iter().collect();
        names.sort();
        for (name, value) in names {
            if !is_namespaced(name) {
                return Err(PlanError::Sysctl(name.clone()));
            }
            self.push(SetupOp::Sysctl { name: name.clone(), value: value.clone() });
        }
        Ok(())
    }

    fn hidden_paths(&mut self) {
        let Some(linux) = self.spec.linux() else { return };
        for path in linux.readonly_paths().iter().flatten() {
            self.push(SetupOp::Readonly(path.as_str().into()));
        }
        for path in linux.masked_paths().iter().flatten() {
            self.push(SetupOp::Mask(path.as_str().into()));
        }
    }

    fn limits(&mut self, process: &ProcessSpec) {
        for limit in process.rlimits().iter().flatten() {
            self.push(limit_op(limit, false));
        }
        if let Some(score) = process.oom_score_adj() {
            self.push(SetupOp::OomScore(score));
        }
        self.push(SetupOp::Umask(process.user().umask().unwrap_or(0o022)));
    }

    fn identity(&mut self, process: &ProcessSpec) -> Result<(), PlanError> {
        let sets = capability_sets(process)?;
        let no_new_privileges = process.no_new_privileges() == Some(true);
        let linux = self.spec.linux().as_ref();
        let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
        let seccomp = match seccomp {
            Some(profile) => Some(seccomp::compile_profile(profile)?.without_listener()?),
            None if self.options.default_filter => {
                Some((seccomp::default_program(sets.0), seccomp::DEFAULT_FLAGS))
            }
            None => None,
        };
        let seccomp = seccomp.map(|(program, flags)| SetupOp::Seccomp { program, flags });
        self.push(SetupOp::Bounding(sets.0));
        if !no_new_privileges && let Some(seccomp) = &seccomp {
            // Loading a filter takes rights that are given up next.
            self.push(seccomp.clone());
        }
        match self.options.user {
            Some(name) => self.push(SetupOp::FindUser(name.to_owned())),
            None => {
                let user = process.user();
                let groups = user.additional_gids().clone().unwrap_or_default();
                self.push(SetupOp::User(UserIds { uid: user.uid(), gid: user.gid(), groups }));
            }
        }
        self.push(SetupOp::WorkingFolder(process.cwd().into()));
        self.push(SetupOp::Capabilities(sets.1));
        if no_new_privileges {
            self.push(SetupOp::NoNewPrivileges);
            if let Some(seccomp) = seccomp {
                self.push(seccomp);
            }
        }
        Ok(())
    }
}

fn propagation(spec: &Spec) -> Result<u64, PlanError> {
    let linux = spec.linux().as_ref();
    Ok(match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        None | Some("" | "private" | "rprivate") => libc::MS_PRIVATE,
        Some("slave" | "rslave") => libc::MS_SLAVE,
        Some(other) => return Err(PlanError::Unsupported(format!("root propagation `{other}`"))),
    })
}

/// Bounding set and the others.
fn capability_sets(process: &ProcessSpec) -> Result<(u64, CapabilityOp), PlanError> {
    let Some(sets) = process.capabilities() else { return Ok((0, CapabilityOp::default())) };
    let mask = |set: &Option<oci_spec::runtime::Capabilities>| {
        let names: Vec<String> = set.iter().flatten().map(ToString::to_string).collect();
        capability::mask(names.iter().map(String::as_str)).map_err(PlanError::Capability)
    };
    let op = CapabilityOp {
        effective: mask(sets.effective())?,
        permitted: mask(sets.permitted())?,
        inheritable: mask(sets.inheritable())?,
        ambient: mask(sets.ambient())?,
    };
    Ok((mask(sets.bounding())?, op))
}

fn limit_op(limit: &PosixRlimit, clamp: bool) -> SetupOp {
    let name = match limit.typ() {
        PosixRlimitType::RlimitAs => "AS",
        PosixRlimitType::RlimitCore => "CORE",
        PosixRlimitType::RlimitCpu => "CPU",
        PosixRlimitType::RlimitData => "DATA",
        PosixRlimitType::RlimitFsize => "FSIZE",
        PosixRlimitType::RlimitLocks => "LOCKS",
        PosixRlimitType::RlimitMemlock => "MEMLOCK",
        PosixRlimitType::RlimitMsgqueue => "MSGQUEUE",
        PosixRlimitType::RlimitNice => "NICE",
        PosixRlimitType::RlimitNofile => "NOFILE",
        PosixRlimitType::RlimitNproc => "NPROC",
        PosixRlimitType::RlimitRss => "RSS",
        PosixRlimitType::RlimitRtprio => "RTPRIO",
        PosixRlimitType::RlimitRttime => "RTTIME",
        PosixRlimitType::RlimitSigpending => "SIGPENDING",
        PosixRlimitType::RlimitStack => "STACK",
    };
    SetupOp::Limit { resource: name.to_owned(), soft: limit.soft(), hard: limit.hard(), clamp }
}

/// Kernel parameters that exist once in each container: those of its IPC, network and host name.
fn is_namespaced(name: &str) -> bool {
    let ipc = ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall"];
    let more_ipc = ["kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"];
    let uts = ["kernel.hostname", "kernel.domainname"];
    ipc.contains(&name)
        || more_ipc.contains(&name)
        || uts.contains(&name)
        || ["fs.mqueue.", "net.", "user."].iter().any(|prefix| name.starts_with(prefix))
            && !name.contains('/')
            && !name.contains("..")
}

fn program(process: &ProcessSpec) -> Result<Program, PlanError> {
    let arguments =
        process.args().as_ref().filter(|args| !args.is_empty()).ok_or(PlanError::Missing("args"))?;
    let bytes = |list: &[String], what: &'static str| {
        if list.iter().any(|text| text.contains('\0')) {
            return Err(PlanError::Nul(what));
        }
        Ok(list.iter().map(|text| Bytes::from(text.as_str())).collect::<Vec<_>>())
    };
    let environment = process.env().clone().unwrap_or_default();
    Ok(Program {
        arguments: bytes(arguments, "an argument")?,
        environment: bytes(&environment, "the environment")?,
    })
}

#[cfg(test)]
mod tests;
