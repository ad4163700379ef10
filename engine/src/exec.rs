//! Further processes in containers that run, and signals to them.

use crate::container::{PAUSE, Records};
use crate::directory::Lock;
use crate::error::EngineError;
use crate::record::{Container, State};
use crate::start::Stdio;
use kiln_runtime::cgroup::Groups;
use kiln_runtime::container::{
    CallerError, EntryCgroups, ExecRequest, Filter, Handed, Home, Identity, Keyring, Modules, ParentWork,
    ProgramFile, Steps, Terminal, other_namespaces,
};
use kiln_runtime::op::Point;
use kiln_runtime::plan::enter;
use kiln_runtime::{Process, SpawnRequest, Spawner, launch, spec};
use oci_spec::runtime::Process as ProcessSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Paths of shells in images.
const SHELLS: [&str; 6] = ["/bin/bash", "/bin/sh", "/usr/bin/bash", "/usr/bin/sh", "/bin/zsh", "/busybox/sh"];

/// A further process for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and its arguments; at least one.
    pub arguments: Vec<String>,
    /// `NAME=value`, in front of the container's own variables.
    pub environment: Vec<String>,
    /// Working directory; `None` for the container's.
    pub dir: Option<String>,
    /// User, as in USER; `None` for the container's.
    pub user: Option<String>,
    /// True for a process with a terminal.
    pub tty: bool,
    /// The process has all capabilities, and no filter of system calls.
    pub privileged: bool,
}

/// A container whose program runs: its init process cannot be another one meanwhile.
pub struct Live {
    /// Record of the container, read before its init process was opened.
    pub container: Container,
    /// Pid of the init process.
    pub pid: i32,
    pidfd: OwnedFd,
}

impl Records {
    /// Opens the init process of a container.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`] when its program does not run.
    pub fn live(&self, container: &Container) -> Result<Live, EngineError> {
        let not_running = || EngineError::NotRunning(container.id.clone());
        let State::Running { pid, .. } = container.state else { return Err(not_running()) };
        let handle = Pid::from_raw(pid).ok_or_else(not_running)?;
        let pidfd = pidfd_open(handle, PidfdFlags::empty()).map_err(|_| not_running())?;
        // While the monitor holds the lock, the pid cannot be reused; after that the times of start are compared.
        match self.lock(&container.id)? {
            Lock::Held(_) if !container.state.is_alive() => Err(not_running()),
            Lock::Gone => Err(not_running()),
            Lock::Busy | Lock::Held(_) => Ok(Live { container: container.clone(), pid, pidfd }),
        }
    }
}

/// True when the process with this pid is the one that a record names, by the time of its start, and has not ended.
pub(crate) fn is_same_process(pid: i32, ticks: &str) -> bool {
    Groups::is_running(pid, ticks)
}

impl Live {
    /// Sends a signal by its number to the init process; one that has ended is fine.
    pub fn signal(&self, number: i32) {
        let _ = launch::signal(self.pidfd.as_fd(), number);
        self.thaw();
    }

    /// The pidfd of the init process: readable when it has ended.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Waits for the end of the init process.
    pub fn wait(&self) {
        self.wait_for(None);
    }

    /// Waits for the end of the init process, at most for `patience`; false when it has not ended.
    pub fn wait_for(&self, patience: Option<Duration>) -> bool {
        // A time beyond the clock is no limit.
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left
                .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return false,
                Err(Errno::INTR) => {}
                _ => return true,
            }
        }
    }

    /// Runs a further program in the container.
    ///
    /// The caller's own file must be sealed (`kiln_runtime::seal`): until the program runs, processes of the container see it.
    ///
    /// # Errors
    /// [`EngineError::UnknownCgroups`] for a container that an older version started, [`EngineError::Start`] with the reason
    /// why the program does not run.
    pub fn exec(
        &self,
        options: &ExecOptions,
        spawner: &Spawner,
        stdio: &Stdio<'_>,
    ) -> Result<Process, EngineError> {
        self.refuse_paused()?;
        self.wait_for_program()?;
        // Outside of the container's cgroups its device rules would not apply.
        let groups = self.container.groups.as_ref();
        let groups = groups.ok_or_else(|| EngineError::UnknownCgroups(self.container.id.clone()))?;
        let cgroups = EntryCgroups::new(groups, self.pid, &[]).expect("no cgroup below is asked for");
        let mut handed = Handed::default();
        let target = handed.lend(self.pidfd.as_fd());
        let cgroup = cgroups.open()?.map(|dir| handed.give(dir));
        let security = &self.container.settings.security;
        let settings = &self.container.settings;
        let filter = if options.privileged { Filter::None } else { settings.filter() };
        let profile = security.profile(settings.privileges.capabilities())?.filter(|_| !options.privileged);
        let request = ExecRequest {
            target,
            namespaces: other_namespaces(self.pid),
            cgroup,
            parent: ParentWork::NONE.and_if(cgroups.needs_parent(), ParentWork::START),
            personality: None,
            seccomp: profile.as_ref(),
            keyring: Keyring::New,
            terminal: Terminal { size: stdio.console, ..Terminal::default() },
            identity: Identity {
                user: Some(options.user.as_deref().unwrap_or(&self.container.settings.user)),
                home: Home::Given,
                filter,
                groups: settings.privileges.supplementary(),
                more_groups: settings.privileges.more_groups(),
                modules: Modules { apparmor: !options.privileged, selinux: false },
            },
            program: ProgramFile::default(),
        };
        let plan = enter(&self.process(options), &request)?;
        let Stdio { stdin, stdout, stderr, .. } = *stdio;
        let request = SpawnRequest { plan: &plan, handed: &handed, stdin, stdout, stderr };
        Ok(spawner.spawn_with(&request, &mut Attaching { cgroups })?)
    }

    /// Paths of the shells that the container has, the usual ones first.
    pub fn shells(&self) -> Vec<&'static str> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = fs::open(format!("/proc/{}/root", self.pid), flags, Mode::empty()) else {
            return Vec::new();
        };
        let is_program = |path: &&str| {
            // Links of the container are resolved in its root.
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let opened = fs::openat2(&root, *path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
            opened.and_then(fs::fstat).is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
            })
        };
        SHELLS.into_iter().filter(is_program).collect()
    }

    /// Waits until the init process has executed its program. The record names it before: until then its mounts and root may be
    /// the host's, and a process that entered them would see the host's files.
    pub(crate) fn wait_for_program(&self) -> Result<(), EngineError> {
        loop {
            match launch::has_executed(self.pid) {
                Some(true) => return Ok(()),
                Some(false) => std::thread::sleep(PAUSE),
                None => return Err(EngineError::NotRunning(self.container.id.clone())),
            }
        }
    }

    fn process(&self, options: &ExecOptions) -> ProcessSpec {
        let settings = &self.container.settings;
        let mut spec = spec::default(PathBuf::new());
        if options.privileged {
            spec::make_insecure(&mut spec);
        }
        let mut process = spec.process().clone().unwrap_or_default();
        if !options.privileged {
            settings.privileges.apply_to_process(&mut process);
        }
        let dir = options.dir.as_deref().unwrap_or(&settings.dir);
        let profile = Some(self.container.profile.clone()).filter(|profile| !profile.is_empty());
        process
            .set_args(Some(options.arguments.clone()))
            .set_env(Some(settings.exec_environment(&options.environment, options.tty)))
            .set_cwd(PathBuf::from(spec::clean_path(dir)))
            .set_terminal(Some(options.tty))
            .set_no_new_privileges(Some(settings.security.no_new_privileges))
            .set_apparmor_profile(profile);
        process
    }
}

/// Moves the process into version 1 cgroups.
struct Attaching {
    cgroups: EntryCgroups,
}

impl Steps for Attaching {
    fn reached(&mut self, _: Point, pid: i32) -> Result<Vec<u8>, CallerError> {
        self.cgroups.attach(pid)?;
        Ok(Vec::new())
    }
}
