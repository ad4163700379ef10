//! What a container needs beyond its image at each start: mounts, devices, namespaces of others.

use crate::container::Owned;
use crate::error::EngineError;
use crate::exec::Live;
use crate::mount::Opened;
use crate::record::{Container, State};
use crate::settings::limits::can_raise_limits;
use crate::settings::{DeviceError, NamespaceError, NamespaceMode, NetworkMode, Settings};
use kiln_image::sys::Named;
use kiln_runtime::container::{DeviceNodes, Filter, Handed};
use kiln_runtime::op::FdSlot;
use kiln_runtime::{spec, view};
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, Mount, Spec};
use rustix::fd::{AsFd, OwnedFd};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const SHM: &str = "/dev/shm";

/// Descriptors that a start needs, open until the process exists.
pub(crate) struct Prepared {
    sources: Vec<(usize, OwnedFd)>,
    nodes: Vec<(PathBuf, OwnedFd)>,
    /// Containers whose namespaces are entered: they cannot become others meanwhile.
    _others: Vec<Live>,
    /// Lock of volumes in memory.
    _memory: Option<OwnedFd>,
}

impl Prepared {
    /// Sources of mounts by their index in the specification.
    pub(crate) fn lend_sources<'a>(&'a self, handed: &mut Handed<'a>) -> Vec<(usize, FdSlot)> {
        self.sources.iter().map(|(index, fd)| (*index, handed.lend(fd.as_fd()))).collect()
    }

    /// Device nodes by their paths in the container.
    pub(crate) fn lend_nodes<'a>(&'a self, handed: &mut Handed<'a>) -> Vec<(PathBuf, FdSlot)> {
        self.nodes.iter().map(|(path, fd)| (path.clone(), handed.lend(fd.as_fd()))).collect()
    }
}

impl Owned {
    /// Completes a specification by the settings of the container; `images` are the mounts of images, which need the store.
    ///
    /// # Errors
    /// Fails for devices and host directories that do not exist, and for other containers that do not run.
    pub(crate) fn prepare(
        &self,
        spec: &mut Spec,
        devices: DeviceNodes,
        images: &[Mount],
    ) -> Result<Prepared, EngineError> {
        let settings = &self.container.settings;
        settings.privileges.apply(&settings.security, spec);
        settings.open_ports(spec);
        settings.apply_limits(spec);
        if let Some(profile) = settings.security.profile(settings.privileges.capabilities())? {
            spec.linux_mut().get_or_insert_default().set_seccomp(Some(profile));
        }
        if !settings.annotations.is_empty() {
            let annotations: HashMap<String, String> = settings.annotations.clone().into_iter().collect();
            spec.set_annotations(Some(annotations));
        }
        let nodes = self.add_devices(spec, devices)?;
        let mut others = Vec::new();
        let shm = self.share_namespaces(spec, &mut others)?;
        let Opened { mut sources, memory } = self.add_mounts(spec, images)?;
        sources.extend(self.add_secrets(spec)?);
        if let Some(shm) = shm {
            let mounts = spec.mounts_mut().get_or_insert_default();
            sources.push((mounts.len(), shm));
            mounts.push(spec::mount("bind", SHM, SHM, &["bind", "rprivate", "nosuid", "nodev", "noexec"]));
        }
        Ok(Prepared { sources, nodes, _others: others, _memory: memory })
    }

    /// Adds nodes of the host's devices. Returns nodes that the container cannot create itself.
    fn add_devices(
        &self,
        spec: &mut Spec,
        devices: DeviceNodes,
    ) -> Result<Vec<(PathBuf, OwnedFd)>, EngineError> {
        let mut nodes = Vec::new();
        let cdi = self.container.settings.cdi_devices()?;
        cdi.add_to(spec);
        spec.mounts_mut().get_or_insert_default().extend(cdi.mounts.iter().cloned());
        if devices != DeviceNodes::Made {
            nodes.extend(cdi.host_nodes().map_err(DeviceError::from)?);
        }
        let found = self.container.settings.found_devices()?;
        if found.is_empty() {
            return Ok(nodes);
        }
        let listed = spec.linux_mut().get_or_insert_default().devices_mut().get_or_insert_default();
        for device in found {
            if devices != DeviceNodes::Made {
                let node = view::host_node(&device.host).call("mount", &device.host)?;
                nodes.push((device.node.path().clone(), node));
            }
            listed.retain(|other| other.path() != device.node.path());
            listed.push(device.node);
        }
        Ok(nodes)
    }

    /// Replaces the container's own namespaces by those of the host and of other containers. Returns the /dev/shm of a
    /// container whose IPC namespace it shares.
    fn share_namespaces(
        &self,
        spec: &mut Spec,
        others: &mut Vec<Live>,
    ) -> Result<Option<OwnedFd>, EngineError> {
        let settings = &self.container.settings;
        let network = match &settings.network {
            NetworkMode::Bridge | NetworkMode::User(_) | NetworkMode::None => NamespaceMode::Private,
            NetworkMode::Host => NamespaceMode::Host,
            NetworkMode::Container(id) => NamespaceMode::Container(id.clone()),
        };
        let namespaces = &settings.namespaces;
        for (kind, name, mode) in [
            (LinuxNamespaceType::Pid, "pid", &namespaces.pid),
            (LinuxNamespaceType::Ipc, "ipc", &namespaces.ipc),
            (LinuxNamespaceType::Uts, "uts", &namespaces.uts),
            (LinuxNamespaceType::Cgroup, "cgroup", &namespaces.cgroup),
            (LinuxNamespaceType::Network, "net", &network),
        ] {
            match mode {
                NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None => {}
                NamespaceMode::Host => set_namespace(spec, kind, None),
                NamespaceMode::Container(id) => {
                    let live = self.other(id, kind)?;
                    set_namespace(spec, kind, Some(PathBuf::from(format!("/proc/{}/ns/{name}", live.pid))));
                    others.push(live);
                }
            }
        }
        if namespaces.uts != NamespaceMode::Private {
            spec.set_hostname(None).set_domainname(None);
        }
        self.share_memory(spec)
    }

    fn share_memory(&self, spec: &mut Spec) -> Result<Option<OwnedFd>, EngineError> {
        let without = |spec: &mut Spec, paths: &[&str]| {
            let keeps = |mount: &Mount| !paths.iter().any(|path| mount.destination() == Path::new(path));
            spec.mounts_mut().get_or_insert_default().retain(keeps);
        };
        match &self.container.settings.namespaces.ipc {
            NamespaceMode::Private | NamespaceMode::Shareable => Ok(None),
            NamespaceMode::None => {
                without(spec, &[SHM]);
                Ok(None)
            }
            NamespaceMode::Host => {
                const QUEUES: &str = "/dev/mqueue";
                for path in [SHM, QUEUES].into_iter().filter(|path| Path::new(path).is_dir()) {
                    without(spec, &[path]);
                    let mounts = spec.mounts_mut().get_or_insert_default();
                    mounts.push(spec::bind(PathBuf::from(path), path, &["nosuid", "nodev", "noexec"]));
                }
                Ok(None)
            }
            NamespaceMode::Container(id) => {
                let other = self.record(id)?;
                if other.settings.namespaces.ipc == NamespaceMode::Private {
                    return Err(NamespaceError::NotShareable(id.clone()).into());
                }
                let live = self.other(id, LinuxNamespaceType::Ipc)?;
                without(spec, &[SHM]);
                let shm = view::copy_of_process(live.pidfd().as_fd(), Path::new(SHM)).call("mount", SHM)?;
                Ok(Some(view::cut_off(shm).call("mount", SHM)?))
            }
        }
    }

    /// Another container, which must run.
    fn other(&self, id: &str, kind: LinuxNamespaceType) -> Result<Live, EngineError> {
        let kind = match kind {
            LinuxNamespaceType::Pid => "PID",
            LinuxNamespaceType::Ipc => "IPC",
            LinuxNamespaceType::Uts => "UTS",
            _ => "network",
        };
        let not_running = || NamespaceError::NotRunning { kind, id: id.to_owned() };
        let other = self.record(id)?;
        if !matches!(other.state, State::Running { .. }) {
            return Err(not_running().into());
        }
        self.records.live(&other).map_err(|error| match error {
            EngineError::NotRunning(_) => not_running().into(),
            error => error,
        })
    }
}

impl Owned {
    /// Record of another container.
    fn record(&self, id: &str) -> Result<Container, EngineError> {
        let found = self.records.read(id)?;
        found.ok_or_else(|| NamespaceError::NoSuchContainer(id.to_owned()).into())
    }
}

impl Settings {
    fn apply_limits(&self, spec: &mut Spec) {
        if self.limits.shm_size > 0 {
            spec::set_shm_size(spec, self.limits.shm_size.cast_unsigned());
        }
        let score = (self.limits.oom_score_adj != 0).then_some(self.limits.oom_score_adj);
        let process = spec.process_mut().get_or_insert_default();
        process.set_oom_score_adj(score);
        if !self.limits.ulimits.is_empty() {
            process.set_rlimits(self.limits.rlimits(can_raise_limits()));
        }
    }

    /// Filter for processes of the container, when no profile was given.
    pub(crate) fn filter(&self) -> Filter {
        let is_open =
            self.security.no_seccomp || self.privileges.privileged && self.security.seccomp.is_none();
        if is_open { Filter::None } else { Filter::Default }
    }

    /// AppArmor profile that was asked for; `None` for the default one.
    pub(crate) fn apparmor(&self) -> Option<&str> {
        let open = self.privileges.privileged.then_some("unconfined");
        self.security.apparmor.as_deref().or(open)
    }
}

/// Takes a namespace out of a specification, or replaces it by the one at a path.
fn set_namespace(spec: &mut Spec, kind: LinuxNamespaceType, path: Option<PathBuf>) {
    let linux = spec.linux_mut().get_or_insert_default();
    let namespaces = linux.namespaces_mut().get_or_insert_default();
    namespaces.retain(|namespace| namespace.typ() != kind);
    let joined = path.map(|path| LinuxNamespaceBuilder::default().typ(kind).path(path).build());
    namespaces.extend(joined.into_iter().flatten());
}
