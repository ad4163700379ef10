//! Starts a container and waits for its end.

use crate::container::Owned;
use crate::error::EngineError;
use crate::record::{Endpoint, State, now};
use crate::settings::NetworkMode;
use crate::spec::Dirs;
use kiln_network::{Bridge, Connection};
use kiln_runtime::cgroup::{self, Cgroup, Groups, Layout};
use kiln_runtime::container::{
    CallerError, Cgroups, DeviceNodes, Entry, Filter, Handed, Identity, Modules, ParentWork, Request, Steps,
    Terminal,
};
use kiln_runtime::host::Host;
use kiln_runtime::op::{ConsoleSize, Point, SetupError, Stage};
use kiln_runtime::plan::plan;
use kiln_runtime::{Process, SpawnError, SpawnRequest, Spawner};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Prefix of the names of cgroups.
const CGROUP_PREFIX: &str = "kiln-run";
/// Standard streams of a container; a terminal replaces all three.
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

/// Container whose program runs.
pub struct Running<'a> {
    owned: Owned<'a>,
    /// First process of the container.
    pub process: Process,
    started: String,
    /// Resources that are released when the container has ended.
    _resources: Resources,
}

/// Resources of a running container.
#[derive(Default)]
struct Resources {
    cgroup: Option<Cgroup>,
    connection: Option<Connection>,
    isolated: Option<OwnedFd>,
}

impl<'a> Owned<'a> {
    /// Starts the program. `state` is a directory that is emptied at boot.
    ///
    /// # Errors
    /// On failure the container stays, and its record holds the error.
    pub fn start(
        mut self,
        spawner: &Spawner,
        state: &Path,
        stdio: &Stdio<'_>,
    ) -> Result<Running<'a>, Box<(Owned<'a>, EngineError)>> {
        match self.try_start(spawner, state, stdio) {
            Ok((process, resources, started)) => {
                Ok(Running { owned: self, process, started, _resources: resources })
            }
            Err(error) => {
                let code = start_code(&error);
                let failed = State::Created { error: Some(error.to_string()), code };
                // The error of the start matters more than an error of this write.
                let _ = self.set_state(failed);
                Err(Box::new((self, error)))
            }
        }
    }

    fn try_start(
        &mut self,
        spawner: &Spawner,
        state: &Path,
        stdio: &Stdio<'_>,
    ) -> Result<(Process, Resources, String), EngineError> {
        let layout = Host::get().layout();
        let mut resources = self.resources(spawner, state, layout)?;
        self.container.endpoint = resources.connection.as_ref().map(endpoint);
        self.container.groups = Some(resources.cgroup.as_ref().map_or(Groups::NONE, Cgroup::groups).clone());
        let dirs = Dirs::make(&self.dir())?;
        self.write_etc(&dirs)?;
        let store = self.containers.store;
        let root =
            store.writable_mount(&self.stack, &dirs.upper, &dirs.work, std::slice::from_ref(&dirs.stubs));
        let mut spec = self.spec(&dirs);
        self.confine(&mut spec, state)?;
        let devices = resources.cgroup.as_ref().and_then(Cgroup::dir);
        let mut handed = Handed::default();
        let network = resources.network().map(|namespace| handed.lend(namespace));
        let born_in = devices.map(|dir| handed.lend(dir));
        let settings = &self.container.settings;
        let request = Request {
            root: Some(&root),
            network,
            cgroups: Cgroups {
                layout: Some(layout),
                groups: resources.cgroup.as_ref().map(Cgroup::groups),
                born_in,
                entry: Entry::BySelfIfPossible,
            },
            devices: if devices.is_some() { DeviceNodes::Made } else { DeviceNodes::Exclusive },
            parent: ParentWork::START,
            terminal: Terminal { size: stdio.console, ..Terminal::default() },
            identity: Identity {
                user: Some(&settings.user),
                filter: if settings.security.no_seccomp { Filter::None } else { Filter::Default },
                modules: Modules { apparmor: true, selinux: false },
                ..Identity::default()
            },
            ..Request::default()
        };
        let plan = plan(&spec, &request)?;
        let Stdio { stdin, stdout, stderr, .. } = *stdio;
        let started = now();
        let request = SpawnRequest { plan: &plan, handed: &handed, stdin, stdout, stderr };
        let process = spawner.spawn_with(&request, &mut Starting { owned: self, started: &started })?;
        drop(handed);
        // The container's process has entered the namespace by now.
        resources.isolated = None;
        Ok((process, resources, started))
    }

    fn resources(&self, spawner: &Spawner, state: &Path, layout: &Layout) -> Result<Resources, EngineError> {
        cgroup::remove_orphans(layout, CGROUP_PREFIX);
        let mut resources = Resources {
            // Without the cgroup other means restrict devices.
            cgroup: Cgroup::create(layout, &cgroup::own_name(CGROUP_PREFIX), None, true).ok(),
            ..Resources::default()
        };
        match self.container.settings.network {
            NetworkMode::Bridge => {
                resources.connection = Some(Bridge::open(state)?.connect(spawner)?);
            }
            NetworkMode::None => resources.isolated = Some(kiln_network::isolated(spawner)?),
            NetworkMode::Host => {}
        }
        Ok(resources)
    }
}

/// Writes the record before the program runs: a program with visible effects is always in the list.
struct Starting<'a, 'b> {
    owned: &'a mut Owned<'b>,
    started: &'a str,
}

impl Steps for Starting<'_, '_> {
    fn reached(&mut self, _: Point, pid: i32) -> Result<Vec<u8>, CallerError> {
        self.owned.set_state(State::Running { pid, started: self.started.to_owned(), paused: false })?;
        Ok(Vec::new())
    }
}

impl Resources {
    fn network(&self) -> Option<BorrowedFd<'_>> {
        let bridge = self.connection.as_ref().map(Connection::namespace);
        bridge.or_else(|| self.isolated.as_ref().map(AsFd::as_fd))
    }
}

fn endpoint(connection: &Connection) -> Endpoint {
    let mac: Vec<String> = connection.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    Endpoint {
        address: connection.address,
        prefix: connection.subnet.prefix(),
        gateway: connection.gateway,
        mac: mac.join(":"),
    }
}

impl Running<'_> {
    /// Waits for the end of the program and returns its exit code. A container with `auto_remove` is removed.
    pub fn wait(mut self) -> Result<i32, EngineError> {
        let code = self.process.wait()?;
        let Running { mut owned, started, .. } = self;
        if owned.container.auto_remove {
            owned.remove()?;
        } else {
            owned.container.endpoint = None;
            owned.container.groups = None;
            owned.set_state(State::Exited { code, started, finished: now() })?;
        }
        Ok(code)
    }
}

/// Exit code for a failed start: 127 for a program that does not exist, 126 for one that cannot be executed, 125 for
/// everything else.
pub fn start_code(error: &EngineError) -> i32 {
    const ENOENT: i32 = 2;
    let EngineError::Start(SpawnError::Setup(SetupError { stage: Stage::Exec, call, errno, .. })) = error
    else {
        return 125;
    };
    match (call.as_str(), *errno) {
        ("exec", ENOENT) => 127,
        ("exec", _) => 126,
        _ => 125,
    }
}
