//! Environment that all containers of a build share: networks, name resolution, device rules. Created at first use.

use crate::graph::RunLimits;
use kiln_image::store::{ScratchDir, Store, StoreError};
use kiln_image::sys::{CallError, Named};
use kiln_network::etc::Resolver;
use kiln_network::{Bridge, Connection, NetworkError, resolv};
use kiln_runtime::apparmor::{self, AppArmorError};
use kiln_runtime::cgroup::{self, Cgroup, CgroupError};
use kiln_runtime::container::etc::STUB_DIRS;
use kiln_runtime::host::Host;
use kiln_runtime::{Spawner, spec};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources, Mount, Spec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Placeholder for the address under which steps reach the host.
const HOST_GATEWAY: &str = "host-gateway";
/// Name of the resolv.conf for steps in the host's network namespace.
const HOST_RESOLV: &str = "resolv-host.conf";
/// Prefix of the names of the builder's cgroups.
const CGROUP_PREFIX: &str = "kiln-build";

/// Failure to set up the shared environment of containers.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The network cannot be set up.
    #[error("cannot connect the step to a network: {0}")]
    Network(#[from] NetworkError),
    /// The cgroup with limits cannot be created.
    #[error("cannot limit the step: {0}")]
    Cgroup(#[from] CgroupError),
    /// The AppArmor profile cannot be loaded.
    #[error(transparent)]
    AppArmor(#[from] AppArmorError),
    /// The store failed to create a directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Environment that containers share.
pub(crate) struct Sandbox<'a> {
    store: &'a Store,
    spawner: &'a Spawner,
    /// Directory that is emptied at boot.
    state: &'a Path,
    names: Names<'a>,
    files: Mutex<Option<Arc<Files>>>,
    bridge: Mutex<Option<Arc<Bridge>>>,
    /// Connections that no container uses now. Containers cannot change them: that needs a capability that steps do not
    /// have.
    idle: Mutex<Vec<Connection>>,
    shared: OnceLock<Option<Cgroup>>,
    /// Name of the AppArmor profile of steps, once it has been loaded; the inner `None` when the host has no AppArmor.
    profile: Mutex<Option<Option<String>>>,
    /// Directory of secrets and sockets; `None` until the first one.
    secrets: Mutex<Option<ScratchDir>>,
}

/// Host names in the containers of a build.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// Host name of the container.
    pub(crate) hostname: &'a str,
    /// Additional names and addresses for the hosts file.
    pub(crate) hosts: &'a [(String, String)],
}

/// Files that are mounted into /etc of containers.
pub(crate) struct Files {
    dir: ScratchDir,
    /// True until the user was informed that containers use public name servers.
    is_public_news: AtomicBool,
}

/// Network namespace of one container.
pub(crate) enum StepNetwork<'a> {
    /// Connected to the bridge. When dropped it is reused by the next step, unless its container was privileged to
    /// change it.
    Bridge { connection: Option<Connection>, sandbox: &'a Sandbox<'a>, is_safe: bool },
    /// The loopback device only.
    None(OwnedFd),
}

impl StepNetwork<'_> {
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        match self {
            StepNetwork::Bridge { connection, .. } => {
                connection.as_ref().expect("a connection is held until it is dropped").namespace()
            }
            StepNetwork::None(namespace) => namespace.as_fd(),
        }
    }
}

impl Drop for StepNetwork<'_> {
    fn drop(&mut self) {
        if let StepNetwork::Bridge { connection, sandbox, is_safe: true } = self {
            sandbox.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(connection.take());
        }
    }
}

/// Directory of secrets and sockets in use, below the state directory.
const SECRETS: &str = "secrets";

impl<'a> Sandbox<'a> {
    pub(crate) fn new(
        store: &'a Store,
        spawner: &'a Spawner,
        state: &'a Path,
        names: Names<'a>,
    ) -> Sandbox<'a> {
        // Directories of running builds stay; orphans that cannot be removed are emptied at boot.
        let _ = ScratchDir::remove_orphans(&state.join(SECRETS));
        Sandbox {
            store,
            spawner,
            state,
            names,
            files: Mutex::default(),
            bridge: Mutex::default(),
            idle: Mutex::default(),
            shared: OnceLock::new(),
            profile: Mutex::default(),
            secrets: Mutex::default(),
        }
    }

    pub(crate) fn spawner(&self) -> &'a Spawner {
        self.spawner
    }

    pub(crate) fn files(&self) -> Result<Arc<Files>, SandboxError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &*files {
            return Ok(files.clone());
        }
        let mut hosts = self.names.hosts.to_vec();
        for (_, address) in hosts.iter_mut().filter(|(_, address)| address == HOST_GATEWAY) {
            *address = self.bridge()?.gateway().to_string();
        }
        let names = Names { hosts: &hosts, ..self.names };
        let made = Arc::new(Files::write(self.store.scratch_dir()?, names)?);
        *files = Some(made.clone());
        Ok(made)
    }

    /// Sets the AppArmor profile of steps in a specification, where the host has AppArmor.
    pub(crate) fn confine(&self, spec: &mut Spec) -> Result<(), SandboxError> {
        let mut profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = match &*profile {
            Some(profile) => profile.clone(),
            None => profile.insert(apparmor::profile(None, self.state)?).clone(),
        };
        spec.process_mut().get_or_insert_default().set_apparmor_profile(profile);
        Ok(())
    }

    /// Connection to the bridge: an idle or a new one. `is_safe` for a step without privileges to change it.
    pub(crate) fn network(&'a self, is_safe: bool) -> Result<StepNetwork<'a>, SandboxError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.bridge()?.connect(self.spawner)?,
        };
        Ok(StepNetwork::Bridge { connection: Some(connection), sandbox: self, is_safe })
    }

    pub(crate) fn no_network(&self) -> Result<StepNetwork<'a>, SandboxError> {
        Ok(StepNetwork::None(kiln_network::isolated(self.spawner)?))
    }

    /// Writes a secret into memory that is never written to disk; the caller removes it.
    #[expect(clippy::disallowed_methods, reason = "a new file in a directory that only root enters")]
    pub(crate) fn secret(
        &self,
        content: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<PathBuf, SandboxError> {
        let path = self.secret_path()?;
        std::fs::write(&path, content).call("write", &path)?;
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).call("chown", &path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).call("chmod", &path)?;
        Ok(path)
    }

    /// New path for a secret or a socket, in a directory that only root can enter, and that the next build removes if
    /// this process is killed.
    pub(crate) fn secret_path(&self) -> Result<PathBuf, SandboxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = match &*secrets {
            Some(dir) => dir,
            None => secrets.insert(ScratchDir::create_in(&self.state.join(SECRETS))?),
        };
        Ok(dir.path().join(NEXT.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    fn bridge(&self) -> Result<Arc<Bridge>, SandboxError> {
        let mut bridge = self.bridge.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bridge) = &*bridge {
            return Ok(bridge.clone());
        }
        let opened = Arc::new(Bridge::open(self.state)?);
        *bridge = Some(opened.clone());
        Ok(opened)
    }

    /// Creates a cgroup for one step; `None` when the command line sets no limits.
    pub(crate) fn limited_group(&self, limits: &RunLimits) -> Result<Option<Cgroup>, SandboxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Some(resources) = resources(limits) else { return Ok(None) };
        let name = format!("{}-{}", cgroup::own_name(CGROUP_PREFIX), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = match &limits.cgroup_parent {
            Some(parent) => format!("{}/{name}", parent.trim_matches('/')),
            None => name,
        };
        Ok(Some(Cgroup::create(Host::get().layout(), &name, Some(&resources), false)?))
    }

    /// The cgroup of all steps without limits; `None` when it cannot be created. Its rules deny access to the host's
    /// devices, and it is the root of the cgroup namespace of steps.
    pub(crate) fn group(&self) -> Option<&Cgroup> {
        let group = self.shared.get_or_init(|| {
            cgroup::remove_orphans(Host::get().layout(), CGROUP_PREFIX);
            Cgroup::create(Host::get().layout(), &cgroup::own_name(CGROUP_PREFIX), None, true).ok()
        });
        group.as_ref()
    }
}

/// Limits that a cgroup enforces; `None` when nothing is limited.
fn resources(limits: &RunLimits) -> Option<LinuxResources> {
    let mut memory = LinuxMemory::default();
    memory.set_limit(limits.memory).set_swap(limits.memory_swap);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(limits.cpu_shares)
        .set_quota(limits.cpu_quota)
        .set_period(limits.cpu_period)
        .set_cpus(limits.cpus.clone())
        .set_mems(limits.memory_nodes.clone());
    let is_limited = memory != LinuxMemory::default() || cpu != LinuxCpu::default();
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory)).set_cpu(Some(cpu));
    (is_limited || limits.cgroup_parent.is_some()).then_some(resources)
}

impl Files {
    fn write(dir: ScratchDir, names: Names<'_>) -> Result<Files, SandboxError> {
        let path = dir.path();
        let write = |name: &str, text: &str| {
            let path = path.join(name);
            std::fs::write(&path, text).call("write", &path)
        };
        let lines: Vec<(String, String)> =
            names.hosts.iter().map(|(name, address)| (address.clone(), name.clone())).collect();
        write("hosts", &resolv::build_hosts(names.hostname, &lines))?;
        let resolv = resolv::for_container();
        write("resolv.conf", &resolv.text)?;
        write(HOST_RESOLV, &Resolver::OfHost.text())?;
        // Mount points for trees without them. They are stacked below the image and leave no trace in it.
        for name in STUB_DIRS {
            let path = path.join("stubs").join(name);
            std::fs::create_dir_all(&path).call("mkdir", &path)?;
        }
        write("stubs/etc/hosts", "")?;
        write("stubs/etc/resolv.conf", "")?;
        Ok(Files { dir, is_public_news: AtomicBool::new(resolv.is_public) })
    }

    /// Warning about public name servers; `None` after the first call and when the host's servers are used.
    pub(crate) fn notice(&self) -> Option<&'static str> {
        self.is_public_news.swap(false, Ordering::Relaxed).then_some(resolv::PUBLIC_NOTICE)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(crate) fn stubs(&self) -> PathBuf {
        self.dir.path().join("stubs")
    }

    pub(crate) fn mounts(&self, in_host_network: bool) -> Vec<Mount> {
        let resolv = if in_host_network { HOST_RESOLV } else { "resolv.conf" };
        [("hosts", "hosts"), (resolv, "resolv.conf")]
            .map(|(file, name)| {
                spec::bind(
                    self.dir.path().join(file),
                    &format!("/etc/{name}"),
                    &["ro", "nosuid", "nodev", "noexec"],
                )
            })
            .to_vec()
    }
}
