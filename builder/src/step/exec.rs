//! RUN: runs a program in a container; its changes become a layer.

use super::device;
use super::mount::Mounted;
use super::{Built, Executor, StepError, advice};
use crate::event::{Event, Row};
use crate::graph::{Exec, Network};
use crate::plan::quote;
use crate::sandbox::StepNetwork;
use crate::solve::NodeId;
use kiln_image::store::{Active, LayerRecord, Stack};
use kiln_image::sys::{self, CallError, Named};
use kiln_image::tree::Tree;
use kiln_runtime::cdi::{self, Devices};
use kiln_runtime::cgroup::Cgroup;
use kiln_runtime::container::{Cgroups, DeviceNodes, Entry, Filter, Handed, Identity, Modules, Request};
use kiln_runtime::host::Host;
use kiln_runtime::op::{Plan, Stage};
use kiln_runtime::plan::plan;
use kiln_runtime::{Process, SpawnError, SpawnRequest, spec};
use oci_spec::runtime::{LinuxNamespaceType, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Spec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

impl Executor<'_> {
    pub(super) fn run_program(
        &self,
        node: NodeId,
        exec: &Exec,
        inputs: &[Built],
        row: Row,
    ) -> Result<LayerRecord, StepError> {
        let below = &inputs[0].stack;
        below.check()?;
        let mounted = self.prepare_mounts(node, exec, inputs, row)?;
        let active = self.tools.store.prepare()?;
        make_mount_points(below, &active)?;
        let began = super::now() / 1_000_000_000;
        let code = self.run_in(exec, &mounted, below, &active, row);
        // A program that failed may have written secrets into caches, too.
        self.check_caches(&mounted.caches, began)?;
        let code = match code {
            Ok(code) => code,
            Err(StepError::Start { command, source, .. }) => {
                let tree = self.tree_of_failed(below, &active)?;
                let hints = advice::start_advice(exec, &tree, &source.to_string()).into();
                return Err(StepError::Start { command, source, hints });
            }
            Err(error) => return Err(error),
        };
        if code != 0 {
            if self.tools.cancel.is_stopped() {
                return Err(StepError::Canceled);
            }
            let credentials = &self.tools.credentials;
            let missing = advice::not_passed(exec, |kind, id| match kind {
                "secret" => credentials.secrets.contains_key(id),
                _ => credentials.ssh.contains_key(id),
            });
            let hints = advice::advice(exec, &self.tree_of_failed(below, &active)?, code, &missing);
            return Err(StepError::Exit { command: command(exec), code, hints });
        }
        self.keep_layer(node, active)
    }

    /// Tree of a failed program, without mounted files.
    fn tree_of_failed(&self, below: &Stack, active: &Active) -> Result<Tree, StepError> {
        let upper = sys::open_dir(&active.upper())?;
        Ok(Tree::of(std::iter::once(upper).chain(self.view(below)?).collect()))
    }

    fn run_in(
        &self,
        exec: &Exec,
        mounted: &Mounted,
        below: &Stack,
        active: &Active,
        row: Row,
    ) -> Result<i32, StepError> {
        let files = self.tools.sandbox.files()?;
        let stubs: Vec<PathBuf> =
            std::iter::once(files.stubs()).chain(mounted.stubs.iter().cloned()).collect();
        let root = self.tools.store.active_mount(below, active, &stubs);
        let devices = cdi::find(&exec.devices)?;
        let mut spec = self.whole_spec(exec, mounted, &devices, active.mount_point()?, row)?;
        if !exec.is_insecure {
            self.tools.sandbox.confine(&mut spec)?;
        }
        if exec.network == Network::Bridge
            && let Some(notice) = files.notice()
        {
            self.tools.reporter.send(Event::Warning { message: format!("[Warning] {notice}") });
        }
        let network = match exec.network {
            Network::Bridge => Some(self.tools.sandbox.network(!exec.is_insecure)?),
            Network::None => Some(self.tools.sandbox.no_network()?),
            Network::Host => None,
        };
        let limited = self.tools.sandbox.limited_group(&exec.limits)?;
        // Steps with `--device` get their nodes from the host, and can open no others.
        let opens_devices = exec.is_insecure || !exec.devices.is_empty();
        let is_limited = limited.as_ref().is_some_and(|group| group.dir().is_some());
        let shared = self.tools.sandbox.group();
        let filter = shared.and_then(Cgroup::dir).filter(|_| !opens_devices && !is_limited);
        let group = limited.as_ref().and_then(Cgroup::dir).or(filter);
        let namespace = network.as_ref().map(StepNetwork::namespace);
        let nodes = if exec.is_insecure { Vec::new() } else { devices.host_nodes()? };
        let mut handed = Handed::default();
        let network_slot = namespace.map(|namespace| handed.lend(namespace));
        let born_in = group.map(|dir| handed.lend(dir));
        let nodes: Vec<_> =
            nodes.iter().map(|(path, node)| (path.clone(), handed.lend(node.as_fd()))).collect();
        let has_rules = filter.is_some() || exec.is_insecure;
        let request = Request {
            root: Some(&root),
            network: network_slot,
            cgroups: Cgroups {
                layout: Some(Host::get().layout()),
                groups: limited.as_ref().or(shared).map(Cgroup::groups),
                born_in,
                entry: if limited.is_some() { Entry::BySelf } else { Entry::BySelfIfPossible },
            },
            devices: if has_rules { DeviceNodes::Made } else { DeviceNodes::Exclusive },
            nodes: &nodes,
            identity: Identity {
                user: Some(&exec.user),
                filter: if exec.is_insecure { Filter::None } else { Filter::Default },
                modules: Modules { apparmor: !exec.is_insecure, selinux: false },
                ..Identity::default()
            },
            ..Request::default()
        };
        self.execute(exec, &plan(&spec, &request)?, &handed, row)
    }

    /// Starts the container of a plan, and shows its output until it ends; returns the exit code.
    fn execute(&self, exec: &Exec, plan: &Plan, handed: &Handed<'_>, row: Row) -> Result<i32, StepError> {
        let null = File::open("/dev/null").call("open", "/dev/null")?;
        let (stdout, stdout_there) = pipe()?;
        let (stderr, stderr_there) = pipe()?;
        let request = SpawnRequest {
            plan,
            handed,
            stdin: null.as_fd(),
            stdout: stdout_there.as_fd(),
            stderr: stderr_there.as_fd(),
        };
        let start = |source| start_error(exec, source);
        let process = self.tools.sandbox.spawner().spawn(&request).map_err(start)?;
        drop((stdout_there, stderr_there));
        self.follow(process, stdout, stderr, row).map_err(start)
    }

    /// Specification of the step's container with all mounts.
    fn whole_spec(
        &self,
        exec: &Exec,
        mounted: &Mounted,
        devices: &Devices,
        root: PathBuf,
        row: Row,
    ) -> Result<Spec, StepError> {
        let files = self.tools.sandbox.files()?;
        let mut spec = step_spec(exec, &mounted.environment, root);
        devices.add_to(&mut spec);
        let mut mounts = files.mounts(exec.network == Network::Host);
        mounts.extend(devices.mounts.iter().cloned());
        mounts.extend(mounted.mounts.iter().cloned());
        if let Some((name, content)) = &exec.script {
            let dir = write_script(&files.dir(), row, name, content)?;
            mounts.push(spec::bind(dir, "/dev/pipes", &["ro"]));
        }
        spec.mounts_mut().get_or_insert_default().extend(mounts);
        if exec.network == Network::Host {
            stay_in_network(&mut spec);
        }
        Ok(spec)
    }

    /// Sends the program's output as events until it exits, and returns its exit code.
    fn follow(
        &self,
        mut process: Process,
        stdout: OwnedFd,
        stderr: OwnedFd,
        row: Row,
    ) -> Result<i32, kiln_runtime::SpawnError> {
        let handle = process.pidfd().try_clone_to_owned();
        let _watch = handle.ok().map(|handle| self.tools.cancel.watch(handle));
        std::thread::scope(|scope| {
            scope.spawn(|| self.pass_on(stderr, row));
            self.pass_on(stdout, row);
        });
        process.wait()
    }

    fn pass_on(&self, pipe: OwnedFd, row: Row) {
        let mut pipe = File::from(pipe);
        let mut buffer = vec![0u8; 16 * 1024];
        let mut mask = self.tools.needles.mask();
        let send = |bytes: Vec<u8>| {
            if !bytes.is_empty() {
                self.tools.reporter.send(Event::Output { row, bytes });
            }
        };
        // The pipe closes only after the program has exited.
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            send(mask.pass(&buffer[..count]));
        }
        send(mask.finish());
    }
}

/// Creates directories for the mounts of every container in the image, as the reference does for images that run.
fn make_mount_points(below: &Stack, active: &Active) -> Result<(), CallError> {
    for name in ["dev", "proc", "sys"] {
        if !below.has_at_root(name)? {
            let path = active.upper().join(name);
            std::fs::create_dir(&path).call("mkdir", &path)?;
        }
    }
    Ok(())
}

fn command(exec: &Exec) -> String {
    quote(&exec.arguments.join(" "))
}

/// Error of a failed start: a program for another architecture needs an emulator.
fn start_error(exec: &Exec, source: SpawnError) -> StepError {
    let is_foreign = matches!(
        &source,
        SpawnError::Setup(error) if error.stage == Stage::Exec && error.errno == Errno::NOEXEC.raw_os_error()
    );
    match exec.platform.as_ref().filter(|_| is_foreign) {
        Some(platform) => StepError::Foreign {
            command: command(exec),
            platform: platform.to_string(),
            handler: format!("qemu-{}", qemu_name(&platform.architecture)),
        },
        None => StepError::Start { command: command(exec), source, hints: Box::default() },
    }
}

/// QEMU's name of an architecture.
fn qemu_name(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "mips64le" => "mips64el",
        "mipsle" => "mipsel",
        "loong64" => "loongarch64",
        other => other,
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), CallError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call("pipe", "output")
}

fn step_spec(exec: &Exec, more: &[String], root: PathBuf) -> Spec {
    let mut spec = spec::default(root);
    spec.set_hostname(Some(exec.hostname.clone()));
    if let Some(size) = exec.limits.shm_size {
        spec::set_shm_size(&mut spec, size);
    }
    if exec.is_insecure {
        spec::make_insecure(&mut spec);
        device::add_loops(&mut spec);
    }
    let process = spec.process_mut().get_or_insert_default();
    let environment = exec.environment.iter().chain(&exec.proxies).chain(more).cloned().collect();
    process
        .set_args(Some(exec.arguments.clone()))
        .set_rlimits(rlimits(&exec.limits.ulimits))
        .set_env(Some(environment))
        .set_cwd(PathBuf::from(&exec.dir));
    spec
}

/// Resource limits by Docker's names, which are those of the specification in lower case; the last of two limits for
/// one resource applies.
fn rlimits(ulimits: &[(String, u64, u64)]) -> Option<Vec<PosixRlimit>> {
    let limit = |(name, soft, hard): &(String, u64, u64)| {
        let kind = format!("RLIMIT_{}", name.to_uppercase()).parse::<PosixRlimitType>().ok()?;
        PosixRlimitBuilder::default().typ(kind).soft(*soft).hard(*hard).build().ok()
    };
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for new in ulimits.iter().filter_map(limit) {
        limits.retain(|old| old.typ() != new.typ());
        limits.push(new);
    }
    (!limits.is_empty()).then_some(limits)
}

/// Leaves the container in the network namespace of the host.
fn stay_in_network(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else { return };
    if let Some(namespaces) = linux.namespaces_mut() {
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    }
}

/// Writes the script of a heredoc into a new directory, and returns the directory.
#[expect(clippy::disallowed_methods, reason = "a new file in a directory of this step")]
fn write_script(dir: &Path, row: Row, name: &str, content: &str) -> Result<PathBuf, CallError> {
    let dir = dir.join(format!("script-{}", row.0));
    std::fs::create_dir(&dir).call("mkdir", &dir)?;
    // The name comes from the Dockerfile and is arbitrary: the file must stay in this directory.
    let path = dir.join(name.replace('/', "_"));
    std::fs::write(&path, content).call("write", &path)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).call("chmod", &path)?;
    Ok(dir)
}
