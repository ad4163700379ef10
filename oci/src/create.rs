//! Making a container from a bundle: the way of `create` and `run`.

use crate::arguments::Arguments;
use crate::bundle::Bundle;
use crate::commands::Agent;
use crate::error::OciError;
use crate::state::{Folder, Record, Status, write_beside};
use crate::{Globals, foreground, hooks, machine, terminal};
use kiln_runtime::cgroup::{self, DeviceRule, Extent, Groups, Layout, Place};
use kiln_runtime::launch::{self, Launched, Steps};
use kiln_runtime::op::{ConsoleSize, FdSlot, IdMaps, IdRange, Point};
use kiln_runtime::plan::{self, PlanOptions, plan};
use kiln_runtime::{idmap, seal, view};
use oci_spec::runtime::{
    Capability, LinuxIdMapping, LinuxNamespaceType, LinuxResources, LinuxSeccomp, LinuxSeccompAction, Mount,
    Spec,
};
use rustix::fd::{AsFd, OwnedFd};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What becomes of the container when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It waits to be started.
    Wait,
    /// It runs, and this program ends.
    Detach,
    /// It runs, and this program stays with it.
    Stay,
}

/// A container that was made.
pub(crate) struct Made {
    pub(crate) folder: Folder,
    pub(crate) record: Record,
    pub(crate) spec: Spec,
    pub(crate) launched: Launched,
    /// The master of its terminal, when nobody else has it.
    pub(crate) console: Option<OwnedFd>,
}

/// What `create` and `run` are told.
struct Request<'a> {
    globals: &'a Globals,
    arguments: &'a Arguments,
    bundle: &'a Bundle,
    then: Then,
    /// This process is in a user namespace, and has no say about devices.
    nested: bool,
    /// The program is run by a handle on its file.
    by_handle: bool,
}

/// Makes the container `id`; on failure nothing of it is left.
pub(crate) fn create(
    globals: &Globals,
    arguments: &Arguments,
    id: &str,
    then: Then,
) -> Result<Made, OciError> {
    let bundle = Bundle::read(arguments.get("bundle").unwrap_or("."), arguments.get("config"))?;
    for warning in &bundle.warnings {
        globals.log.warn(warning);
    }
    let root = bundle.spec.root().as_ref().map(|root| bundle.folder.join(root.path())).unwrap_or_default();
    let by_handle = keep_own_file(&bundle.spec, then, &root);
    check_version(&bundle.spec)?;
    check_terminal(&bundle.spec, arguments, then)?;
    check_device_rules(&bundle.spec)?;
    plan::check_hooks(&bundle.spec)?;
    let folder = globals.store.create(id)?;
    let request =
        Request { globals, arguments, bundle: &bundle, then, nested: machine::is_nested(), by_handle };
    let made = request.make(&folder);
    match made {
        Ok((record, launched, console)) => {
            if let Some(path) = arguments.get("pid-file") {
                let written = write_beside(Path::new(path), record.pid.to_string().as_bytes());
                if let Err(error) = written {
                    let _ = launch::signal(launched.pidfd.as_fd(), 9);
                    launch::wait(&launched.pidfd);
                    let _ = record.groups.remove();
                    let _ = folder.remove();
                    return Err(error);
                }
            }
            Ok(Made { folder, record, spec: bundle.spec, launched, console })
        }
        Err(error) => {
            let _ = folder.remove();
            Err(error)
        }
    }
}

/// Keeps this program's own file from the container (CVE-2019-5736), by running from a read-only mount: then this does
/// not come back the first time.
///
/// A container that is alone until its program runs, and whose program is run by a handle, does not come by that file
/// either; true tells of that. It saves a third of the time.
fn keep_own_file(spec: &Spec, then: Then, root: &Path) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let alone = then != Then::Wait
        && namespaces.into_iter().flatten().any(|one| {
            one.typ() == LinuxNamespaceType::Pid
                && one.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
        });
    const NEEDED: [&str; 2] = ["execveat", "openat2"];
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let allows = |filter: &LinuxSeccomp, name: &str| {
        filter.default_action() == LinuxSeccompAction::ScmpActAllow
            && !filter.syscalls().iter().flatten().any(|rule| rule.names().iter().any(|known| known == name))
            || filter.syscalls().iter().flatten().any(|rule| {
                rule.action() == LinuxSeccompAction::ScmpActAllow
                    && rule.args().as_ref().is_none_or(Vec::is_empty)
                    && rule.names().iter().any(|known| known == name)
            })
    };
    let allowed = filter.is_none_or(|filter| NEEDED.iter().all(|name| allows(filter, name)));
    let process = spec.process().as_ref();
    let arguments = process.and_then(|process| process.args().as_deref()).unwrap_or_default();
    let environment = process.and_then(|process| process.env().as_deref()).unwrap_or_default();
    let keeps_name = || arguments.first().is_none_or(|program| seal::keeps_name(root, program, environment));
    if alone && allowed && seal::can_do_without() && keeps_name() {
        return true;
    }
    seal::seal();
    false
}

fn check_version(spec: &Spec) -> Result<(), OciError> {
    let version = spec.version();
    let major = version.split('.').next().unwrap_or_default();
    if version.split('.').count() >= 3 && matches!(major, "0" | "1") {
        return Ok(());
    }
    Err(OciError::Other(format!(
        "the configuration's ociVersion {version:?} is none that is known: 1.x.y is"
    )))
}

/// A rule that cannot be read would be one rule less.
fn check_device_rules(spec: &Spec) -> Result<(), OciError> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    for rule in rules.into_iter().flatten() {
        let access = rule.access().as_deref().unwrap_or_default();
        if !access.chars().all(|letter| "rwm".contains(letter)) {
            return Err(OciError::Other(format!(
                "a rule about devices has the access {access:?}: it consists of `r`, `w` and `m`"
            )));
        }
    }
    Ok(())
}

fn check_terminal(spec: &Spec, arguments: &Arguments, then: Then) -> Result<(), OciError> {
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    check_console(terminal, arguments.has("console-socket"), then == Then::Stay)
}

/// A terminal goes to whoever stays: this program, or the one at the socket.
pub(crate) fn check_console(terminal: bool, socket: bool, stays: bool) -> Result<(), OciError> {
    match (terminal, socket, stays) {
        (true, false, false) => Err(OciError::usage(
            "cannot allocate tty if runtime will detach without setting console socket: pass --console-socket",
        )),
        (false, true, _) | (true, true, true) => {
            Err(OciError::usage("cannot use console socket if runtime will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

impl Request<'_> {
    fn make(&self, folder: &Folder) -> Result<(Record, Launched, Option<OwnedFd>), OciError> {
        let spec = &self.bundle.spec;
        let layout = Layout::detect();
        let groups = self.groups(folder.id(), &layout)?;
        let result = self.start(folder, &layout, &groups);
        if let Err(error) = &result {
            let _ = groups.remove();
            // Of what could not even be planned there is nothing to tell.
            if spec.hooks().is_some() && !matches!(error, OciError::Plan(_)) {
                let record = self.record(folder.id(), &groups, 0);
                hooks::after_stop(spec, &record, &self.globals.log);
            }
        }
        result
    }

    /// Groups are made where they are wanted: for limits, for devices, or because the caller names their place.
    fn groups(&self, id: &str, layout: &Layout) -> Result<Groups, OciError> {
        if self.globals.no_groups {
            return Ok(Groups::default());
        }
        let resources = self.resources();
        let mut place = place(&self.bundle.spec, id);
        if !layout.has_unified() {
            if self.does_without_groups(&place) {
                return Ok(Groups::default());
            }
            place.extent = Extent::All;
        }
        let nested = self.nested;
        match Groups::create(layout, &place, resources) {
            Ok(groups) if groups.is_reused_frozen() => Err(OciError::State(
                "container's cgroup unexpectedly frozen: the container would never start".to_owned(),
            )),
            Ok(groups) => {
                let others = groups.others()?;
                if !others.is_empty() {
                    self.globals.log.warn(&format!(
                        "container's cgroup is not empty: {} process(es) found",
                        others.len()
                    ));
                }
                Ok(groups)
            }
            // Without rights over groups a container without limits can do without them.
            Err(error)
                if !resources.is_some_and(cgroup::has_limits)
                    && (nested || !rustix::process::geteuid().is_root()) =>
            {
                self.globals.log.debug(&format!("no control groups: {error}"));
                Ok(Groups::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where only version 1 hierarchies are mounted, entering a group waits for a grace period of the kernel: a
    /// container without limits does without. Its devices are then guarded by what is mounted, which a program that may
    /// not mount cannot change.
    fn does_without_groups(&self, place: &Place) -> bool {
        let resources = self.resources();
        let rules = resources.and_then(|resources| resources.devices().as_ref());
        let denies_all = |rule: &oci_spec::runtime::LinuxDeviceCgroup| {
            !rule.allow() && rule.major().is_none() && rule.minor().is_none()
        };
        let process = self.bundle.spec.process().as_ref();
        let sets = process.and_then(|process| process.capabilities().as_ref());
        let mounts = sets
            .and_then(|sets| sets.bounding().as_ref())
            .is_some_and(|set| set.contains(&Capability::SysAdmin));
        place.extent != Extent::All
            && !resources.is_some_and(cgroup::has_limits)
            && rules.into_iter().flatten().all(denies_all)
            && !mounts
    }

    /// Whether devices are guarded by rules of the container's groups.
    fn guards(&self, groups: &Groups) -> bool {
        !self.nested && !groups.paths().is_empty()
    }

    fn resources(&self) -> Option<&LinuxResources> {
        self.bundle.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
    }

    fn record(&self, id: &str, groups: &Groups, pid: i32) -> Record {
        let spec = &self.bundle.spec;
        let annotations = spec.annotations().iter().flatten();
        let annotations: BTreeMap<String, String> =
            annotations.map(|(name, value)| (name.clone(), value.clone())).collect();
        let root = spec.root().as_ref().map(|root| self.bundle.folder.join(root.path()));
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        Record {
            id: id.to_owned(),
            pid,
            start_time: String::new(),
            bundle: self.bundle.folder.clone(),
            rootfs: root.unwrap_or_default(),
            created: jiff::Timestamp::now().to_string(),
            owner: machine::owner(),
            annotations,
            groups: groups.clone(),
            namespaces: namespaces.into_iter().flatten().fold(0, |bits, one| bits | one.typ() as u64),
        }
    }

    fn start(
        &self,
        folder: &Folder,
        layout: &Layout,
        groups: &Groups,
    ) -> Result<(Record, Launched, Option<OwnedFd>), OciError> {
        let spec = &self.bundle.spec;
        let mut slots: Vec<OwnedFd> = Vec::new();
        let mut slot = |fd: OwnedFd| {
            slots.push(fd);
            FdSlot(slots.len() - 1)
        };
        let cgroup = groups.folder()?.map(&mut slot);
        let gate = match self.then {
            Then::Wait => Some(slot(folder.make_gate()?)),
            Then::Detach | Then::Stay => None,
        };
        let sources: Vec<(usize, FdSlot)> =
            self.sources()?.into_iter().map(|(index, fd)| (index, slot(fd))).collect();
        let nodes: Vec<(PathBuf, FdSlot)> =
            self.nodes(groups)?.into_iter().map(|(path, fd)| (path, slot(fd))).collect();
        let users = own_users(spec);
        let options = PlanOptions {
            console: console_size(spec),
            cgroup,
            layout: Some(layout),
            groups: Some(groups),
            bundle: Some(&self.bundle.folder),
            gate,
            attach: groups.needs_attach(),
            hooks: true,
            bind_devices: users || self.nested,
            guard: self.guards(groups),
            no_device_filter: !self.nested && groups.are_none(),
            by_moving: self.arguments.has("no-pivot"),
            keep_keyring: self.arguments.has("no-new-keyring"),
            kept_fds: kept_fds(self.arguments)?,
            by_handle: self.by_handle,
            sources: &sources,
            nodes: &nodes,
            keep_groups: annotation(spec, "run.oci.keep_original_groups"),
            selinux: asks_for_label(spec) && machine::has_selinux(),
            apparmor: asks_for_profile(spec) && machine::has_apparmor(),
            find_program: gate.is_some(),
            home: true,
            ..PlanOptions::default()
        };
        let mut plan = plan(spec, &options)?;
        self.globals.log.debug(&format!("container {:?}: {} steps of set-up", folder.id(), plan.setup.len()));
        plan.program.environment.extend(listen_environment());
        if self.then == Then::Stay && !self.arguments.has("no-subreaper") {
            foreground::become_subreaper();
        }
        let mut making = Making {
            request: self,
            folder,
            groups,
            record: self.record(folder.id(), groups, 0),
            agent: if self.then == Then::Wait { None } else { Agent::of(spec)? },
            console: None,
        };
        let launched = launch::launch(plan, slots, &mut making).map_err(OciError::Start)?;
        self.globals.log.debug(&format!("container {:?} has process {}", folder.id(), launched.pid));
        let Making { record, console, .. } = making;
        Ok((record, launched, console))
    }

    /// Mounts that are opened here: what users of a new namespace could not reach, and what is shown with other
    /// owners.
    fn sources(&self) -> Result<Vec<(usize, OwnedFd)>, OciError> {
        let spec = &self.bundle.spec;
        let users = own_users(spec);
        let mut opened = Vec::new();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let owners = self.owners(mount)?;
            let (Some(recursive), Some(source)) = (bind(mount), mount.source()) else {
                if owners.is_some() {
                    return Err(OciError::Other(format!(
                        "the mount on `{}` cannot be id-mapped: only bind mounts can",
                        mount.destination().display()
                    )));
                }
                continue;
            };
            // Whoever may not mount here leaves it to the container, which may, and is the same user.
            if owners.is_none() && !(users && rustix::process::geteuid().is_root()) {
                continue;
            }
            let path = self.bundle.folder.join(source);
            let handle = view::copy(&path, recursive)
                .map_err(|errno| OciError::file("open the mount source", &path)(errno.into()))?;
            if let Some(owners) = owners {
                let recursive = mount.options().iter().flatten().any(|option| option == "ridmap");
                view::map_owners(handle.as_fd(), owners.as_fd(), recursive)
                    .map_err(|errno| unmappable(&path, &handle, errno))?;
            }
            opened.push((index, handle));
        }
        Ok(opened)
    }

    /// The user namespace through which the owners of a mount's files are shown, when they are others.
    fn owners(&self, mount: &Mount) -> Result<Option<OwnedFd>, OciError> {
        let options = mount.options().as_deref().unwrap_or_default();
        let wanted = options.iter().any(|option| option == "idmap" || option == "ridmap");
        let linux = self.bundle.spec.linux().as_ref();
        let own = |list: &Option<Vec<LinuxIdMapping>>| list.clone().filter(|list| !list.is_empty());
        let (users, groups) = (own(mount.uid_mappings()), own(mount.gid_mappings()));
        if users.is_none() && groups.is_none() && !wanted {
            return Ok(None);
        }
        let users = users.or_else(|| linux.and_then(|linux| own(linux.uid_mappings())));
        let groups = groups.or_else(|| linux.and_then(|linux| own(linux.gid_mappings())));
        let (Some(users), Some(groups)) = (users, groups) else {
            return Err(OciError::Other(format!(
                "the mount on `{}` needs both uidMappings and gidMappings to be id-mapped",
                mount.destination().display()
            )));
        };
        let maps = IdMaps { users: ranges(&users), groups: ranges(&groups) };
        idmap::namespace(&maps).map(Some).map_err(OciError::Other)
    }

    /// Device nodes for a container with users of its own, which can make none, and for one without groups, which
    /// may open none that it makes.
    fn nodes(&self, groups: &Groups) -> Result<Vec<(PathBuf, OwnedFd)>, OciError> {
        let spec = &self.bundle.spec;
        let unguarded = groups.are_none();
        if !own_users(spec) && !unguarded || self.nested || !rustix::process::geteuid().is_root() {
            return Ok(Vec::new());
        }
        let linux = spec.linux().as_ref();
        let outside = |list: Option<&Vec<LinuxIdMapping>>, id: u32| {
            if list.is_none_or(Vec::is_empty) {
                return Some(id);
            }
            let range = list
                .into_iter()
                .flatten()
                .find(|one| id.checked_sub(one.container_id()).is_some_and(|offset| offset < one.size()));
            range.and_then(|one| one.host_id().checked_add(id - one.container_id()))
        };
        let mut paths = Vec::new();
        let mut nodes = Vec::new();
        for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
            let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
            let owner = (
                outside(linux.and_then(|linux| linux.uid_mappings().as_ref()), uid),
                outside(linux.and_then(|linux| linux.gid_mappings().as_ref()), gid),
            );
            let (Some(uid), Some(gid)) =
                (owner.0.filter(|id| *id != u32::MAX), owner.1.filter(|id| *id != u32::MAX))
            else {
                return Err(OciError::Other(format!(
                    "the owner {uid}:{gid} of device `{}` is not mapped in the container",
                    device.path().display()
                )));
            };
            let number = |value: i64| u32::try_from(value).unwrap_or(0);
            paths.push(device.path().clone());
            nodes.push(view::Node {
                kind: device.typ().as_str().chars().next().unwrap_or('c'),
                device: (number(device.major()), number(device.minor())),
                mode: device.file_mode().unwrap_or(0o666) & 0o7777,
                owner: (uid, gid),
            });
        }
        let dev_is_own = spec.mounts().iter().flatten().any(|mount| mount.destination() == Path::new("/dev"));
        if unguarded && dev_is_own {
            let owner = (
                outside(linux.and_then(|linux| linux.uid_mappings().as_ref()), 0).unwrap_or(0),
                outside(linux.and_then(|linux| linux.gid_mappings().as_ref()), 0).unwrap_or(0),
            );
            for (name, major, minor) in plan::STANDARD_DEVICES {
                let path = Path::new("/dev").join(name);
                if !paths.contains(&path) {
                    paths.push(path);
                    nodes.push(view::Node { kind: 'c', device: (major, minor), mode: 0o666, owner });
                }
            }
        }
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let made = view::nodes(&nodes).map_err(|error| OciError::Other(error.to_string()))?;
        Ok(paths.into_iter().zip(made).collect())
    }
}

fn ranges(list: &[LinuxIdMapping]) -> Vec<IdRange> {
    list.iter()
        .map(|one| IdRange { inside: one.container_id(), outside: one.host_id(), count: one.size() })
        .collect()
}

/// Which file systems can show other owners depends on the kernel.
fn unmappable(path: &Path, handle: &OwnedFd, errno: rustix::io::Errno) -> OciError {
    if errno != rustix::io::Errno::INVAL {
        return OciError::file("map the owners of", path)(errno.into());
    }
    OciError::Other(format!(
        "the owners of files on `{}` cannot be mapped: its file system ({}) does not support that on this kernel",
        path.display(),
        filesystem_of(handle)
    ))
}

/// The name of a file system, told by the table of mounts; its number where that does not know it.
fn filesystem_of(handle: &OwnedFd) -> String {
    let device = rustix::fs::fstat(handle).map_or(0, |stat| stat.st_dev);
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = table.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_it = mount.split(' ').nth(2) == Some(&device);
        is_it.then(|| filesystem.split(' ').next().unwrap_or_default().to_owned())
    });
    let number = || rustix::fs::fstatfs(handle).map_or(0, |statfs| statfs.f_type);
    name.unwrap_or_else(|| format!("type {:#x}", number()))
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

/// How many descriptors were handed over by socket activation (sd_listen_fds(3)).
fn listening() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What the program is told about them; it is the first process.
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

/// Whether a mount shows a part of the machine, with what is mounted below it or without.
fn bind(mount: &Mount) -> Option<bool> {
    let options = mount.options().as_deref().unwrap_or_default();
    if options.iter().any(|option| option == "rbind") {
        return Some(true);
    }
    let is_bind = mount.typ().as_deref() == Some("bind") || options.iter().any(|option| option == "bind");
    is_bind.then_some(false)
}

/// A user namespace of the container's own.
fn own_users(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|one| one.typ() == LinuxNamespaceType::User)
}

/// The place of a container's groups, and whether it needs all of them.
pub(crate) fn place(spec: &Spec, id: &str) -> Place {
    let linux = spec.linux().as_ref();
    let named =
        linux.and_then(|linux| linux.cgroups_path().clone()).filter(|path| !path.as_os_str().is_empty());
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let own = namespaces.into_iter().flatten().any(|one| one.typ() == LinuxNamespaceType::Cgroup);
    let is_cgroup = |mount: &Mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
    let shown = spec.mounts().iter().flatten().any(is_cgroup);
    // Whoever names the place looks there; and without a namespace the container is shown its groups by path.
    let extent = if named.is_some() || shown && !own { Extent::All } else { Extent::Unified };
    let path = named.map_or_else(|| PathBuf::from(id), |path| clean(&path));
    Place { path, extent }
}

/// Without `..` and the like: groups are made nowhere else.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir => clean.push("/"),
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The specification's rules about devices, and behind them what every container may use.
fn device_rules(resources: Option<&LinuxResources>) -> Vec<DeviceRule> {
    let given = resources.and_then(|resources| resources.devices().as_ref()).into_iter().flatten();
    let mut rules: Vec<DeviceRule> = given.filter_map(DeviceRule::of).collect();
    rules.extend(cgroup::default_rules());
    rules
}

fn console_size(spec: &Spec) -> ConsoleSize {
    let size = spec.process().as_ref().and_then(oci_spec::runtime::Process::console_size);
    let number = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    size.map_or(ConsoleSize { rows: 0, columns: 0 }, |size| ConsoleSize {
        rows: number(size.height()),
        columns: number(size.width()),
    })
}

/// Descriptors that the program gets besides its streams: those asked for, and those of socket activation.
pub(crate) fn kept_fds(arguments: &Arguments) -> Result<u32, OciError> {
    let asked: u32 = arguments.number("preserve-fds")?.unwrap_or(0);
    let kept = asked.saturating_add(listening());
    // Those that are not open are nobody's; ours are closed by exec, whatever their number.
    if kept > 65536 {
        return Err(OciError::usage(format!("cannot keep {kept} descriptors for the container")));
    }
    Ok(kept)
}

/// The caller's side while the container sets itself up.
struct Making<'a> {
    request: &'a Request<'a>,
    folder: &'a Folder,
    groups: &'a Groups,
    record: Record,
    /// Who answers for calls, when the program runs at once.
    agent: Option<Agent>,
    console: Option<OwnedFd>,
}

impl Steps for Making<'_> {
    fn made(&mut self, launched: &Launched) -> Result<(), String> {
        self.record.pid = launched.pid;
        self.record.start_time = Groups::start_time(launched.pid).unwrap_or_default();
        self.groups.attach(launched.pid).map_err(|error| error.to_string())?;
        if self.request.guards(self.groups) {
            let rules = device_rules(self.request.resources());
            self.groups.restrict(&rules).map_err(|error| error.to_string())?;
        }
        self.folder.write(&self.record, &self.request.bundle.text).map_err(|error| error.to_string())?;
        if let Some(path) = self.request.arguments.get("pidfd-socket") {
            terminal::send_fd(Path::new(path), launched.pidfd.as_fd(), b"pidfd")
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn reached(&mut self, point: Point, _: i32) -> Result<Vec<u8>, String> {
        if point != Point::Hooks {
            return Ok(Vec::new());
        }
        let state = self.record.state(Status::Creating);
        hooks::before_pivot(&self.request.bundle.spec, &state)?;
        Ok(state)
    }

    fn console(&mut self, master: OwnedFd) -> Result<(), String> {
        match self.request.arguments.get("console-socket") {
            Some(path) => terminal::send_fd(Path::new(path), master.as_fd(), b"/dev/ptmx")
                .map_err(|error| error.to_string()),
            None => {
                terminal::copy_size(&master);
                self.console = Some(master);
                Ok(())
            }
        }
    }

    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<(), String> {
        self.agent.as_ref().map_or(Ok(()), |agent| agent.send(&self.record, &listener, pid))
    }
}
