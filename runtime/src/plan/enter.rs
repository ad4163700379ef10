//! A further process in a container that runs.

use super::PlanError;
use super::identity::{self, Confinement};
use crate::op::{ConsoleSize, FdSlot, JoinAt, JoinOp, Plan, SetupOp};
use oci_spec::runtime::{LinuxPersonality, LinuxSeccomp, Process as ProcessSpec};

/// What a plan for a further process needs besides its specification.
#[derive(Clone, Debug)]
pub struct EnterOptions<'a> {
    /// A handle on the container's first process.
    pub target: FdSlot,
    /// Its namespaces that differ from the caller's, as `CLONE_NEW…` bits.
    pub namespaces: u64,
    /// The version 2 group that the process is born into.
    pub cgroup: Option<FdSlot>,
    /// A user by name, looked up in the container; the specification's numbers otherwise.
    pub user: Option<&'a str>,
    /// The container's execution domain.
    pub personality: Option<&'a LinuxPersonality>,
    /// The container's filter.
    pub filter: Option<&'a LinuxSeccomp>,
    /// Load the default filter when there is none.
    pub default_filter: bool,
    /// Size of its terminal.
    pub console: ConsoleSize,
    /// Its lines end as the program says, for whoever reads them may be no terminal.
    pub plain_console: bool,
    /// The parent puts the process into version 1 groups first.
    pub attach: bool,
    /// Stay in the caller's session keyring.
    pub keep_keyring: bool,
    /// Descriptors from 3 on that the program keeps.
    pub kept_fds: u32,
    /// This program's file is not sealed: the container's is run by a handle (see `seal`).
    pub by_handle: bool,
    /// Labels of this security module can be set.
    pub selinux: bool,
    /// Profiles of this security module can be set.
    pub apparmor: bool,
}

/// Makes the plan for a process that enters a container.
pub fn enter(process: &ProcessSpec, options: &EnterOptions<'_>) -> Result<Plan, PlanError> {
    if !process.cwd().is_absolute() {
        return Err(PlanError::NotAbsolute("working directory", process.cwd().clone()));
    }
    let mut setup = Vec::new();
    if options.attach {
        setup.push(SetupOp::Wait(crate::op::Point::Groups));
    }
    if options.namespaces & libc::CLONE_NEWUSER as u64 != 0 {
        setup.push(SetupOp::BecomeRoot);
    }
    setup.push(SetupOp::HideProcess);
    setup.push(SetupOp::PresentRoot);
    if !options.keep_keyring {
        setup.push(SetupOp::NewKeyring);
    }
    if process.terminal() == Some(true) {
        setup.push(SetupOp::Console { size: options.console, bind: false, plain: options.plain_console });
    }
    setup.extend(identity::limits(process)?);
    setup.extend(options.personality.map(identity::personality).transpose()?);
    setup.extend(identity::schedule(process)?);
    let affinity = process.exec_cpu_affinity().as_ref();
    let list = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref()).unwrap_or_default();
    let processors = identity::processors(list)?;
    let begins = affinity.and_then(|affinity| affinity.initial().as_deref()).unwrap_or_default();
    if !processors.is_empty() {
        setup.push(SetupOp::Affinity(processors));
    } else if begins.is_empty() {
        setup.push(SetupOp::AnyProcessor);
    }
    setup.push(SetupOp::Umask(process.user().umask().unwrap_or(0o022)));
    setup.extend(identity::identity(
        process,
        &Confinement {
            filter: options.filter,
            filter_follows: false,
            default_filter: options.default_filter,
            user: options.user,
            home: true,
            keep_groups: false,
            selinux: options.selinux,
            apparmor: options.apparmor,
        },
    )?);
    let target = JoinOp { kinds: options.namespaces, at: JoinAt::Slot(options.target) };
    Ok(Plan {
        namespaces: 0,
        joined: vec![target],
        users: None,
        outside: Vec::new(),
        clocks: Vec::new(),
        cgroup: options.cgroup,
        setup,
        program: identity::program(process, options.kept_fds, options.by_handle)?,
    })
}
