//! Creation of a container from a bundle, for `create` and `run`.

use crate::arguments::Arguments;
use crate::bundle::Bundle;
use crate::commands::Agent;
use crate::error::OciError;
use crate::readiness::Readiness;
use crate::state::{Dir, Record, Status, write_beside};
use crate::terminal::{self, Handover};
use crate::{Globals, foreground, hooks, own_file, user};
use kiln_network::move_device;
use kiln_runtime::capability;
use kiln_runtime::cgroup::{Groups, Layout};
use kiln_runtime::container::{
    self, Affinity, CallerError, CgroupRequest, Cgroups, Entry, ExecMethod, Gate, Handed, Holdings, Home,
    Identity, Keyring, LineEnds, Modules, Notice, ParentWork, Pivot, Preparation, ProgramFile, RestrictAt,
    Steps, SupplementaryGroups, Terminal, check_device_rules,
};
use kiln_runtime::host::{Host, SecurityModule};
use kiln_runtime::launch::{self, Launched};
use kiln_runtime::namespaces::{self, Namespace};
use kiln_runtime::op::{FdSlot, Point};
use kiln_runtime::plan::{self, plan};
use kiln_runtime::resctrl::{self, Class};
use kiln_runtime::seccomp;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Process, Spec,
};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Continuation after the container's creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The container waits for `start`.
    Wait,
    /// The container runs, and this process exits.
    Detach,
    /// The container runs, and this process waits for its end.
    Stay,
}

/// Container that was created.
pub(crate) struct Made {
    pub(crate) dir: Dir,
    pub(crate) record: Record,
    pub(crate) spec: Spec,
    pub(crate) launched: Launched,
    /// Master of its terminal; `None` without a terminal, and when the caller's socket received it.
    pub(crate) console: Option<OwnedFd>,
    /// Service manager that waits for readiness, and the socket on which the container reports it; `None` without a
    /// manager.
    pub(crate) ready: Option<(Readiness, OwnedFd)>,
}

/// Slots of descriptors that are passed to the container.
#[derive(Clone, Copy, Default)]
struct Slots<'a> {
    born_in: Option<FdSlot>,
    gate: Option<FdSlot>,
    sources: &'a [(usize, FdSlot)],
    nodes: &'a [(PathBuf, FdSlot)],
}

/// Parameters of `create` and `run`.
struct Request<'a> {
    globals: &'a Globals,
    arguments: &'a Arguments,
    bundle: &'a Bundle,
    then: Then,
    /// True when this process is in a user namespace, and cannot set device rules.
    nested: bool,
    /// True when the configuration has a process.
    has_process: bool,
    /// True when the program is executed by a file descriptor.
    by_handle: bool,
    /// Network devices to move into the container: their names on the host and in the container.
    devices: Vec<(String, String)>,
}

/// Creates the container `id`; on failure all parts of it are removed.
pub(crate) fn create(
    globals: &Globals,
    arguments: &Arguments,
    id: &str,
    then: Then,
) -> Result<Made, OciError> {
    kiln_runtime::host::check()?;
    own_file::keep_early(then);
    let mut bundle = Bundle::read(arguments.get("bundle").unwrap_or("."), arguments.get("config"))?;
    let has_process = bundle.spec.process().is_some();
    if then == Then::Wait && !has_process {
        // `create` needs no process: `start` reports that it is missing. Until then any process will do.
        bundle.spec.set_process(Some(Process::default()));
    }
    map_own_id(&mut bundle.spec);
    let root = bundle.spec.root().as_ref().map(|root| bundle.dir.join(root.path())).unwrap_or_default();
    let by_handle = own_file::keep(&bundle.spec, then, &root);
    warn(globals, &bundle);
    check(&bundle.spec, arguments, then)?;
    let devices = plan::network_devices(&bundle.spec)?;
    let dir = globals.store.create(id)?;
    let ready = listen_for_readiness(&dir, &mut bundle.spec, then).inspect_err(|_| {
        let _ = dir.remove();
    })?;
    let request = Request {
        globals,
        arguments,
        bundle: &bundle,
        then,
        nested: Host::get().is_nested(),
        has_process,
        by_handle,
        devices,
    };
    let made = request.make(&dir);
    match made {
        Ok((record, launched, console)) => {
            if let Some(path) = arguments.get("pid-file") {
                let written = write_beside(Path::new(path), record.pid.to_string().as_bytes());
                if let Err(error) = written {
                    let _ = launch::signal(launched.pidfd.as_fd(), 9);
                    launch::wait(&launched.pidfd);
                    let _ = record.release();
                    let _ = dir.remove();
                    return Err(error);
                }
            }
            Ok(Made { dir, record, spec: bundle.spec, launched, console, ready })
        }
        Err(error) => {
            let _ = dir.remove();
            Err(error)
        }
    }
}

/// Logs what of a configuration is ignored.
fn warn(globals: &Globals, bundle: &Bundle) {
    for warning in &bundle.warnings {
        globals.log.warn(warning);
    }
    for name in beyond_reach(&bundle.spec) {
        globals.log.warn(&format!("can't grant capability CAP_{name}: this process does not have it itself"));
    }
    for name in beyond_ambient(&bundle.spec) {
        globals.log.warn(&format!(
            "can't raise ambient capability {name}: it is not both permitted and inheritable"
        ));
    }
}

/// Refuses configurations that no container can be created from, before anything is created.
fn check(spec: &Spec, arguments: &Arguments, then: Then) -> Result<(), OciError> {
    check_version(spec)?;
    if let Some(process) = spec.process() {
        terminal::check(process, arguments, then == Then::Stay)?;
    }
    check_device_rules(spec)?;
    check_calls(spec)?;
    Ok(plan::check_hooks(spec)?)
}

/// Text of the plan for a bundle, without anything that `create` opens or creates first: cgroups, sources of mounts,
/// device nodes, the gate. Changes nothing.
pub(crate) fn plan_of(globals: &Globals, arguments: &Arguments) -> Result<String, OciError> {
    let mut bundle = Bundle::read(arguments.get("bundle").unwrap_or("."), arguments.get("config"))?;
    map_own_id(&mut bundle.spec);
    let request = Request {
        globals,
        arguments,
        bundle: &bundle,
        then: Then::Stay,
        nested: Host::get().is_nested(),
        has_process: true,
        by_handle: false,
        devices: plan::network_devices(&bundle.spec)?,
    };
    let container = request.container(Host::get().layout(), Groups::NONE, false, Slots::default())?;
    Ok(plan(&bundle.spec, &container)?.to_string())
}

/// Mounts the readiness socket's directory into the container when a service manager waits for it, and opens the socket
/// if the container starts now.
fn listen_for_readiness(
    dir: &Dir,
    spec: &mut Spec,
    then: Then,
) -> Result<Option<(Readiness, OwnedFd)>, OciError> {
    let Some(readiness) = Readiness::wanted(dir.path()) else { return Ok(None) };
    readiness.show(spec)?;
    let socket = if then == Then::Wait { None } else { readiness.listen()? };
    Ok(socket.map(|socket| (readiness, socket)))
}

/// Fails for unknown system calls in a filter when an annotation of crun requires all; without it they are ignored.
fn check_calls(spec: &Spec) -> Result<(), OciError> {
    const ANNOTATION: &str = "run.oci.seccomp_fail_unknown_syscall";
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let Some(profile) = profile.filter(|_| annotation(spec, ANNOTATION)) else { return Ok(()) };
    let unknown = seccomp::compile_profile(profile)?.unknown;
    if unknown.is_empty() {
        return Ok(());
    }
    Err(OciError::UnknownCalls { calls: unknown.join(", "), annotation: ANNOTATION })
}

/// Names of requested capabilities that this process lacks and cannot pass on. In its own user namespace a container
/// has all.
fn beyond_reach(spec: &Spec) -> Vec<&'static str> {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let Some(asked) = sets
        .and_then(|sets| sets.permitted().as_ref())
        .filter(|_| namespaces::of(spec, LinuxNamespaceType::User).is_none())
    else {
        return Vec::new();
    };
    let names: Vec<String> = asked.iter().map(ToString::to_string).collect();
    let asked = capability::mask(names.iter().map(String::as_str)).unwrap_or(0);
    capability::names(asked & !capability::permitted())
}

/// Requested ambient capabilities that are not permitted and inheritable too, as the kernel requires (capabilities(7)).
fn beyond_ambient(spec: &Spec) -> Vec<String> {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let Some(sets) = sets else { return Vec::new() };
    let holds =
        |set: &Option<Capabilities>, one: &Capability| set.as_ref().is_some_and(|set| set.contains(one));
    let beyond = sets
        .ambient()
        .iter()
        .flatten()
        .filter(|one| !(holds(sets.permitted(), one) && holds(sets.inheritable(), one)));
    let mut names: Vec<String> =
        beyond.map(|one| format!("CAP_{}", one.to_string().trim_start_matches("CAP_"))).collect();
    names.sort();
    names
}

fn check_version(spec: &Spec) -> Result<(), OciError> {
    let version = spec.version();
    let major = version.split('.').next().unwrap_or_default();
    if version.split('.').count() >= 3 && matches!(major, "0" | "1") {
        return Ok(());
    }
    Err(OciError::Version(version.clone()))
}

impl Request<'_> {
    fn make(&self, dir: &Dir) -> Result<(Record, Launched, Option<OwnedFd>), OciError> {
        let spec = &self.bundle.spec;
        let layout = Host::get().layout();
        let mut holdings = Holdings::new(self.groups(dir.id(), layout)?);
        holdings.add_class(self.class(dir.id())?);
        let result = self.start(dir, layout, &holdings);
        match &result {
            Ok(_) => holdings.keep(),
            // A container that could not be planned has no hooks to run.
            Err(error) if spec.hooks().is_some() && !matches!(error, OciError::Plan(_)) => {
                let record = self.record(dir.id(), &holdings);
                drop(holdings);
                hooks::after_stop(spec, &record, &self.globals.log);
            }
            Err(_) => {}
        }
        result
    }

    /// Moves network devices into the container's network namespace.
    fn move_devices(&self, pid: i32) -> Result<(), OciError> {
        if self.devices.is_empty() {
            return Ok(());
        }
        let path = match namespaces::of(&self.bundle.spec, LinuxNamespaceType::Network) {
            Some(Namespace::Joined(path)) => path.to_owned(),
            _ => format!("/proc/{pid}/ns/net").into(),
        };
        let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| OciError::file("open", &path)(errno.into()))?;
        for (name, inside) in &self.devices {
            move_device(namespace.as_fd(), name, inside)
                .map_err(|source| OciError::Device { name: name.clone(), source })?;
        }
        Ok(())
    }

    fn preparation(&self) -> Preparation<'_> {
        Preparation { spec: &self.bundle.spec, bundle: &self.bundle.dir, is_nested: self.nested }
    }

    /// Cgroups of the container, unless the caller wants none.
    fn groups(&self, id: &str, layout: &Layout) -> Result<Groups, OciError> {
        if self.globals.no_groups {
            return Ok(Groups::default());
        }
        let log = &self.globals.log;
        let mut notify = |notice: Notice| match notice {
            Notice::NoCgroups(_) => log.debug(&notice.to_string()),
            Notice::WithoutEffect(_) | Notice::NotEmpty(_) => log.warn(&notice.to_string()),
        };
        let request = CgroupRequest { id, layout, is_optional: self.globals.rootless };
        Ok(self.preparation().cgroups(&request, &mut notify)?)
    }

    /// Class of the container for caches and memory bandwidth. `None` when it has none.
    fn class(&self, id: &str) -> Result<Option<Class>, OciError> {
        let wanted = self.bundle.spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
        let Some(wanted) = wanted else { return Ok(None) };
        Ok(Some(Class::create(&resctrl::mount_point()?, id, wanted)?))
    }

    /// Record of a container that has no process yet.
    fn record(&self, id: &str, holdings: &Holdings) -> Record {
        let spec = &self.bundle.spec;
        let annotations = spec.annotations().iter().flatten();
        let annotations: BTreeMap<String, String> =
            annotations.map(|(name, value)| (name.clone(), value.clone())).collect();
        let root = spec.root().as_ref().map(|root| self.bundle.dir.join(root.path()));
        Record {
            id: id.to_owned(),
            pid: 0,
            start_time: String::new(),
            bundle: self.bundle.dir.clone(),
            rootfs: root.unwrap_or_default(),
            created: jiff::Timestamp::now().to_string(),
            owner: user::name(),
            annotations,
            groups: holdings.groups().clone(),
            class: holdings.class().cloned(),
            namespaces: namespaces::all(spec).fold(0, |bits, one| bits | one.typ() as u64),
        }
    }

    /// Request for the container from its specification and the command line.
    fn container<'a>(
        &'a self,
        layout: &'a Layout,
        groups: &'a Groups,
        has_class: bool,
        slots: Slots<'a>,
    ) -> Result<container::Request<'a>, OciError> {
        let spec = &self.bundle.spec;
        let preparation = self.preparation();
        let entry = preparation.entry();
        let attaches = groups.needs_attach() && entry == Entry::ByParent || has_class;
        let process = spec.process().as_ref();
        Ok(container::Request {
            bundle: Some(&self.bundle.dir),
            cgroups: Cgroups { layout: Some(layout), groups: Some(groups), born_in: slots.born_in, entry },
            devices: preparation.device_nodes(groups),
            nodes: slots.nodes,
            sources: slots.sources,
            parent: ParentWork::FILTER
                .and(ParentWork::HOOKS)
                .and_if(attaches, ParentWork::CGROUPS)
                .and_if(preparation.has_device_rules(groups), ParentWork::DEVICES),
            gate: slots.gate.map(|socket| Gate { socket, finds_program: self.has_process }),
            pivot: if self.arguments.has("no-pivot") { Pivot::Move } else { Pivot::Root },
            keyring: if self.arguments.has("no-new-keyring") { Keyring::Caller } else { Keyring::New },
            affinity: Affinity::Any,
            terminal: Terminal {
                size: process.map(terminal::size).unwrap_or_default(),
                lines: if self.then == Then::Stay { LineEnds::Plain } else { LineEnds::Terminal },
            },
            identity: Identity {
                home: Home::Looked,
                groups: match annotation(spec, "run.oci.keep_original_groups") {
                    true => SupplementaryGroups::Caller,
                    false => SupplementaryGroups::Own,
                },
                modules: Modules {
                    selinux: asks_for_label(spec) && Host::get().is_active(SecurityModule::SELinux),
                    apparmor: asks_for_profile(spec) && Host::get().is_active(SecurityModule::AppArmor),
                },
                ..Identity::default()
            },
            program: ProgramFile {
                kept_fds: kept_fds(self.arguments)?,
                run: if self.by_handle { ExecMethod::Handle } else { ExecMethod::Path },
            },
            ..container::Request::default()
        })
    }

    fn start(
        &self,
        dir: &Dir,
        layout: &Layout,
        holdings: &Holdings,
    ) -> Result<(Record, Launched, Option<OwnedFd>), OciError> {
        let groups = holdings.groups();
        let spec = &self.bundle.spec;
        let mut handed = Handed::default();
        let born_in = groups.dir()?.map(|dir| handed.give(dir));
        let preparation = self.preparation();
        preparation.restrict_devices(groups, RestrictAt::Start)?;
        let gate = match self.then {
            Then::Wait => Some(handed.give(dir.make_gate()?)),
            Then::Detach | Then::Stay => None,
        };
        let sources: Vec<(usize, FdSlot)> =
            preparation.sources()?.into_iter().map(|(index, fd)| (index, handed.give(fd))).collect();
        let nodes: Vec<(PathBuf, FdSlot)> =
            preparation.nodes(groups)?.into_iter().map(|(path, fd)| (path, handed.give(fd))).collect();
        let slots = Slots { born_in, gate, sources: &sources, nodes: &nodes };
        let request = self.container(layout, groups, holdings.class().is_some(), slots)?;
        let mut plan = plan(spec, &request)?;
        self.globals.log.debug(&format!("container {:?}: {} steps of set-up", dir.id(), plan.setup.len()));
        plan.program.environment.extend(listen_environment());
        if self.then == Then::Stay && !self.arguments.has("no-subreaper") {
            foreground::become_subreaper();
        }
        let mut making = Making {
            request: self,
            dir,
            groups,
            record: self.record(dir.id(), holdings),
            agent: if self.then == Then::Wait { None } else { Agent::of(spec)? },
            handover: Handover::of(self.arguments),
        };
        let launched = launch::launch(plan, handed, &mut making).map_err(OciError::Start)?;
        self.globals.log.debug(&format!("container {:?} has process {}", dir.id(), launched.pid));
        let Making { record, handover, .. } = making;
        Ok((record, launched, handover.console))
    }
}

fn asks_for_label(spec: &Spec) -> bool {
    let given = |label: Option<&String>| label.is_some_and(|label| !label.is_empty());
    given(spec.process().as_ref().and_then(|process| process.selinux_label().as_ref()))
        || given(spec.linux().as_ref().and_then(|linux| linux.mount_label().as_ref()))
}

fn asks_for_profile(spec: &Spec) -> bool {
    let profile = spec.process().as_ref().and_then(|process| process.apparmor_profile().as_ref());
    profile.is_some_and(|profile| !profile.is_empty())
}

fn annotation(spec: &Spec, name: &str) -> bool {
    let value = spec.annotations().as_ref().and_then(|annotations| annotations.get(name));
    value.is_some_and(|value| value == "1" || value == "true")
}

/// Number of descriptors passed by socket activation (sd_listen_fds(3)).
fn listening() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Variables of socket activation for the program, which is the first process.
fn listen_environment() -> Vec<kiln_runtime::op::Bytes> {
    if listening() == 0 {
        return Vec::new();
    }
    let mut environment = vec![format!("LISTEN_FDS={}", listening()).into(), "LISTEN_PID=1".into()];
    if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
        environment.push(format!("LISTEN_FDNAMES={names}").into());
    }
    environment
}

/// Maps root to the caller's ids in a new user namespace without mappings.
fn map_own_id(spec: &mut Spec) {
    let is_new = namespaces::of(spec, LinuxNamespaceType::User) == Some(Namespace::New);
    let Some(linux) = spec.linux_mut() else { return };
    let says = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if !is_new || says(linux.uid_mappings()) || says(linux.gid_mappings()) {
        return;
    }
    let only = |id: u32| {
        let mapping = LinuxIdMappingBuilder::default().container_id(0u32).host_id(id).size(1u32).build();
        mapping.ok().map(|mapping| vec![mapping])
    };
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    linux.set_uid_mappings(only(user)).set_gid_mappings(only(group));
}

/// Number of descriptors that the program gets besides its streams: requested ones, and those of socket activation.
pub(crate) fn kept_fds(arguments: &Arguments) -> Result<u32, OciError> {
    let asked: u32 = arguments.number("preserve-fds")?.unwrap_or(0);
    let kept = asked.saturating_add(listening());
    // Descriptors in this range that are not open do not matter; those of this process are closed by exec, whatever
    // their number.
    if kept > 65536 {
        return Err(OciError::usage(format!("cannot keep {kept} descriptors for the container")));
    }
    Ok(kept)
}

/// Steps on the host while the container sets itself up.
struct Making<'a> {
    request: &'a Request<'a>,
    dir: &'a Dir,
    groups: &'a Groups,
    record: Record,
    /// Agent for notifications of the filter, when the program runs at once; `None` without one.
    agent: Option<Agent>,
    handover: Handover,
}

impl Steps for Making<'_> {
    fn made(&mut self, launched: &Launched) -> Result<(), CallerError> {
        self.record.pid = launched.pid;
        self.record.start_time = Groups::start_time(launched.pid).unwrap_or_default();
        let preparation = self.request.preparation();
        if preparation.entry() == Entry::ByParent {
            self.groups.attach(launched.pid)?;
        }
        if let Some(class) = &self.record.class {
            class.attach(launched.pid)?;
        }
        let unified = launched.group.as_ref().map(AsFd::as_fd);
        preparation.restrict_devices(self.groups, RestrictAt::Process(unified))?;
        self.request.move_devices(launched.pid)?;
        self.dir.write(&self.record, &self.request.bundle.text)?;
        Ok(self.handover.pidfd(launched.pidfd.as_fd())?)
    }

    fn filter(&mut self) -> Result<Vec<u64>, CallerError> {
        let linux = self.request.bundle.spec.linux().as_ref();
        let Some(profile) = linux.and_then(|linux| linux.seccomp().as_ref()) else { return Ok(Vec::new()) };
        Ok(seccomp::compile_profile(profile)?.program)
    }

    fn reached(&mut self, point: Point, _: i32) -> Result<Vec<u8>, CallerError> {
        if point != Point::Hooks {
            return Ok(Vec::new());
        }
        hooks::before_pivot(&self.request.bundle.spec, &self.record)?;
        Ok(self.record.state(Status::Creating))
    }

    fn console(&mut self, master: OwnedFd) -> Result<(), CallerError> {
        Ok(self.handover.console(master)?)
    }

    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<(), CallerError> {
        Ok(self.agent.as_ref().map_or(Ok(()), |agent| agent.send(&self.record, &listener, pid))?)
    }
}
