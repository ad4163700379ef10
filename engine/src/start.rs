//! Starts a container's program, in the process that is its parent.

use crate::container::Owned;
use crate::endpoints::Endpoints;
use crate::error::EngineError;
use crate::monitor::streams::Theirs;
use crate::record::{Container, State, boot_id, now};
use crate::spec::Dirs;
use kiln_network::Proxy;
use kiln_runtime::SpawnError;
use kiln_runtime::cgroup::{self, Cgroup, Groups, Layout, OutOfMemory, stats};
use kiln_runtime::container::{
    CallerError, Cgroups, Handed, Identity, Modules, ParentWork, Request, Steps, Terminal,
};
use kiln_runtime::host::Host;
use kiln_runtime::launch::{Launched, launch};
use kiln_runtime::op::{ConsoleSize, Point, SetupError, Stage};
use kiln_runtime::plan::plan;
use oci_spec::runtime::Mount;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// Prefix of the names of cgroups.
const CGROUP_PREFIX: &str = "kiln-run";

/// Standard streams of a further process in a container; a terminal replaces all three.
#[derive(Clone, Copy, Debug)]
pub struct Stdio<'a> {
    /// Standard input of the program.
    pub stdin: BorrowedFd<'a>,
    /// Standard output of the program.
    pub stdout: BorrowedFd<'a>,
    /// Standard error of the program.
    pub stderr: BorrowedFd<'a>,
    /// Initial size of the terminal, for containers with one.
    pub console: ConsoleSize,
}

/// A container's program that runs.
pub(crate) struct Started {
    /// First process of the container.
    pub(crate) process: Launched,
    /// Master of its terminal; `None` without one.
    pub(crate) console: Option<OwnedFd>,
    /// Time of the start, RFC 3339.
    pub(crate) time: String,
    /// Resources that are released when the container has ended.
    pub(crate) resources: Resources,
}

/// Resources of a running container.
#[derive(Default)]
pub(crate) struct Resources {
    cgroup: Option<Cgroup>,
    /// Its endpoints in networks.
    pub(crate) endpoints: Endpoints,
}

impl Owned {
    /// Starts the program as a child of this process, which has one thread. `root` is the mount that becomes the root,
    /// `images` are mounts of images, `state` is a directory that is emptied at boot, `proxy` serves published ports.
    ///
    /// # Errors
    /// Fails when a part of the container cannot be made. The record is unchanged then, or names a process that has
    /// been reaped.
    pub(crate) fn start(
        &mut self,
        (root, images): (&Mount, &[Mount]),
        state: &Path,
        size: ConsoleSize,
        theirs: Theirs,
        proxy: Option<Proxy>,
    ) -> Result<Started, EngineError> {
        let layout = Host::get().layout();
        let mut resources = self.resources(state, layout, proxy)?;
        self.container.endpoints = resources.endpoints.records();
        resources.endpoints.serve_names(&self.container)?;
        self.container.pipes = (!self.container.settings.tty).then(|| theirs.pipes());
        self.container.has_lost_terminal = false;
        self.container.groups = Some(resources.cgroup.as_ref().map_or(Groups::NONE, Cgroup::groups).clone());
        let dirs = Dirs::make(&self.dir())?;
        self.write_etc(&dirs)?;
        let mut spec = self.spec(&dirs);
        self.confine(&mut spec, state)?;
        let devices = resources.cgroup.as_ref().and_then(Cgroup::dir);
        let device_nodes = self.device_nodes(devices.is_some());
        let prepared = self.prepare(&mut spec, device_nodes, images)?;
        let mut handed = Handed::default();
        let network = resources.endpoints.namespace().map(|namespace| handed.lend(namespace));
        let born_in = devices.map(|dir| handed.lend(dir));
        let (sources, nodes) = (prepared.lend_sources(&mut handed), prepared.lend_nodes(&mut handed));
        let settings = self.container.settings.clone();
        let request = Request {
            root: Some(root),
            sources: &sources,
            nodes: &nodes,
            network,
            cgroups: Cgroups {
                layout: Some(layout),
                groups: resources.cgroup.as_ref().map(Cgroup::groups),
                born_in,
                entry: self.entry(),
            },
            devices: device_nodes,
            parent: ParentWork::START,
            terminal: Terminal { size, ..Terminal::default() },
            identity: Identity {
                user: Some(&settings.user),
                filter: settings.filter(),
                groups: settings.privileges.supplementary(),
                more_groups: settings.privileges.more_groups(),
                modules: Modules { apparmor: true, selinux: false },
                ..Identity::default()
            },
            ..Request::default()
        };
        let plan = plan(&spec, &request)?;
        let mut starting = Starting { owned: self, time: now(), console: None };
        let process = with_streams(theirs, || launch(plan, handed, &mut starting))?;
        let Starting { time, console, .. } = starting;
        resources.endpoints.note_user(process.pid);
        Ok(Started { process, console, time, resources })
    }

    fn resources(
        &self,
        state: &Path,
        layout: &Layout,
        proxy: Option<Proxy>,
    ) -> Result<Resources, EngineError> {
        cgroup::remove_orphans(layout, CGROUP_PREFIX);
        // Without the cgroup other means restrict devices.
        let cgroup = self.make_cgroup(layout, &cgroup::own_name(CGROUP_PREFIX))?;
        Ok(Resources { cgroup, endpoints: Endpoints::make(self, state, proxy)? })
    }
}

/// Writes the record before the program runs: a program with visible effects is always in the list.
struct Starting<'a> {
    owned: &'a mut Owned,
    time: String,
    console: Option<OwnedFd>,
}

impl Steps for Starting<'_> {
    fn reached(&mut self, _: Point, pid: i32) -> Result<Vec<u8>, CallerError> {
        let ticks = Groups::start_time(pid).unwrap_or_default();
        let (started, boot) = (self.time.clone(), boot_id());
        let (paused, is_out_of_memory) = (false, false);
        self.owned.set_state(State::Running { pid, started, ticks, boot, paused, is_out_of_memory })?;
        Ok(Vec::new())
    }

    fn console(&mut self, master: OwnedFd) -> Result<(), CallerError> {
        self.console = Some(master);
        Ok(())
    }
}

/// Calls `work` while the standard streams of this process are those of a container, for processes that inherit them.
fn with_streams<T>(theirs: Theirs, work: impl FnOnce() -> Result<T, SpawnError>) -> Result<T, SpawnError> {
    let failed = |errno| SpawnError::Helper("prepare streams for", errno);
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    rustix::stdio::dup2_stdin(&theirs.stdin).map_err(failed)?;
    rustix::stdio::dup2_stdout(&theirs.stdout).map_err(failed)?;
    rustix::stdio::dup2_stderr(&theirs.stderr).map_err(failed)?;
    let result = work();
    // Open copies of the pipes here would keep the monitor from seeing their ends.
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(failed)?;
    rustix::stdio::dup2_stderr(&null).map_err(failed)?;
    result
}

impl Resources {
    /// Resources of a container that runs and whose monitor was killed. `dirs` are the root of the store, and a directory that
    /// is emptied at boot.
    pub(crate) fn of_orphan(
        container: &Container,
        pid: i32,
        dirs: (&Path, &Path),
        proxy: Option<&Proxy>,
    ) -> Resources {
        let groups = container.groups.clone().filter(|groups| !groups.is_none());
        let endpoints = Endpoints::of_orphan(container, pid, dirs, proxy);
        Resources { cgroup: groups.map(Cgroup::adopt), endpoints }
    }

    /// True when the kernel has ended a process of the container for lack of memory.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| stats::out_of_memory_kills(cgroup.groups()) > 0)
    }

    /// Watch on such kills; `None` where the kernel does not count them.
    pub(crate) fn watch_memory(&self) -> Option<OutOfMemory> {
        OutOfMemory::watch(self.cgroup.as_ref()?.groups())
    }

    /// Kills all processes in the cgroups: those of a container without a pid namespace outlive the first process.
    pub(crate) fn kill_rest(&self) {
        const SIGKILL: i32 = 9;
        if let Some(cgroup) = &self.cgroup {
            // An empty cgroup needs no signal.
            let _ = cgroup.groups().signal(SIGKILL);
        }
    }
}

/// Exit code for a failed start: 127 for a program that does not exist, 126 for one that cannot be executed, 125 for
/// everything else.
pub fn start_code(error: &EngineError) -> i32 {
    const ENOENT: i32 = 2;
    let EngineError::Start(SpawnError::Setup(SetupError { stage, call, errno, .. })) = error else {
        return 125;
    };
    match (call.as_str(), *errno) {
        // As in the reference, a working directory that does not exist is like a program that does not.
        ("chdir", ENOENT) => 127,
        _ if *stage != Stage::Exec => 125,
        ("exec", ENOENT) => 127,
        ("exec", _) => 126,
        _ => 125,
    }
}
