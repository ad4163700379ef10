//! What all containers of a build share: networks, name resolution, device rules. Made when first needed.

use kiln_image::store::{ScratchFolder, Store, StoreError};
use kiln_image::sys::{CallError, Named};
use kiln_runtime::cgroup::{self, Cgroup, Layout};
use kiln_runtime::network::{self, Bridge, Connection, NetworkError, resolv};
use kiln_runtime::{Spawner, spec};
use oci_spec::runtime::Mount;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What programs of a build see as their machine's name.
pub(crate) const HOSTNAME: &str = "buildkitsandbox";
/// Prefix of the names of our control groups.
const CGROUP_PREFIX: &str = "kiln-build";

/// Why containers cannot be given what they need.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No network.
    #[error("cannot connect the step to a network: {0}")]
    Network(#[from] NetworkError),
    /// No place for files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What containers share.
pub(crate) struct Sandbox<'a> {
    store: &'a Store,
    spawner: &'a Spawner,
    /// A folder that is emptied at boot.
    state: &'a Path,
    /// Names and addresses for the hosts file.
    hosts: &'a [(String, String)],
    layout: Layout,
    files: Mutex<Option<Arc<Files>>>,
    bridge: Mutex<Option<Arc<Bridge>>>,
    /// Connections that no container uses now. Containers cannot change them: that takes a capability that
    /// steps do not have.
    idle: Mutex<Vec<Connection>>,
    devices: OnceLock<Option<Cgroup>>,
}

/// Files that containers see in their /etc.
pub(crate) struct Files {
    folder: ScratchFolder,
}

/// A network namespace for one container.
pub(crate) enum StepNetwork<'a> {
    /// On the bridge; given back when dropped.
    Bridge { connection: Option<Connection>, sandbox: &'a Sandbox<'a> },
    /// Loopback alone.
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
        if let StepNetwork::Bridge { connection, sandbox } = self {
            sandbox.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(connection.take());
        }
    }
}

impl<'a> Sandbox<'a> {
    pub(crate) fn new(
        store: &'a Store,
        spawner: &'a Spawner,
        state: &'a Path,
        hosts: &'a [(String, String)],
    ) -> Sandbox<'a> {
        Sandbox {
            store,
            spawner,
            state,
            hosts,
            layout: Layout::detect(),
            files: Mutex::default(),
            bridge: Mutex::default(),
            idle: Mutex::default(),
            devices: OnceLock::new(),
        }
    }

    pub(crate) fn spawner(&self) -> &'a Spawner {
        self.spawner
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn files(&self) -> Result<Arc<Files>, SandboxError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &*files {
            return Ok(files.clone());
        }
        let made = Arc::new(Files::write(self.store.scratch_folder()?, self.hosts)?);
        *files = Some(made.clone());
        Ok(made)
    }

    /// A connection to the bridge: one that is idle, or a new one.
    pub(crate) fn network(&'a self) -> Result<StepNetwork<'a>, SandboxError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.bridge()?.connect(self.spawner)?,
        };
        Ok(StepNetwork::Bridge { connection: Some(connection), sandbox: self })
    }

    pub(crate) fn no_network(&self) -> Result<StepNetwork<'a>, SandboxError> {
        Ok(StepNetwork::None(network::isolated(self.spawner)?))
    }

    /// Writes a secret where nothing reaches a disk; whoever asked removes it.
    pub(crate) fn secret(
        &self,
        content: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<PathBuf, SandboxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = self.state.join("secrets");
        let private = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).call("chmod", path)
        };
        std::fs::create_dir_all(&folder).call("mkdir", &folder)?;
        private(&folder, 0o700)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", std::process::id()));
        std::fs::write(&path, content).call("write", &path)?;
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).call("chown", &path)?;
        private(&path, mode)?;
        Ok(path)
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

    /// The control group whose rules keep containers from the machine's devices, where there can be one.
    pub(crate) fn device_filter(&self) -> Option<BorrowedFd<'_>> {
        let group = self.devices.get_or_init(|| {
            cgroup::remove_orphans(&self.layout, CGROUP_PREFIX);
            Cgroup::create(&self.layout, &cgroup::own_name(CGROUP_PREFIX), None, true).ok()
        });
        group.as_ref()?.folder()
    }
}

impl Files {
    fn write(folder: ScratchFolder, hosts: &[(String, String)]) -> Result<Files, SandboxError> {
        let path = folder.path();
        let write = |name: &str, text: &str| {
            let path = path.join(name);
            std::fs::write(&path, text).call("write", &path)
        };
        let lines: Vec<(String, String)> =
            hosts.iter().map(|(name, address)| (address.clone(), name.clone())).collect();
        write("hosts", &resolv::build_hosts(HOSTNAME, &lines))?;
        write("resolv.conf", &resolv::for_container())?;
        // Mount points for trees that have none. They lie below the image and leave no trace in it.
        for name in ["stubs/proc", "stubs/sys", "stubs/dev", "stubs/etc"] {
            let path = path.join(name);
            std::fs::create_dir_all(&path).call("mkdir", &path)?;
        }
        write("stubs/etc/hosts", "")?;
        write("stubs/etc/resolv.conf", "")?;
        Ok(Files { folder })
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn stubs(&self) -> PathBuf {
        self.folder.path().join("stubs")
    }

    pub(crate) fn mounts(&self) -> Vec<Mount> {
        ["hosts", "resolv.conf"]
            .map(|name| {
                spec::bind(
                    self.folder.path().join(name),
                    &format!("/etc/{name}"),
                    &["ro", "nosuid", "nodev", "noexec"],
                )
            })
            .to_vec()
    }
}
