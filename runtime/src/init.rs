//! Carries out a [`Plan`] in the new process, up to running its program.
//!
//! Runs in the child of the single-threaded helper, inside the new namespaces. Every failure is sent to the parent as
//! data. Paths inside the root are resolved by the kernel relative to its file descriptor, never joined as text, and no
//! file below the root is trusted before its descriptor has been checked.

mod console;
mod copy;
mod exec;
mod gate;
pub(crate) mod hook;
mod identity;
mod mount;
mod path;
pub(crate) mod time;
pub(crate) mod word;

pub(crate) use exec::why_not_executable;
pub(crate) use identity::{limit_of, stay_on};

use crate::detached::{self, Space};
use crate::op::{Bytes, FdSlot, FilesystemMount, Plan, Point, SetupError, SetupOp, Stage, describe_errno};
use crate::sys;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::IoSlice;

/// As many processors as a set can hold.
const ALL_PROCESSORS: [u32; 1024] = {
    let mut all = [0; 1024];
    let mut number = 0;
    while number < all.len() {
        all[number] = number as u32;
        number += 1;
    }
    all
};

/// Message from the new process to its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// The process waits for a message of its parent.
    Waits(Point),
    /// Set-up is done; the process waits to be started.
    Created,
    /// The filter's listener for calls is attached to this message.
    Listener,
    /// The master of its terminal is attached to this message.
    Console,
    /// Set-up failed; the process ends.
    Failed(SetupError),
}

/// State of a container during set-up.
pub(crate) struct Init {
    slots: Vec<OwnedFd>,
    status: OwnedFd,
    root: Option<OwnedFd>,
    /// Empty read-only directories that hide others.
    empty: mount::Covers,
    /// Null devices that hide files.
    null: mount::Covers,
    /// True when a new /proc is mounted, whose entries are known.
    has_proc: bool,
    /// Directory in which a file was created last.
    dir: Option<path::Dir>,
    /// Mount target of the last tmpfs.
    tmpfs: Option<Bytes>,
    /// Gate of the container, once it waits to be started.
    gate: Option<OwnedFd>,
    /// File descriptors that are closed before exec, many at once.
    left: Vec<OwnedFd>,
    /// File descriptor of a /proc that the image cannot have tampered with.
    proc: Option<OwnedFd>,
    environment: Vec<Bytes>,
    has_terminal: bool,
    arguments: Vec<Bytes>,
    kept_fds: u32,
    /// The program is executed by a file descriptor.
    by_handle: bool,
    /// Owner of the current mount namespace: this process, once the propagation of its mounts has been set.
    space: Space,
    /// True when the mount namespace is new, not one that contains other processes.
    owns_mounts: bool,
    /// True when the root was the last directory entered.
    is_at_root: bool,
    /// True once the working directory has been entered.
    is_in_working_dir: bool,
    /// True once the preparations for exec are done.
    is_prepared: bool,
    /// Whether the program is killed when its parent ends.
    dies_with_parent: bool,
    /// State of the container for hooks, once the parent has sent it.
    state: Vec<u8>,
    /// System call filter that the parent sent without a request, if it compiles the filter.
    filter: Vec<u8>,
}

/// A failed call and its object.
pub(crate) struct Failed {
    /// Name of the call.
    pub(crate) call: &'static str,
    /// The path or name that it was called with.
    pub(crate) on: Bytes,
    /// Errno of the call.
    pub(crate) errno: Errno,
    /// Message to report instead of the call and its error, where more is known.
    pub(crate) message: Option<String>,
}

pub(crate) type Done<T = ()> = Result<T, Failed>;

/// Adds call and object to an errno.
pub(crate) trait Named<T> {
    fn call(self, call: &'static str, on: impl Into<Bytes>) -> Done<T>;
}

impl<T> Named<T> for Result<T, Errno> {
    fn call(self, call: &'static str, on: impl Into<Bytes>) -> Done<T> {
        self.map_err(|errno| Failed { call, on: on.into(), errno, message: None })
    }
}

impl Failed {
    fn saying(on: impl Into<Bytes>, message: impl Into<String>) -> Failed {
        Failed { call: "setup", on: on.into(), errno: Errno::INVAL, message: Some(message.into()) }
    }

    /// Sets a message that names the mount's source and target.
    pub(crate) fn mounting(self, what: &str, target: &Bytes) -> Failed {
        self.trying(&format!("mount {what} on `{}`", target.as_path().display()))
    }

    /// Sets a message that names the purpose of the call instead of its name.
    fn trying(self, what: &str) -> Failed {
        let why = self.message.unwrap_or_else(|| describe_errno(self.errno.raw_os_error()));
        Failed { message: Some(format!("cannot {what}: {why}")), ..self }
    }

    pub(crate) fn at(self, stage: Stage) -> SetupError {
        SetupError {
            stage,
            call: self.call.to_owned(),
            on: self.on,
            errno: self.errno.raw_os_error(),
            message: self.message,
        }
    }
}

/// Sets up and runs the program; never returns. `proc` is the host's /proc, if that can no longer be reached by its
/// path.
pub(crate) fn run(
    plan: Plan,
    slots: Vec<OwnedFd>,
    status: OwnedFd,
    proc: Option<OwnedFd>,
    dies_with_parent: bool,
) -> ! {
    // Files created for the container get exactly the modes of the plan; the program gets its own mask.
    let _ = rustix::process::umask(rustix::fs::Mode::empty());
    // A process that enters a container must not bring file descriptors that the container's processes could open.
    let slots = if plan.setup.contains(&SetupOp::PresentRoot) { Vec::new() } else { slots };
    let mut init = Init {
        slots,
        status,
        root: None,
        empty: mount::Covers::default(),
        null: mount::Covers::default(),
        has_proc: false,
        dir: None,
        tmpfs: None,
        gate: None,
        left: Vec::new(),
        proc,
        environment: plan.program.environment,
        has_terminal: false,
        arguments: plan.program.arguments,
        kept_fds: plan.program.kept_fds,
        by_handle: plan.program.by_handle,
        space: Space::Shared,
        owns_mounts: plan.namespaces & libc::CLONE_NEWNS as u64 != 0,
        is_at_root: false,
        is_in_working_dir: false,
        is_prepared: false,
        dies_with_parent,
        state: Vec::new(),
        filter: Vec::new(),
    };
    let error = match init.set_up(&plan.setup) {
        Ok(()) => init.exec(),
        Err(error) => error,
    };
    init.send(&Status::Failed(error), None);
    std::process::exit(1)
}

/// Reports that set-up failed, and ends the process.
pub(crate) fn fail(status: &OwnedFd, error: SetupError) -> ! {
    send(status, &Status::Failed(error), None);
    std::process::exit(1)
}

/// True when any operation of `setup` writes below /proc.
pub(crate) fn writes_proc(setup: &[SetupOp]) -> bool {
    let writes =
        |op: &SetupOp| matches!(op, SetupOp::Sysctl { .. } | SetupOp::OomScore(_) | SetupOp::Label { .. });
    setup.iter().any(writes)
}

/// Opens a detached /proc: nothing is mounted over it, and its `..` leads nowhere. Where none can be mounted, opens the
/// host's /proc while its path still leads there, and checks it.
pub(crate) fn open_proc() -> Result<OwnedFd, Errno> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let fresh = FilesystemMount {
        fstype: "proc".to_owned(),
        source: "proc".to_owned(),
        options: Vec::new(),
        attributes: 0,
    };
    if let Ok(proc) = detached::filesystem(&fresh, Space::Shared) {
        return Ok(proc);
    }
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", flags, rustix::fs::Mode::empty())?;
    if rustix::fs::fstatfs(&proc)?.f_type == PROC_SUPER_MAGIC { Ok(proc) } else { Err(Errno::NOENT) }
}

impl Init {
    fn set_up(&mut self, setup: &[SetupOp]) -> Result<(), SetupError> {
        // Labels, scores and kernel parameters are written after the root has changed, when /proc may be
        // anything: this handle is on the host's own (CVE-2019-19921, CVE-2025-52881).
        if self.proc.is_none() && writes_proc(setup) {
            let proc = open_proc().call("open", "/proc");
            self.proc = Some(proc.map_err(|failed| failed.at(Stage::Setup))?);
        }
        for op in setup {
            let stage = match op {
                SetupOp::FindUser { .. } | SetupOp::User { .. } => Stage::User,
                SetupOp::FindProgram => {
                    self.find_program()?;
                    continue;
                }
                SetupOp::Seccomp { .. } => {
                    self.prepare_exec()?;
                    Stage::Setup
                }
                SetupOp::TryWorkingDir(_) | SetupOp::WorkingDir(_) | SetupOp::MakeDir { .. } => {
                    Stage::WorkingDir
                }
                _ => Stage::Setup,
            };
            self.carry_out(op).map_err(|failed| failed.at(stage))?;
        }
        Ok(())
    }

    fn carry_out(&mut self, op: &SetupOp) -> Done {
        use rustix::{system, thread};
        match op {
            SetupOp::Wait(point) => self.wait(*point),
            SetupOp::NewTime(clocks) => time::enter_new(clocks),
            SetupOp::BecomeRoot => identity::become_root_of_namespace(),
            SetupOp::HideProcess => identity::hide_process(),
            SetupOp::Join(slot) => {
                thread::move_into_link_name_space(self.slot(*slot)?, None).call("setns", "")
            }
            SetupOp::JoinPath { kind, path } => join_path(*kind, path),
            SetupOp::LoopbackUp => {
                let socket = sys::bring_up_loopback().call("ioctl", "lo")?;
                self.leave(socket);
                Ok(())
            }
            SetupOp::Unshare(flags) => sys::unshare(*flags).call("unshare", ""),
            SetupOp::Hostname(name) => {
                system::sethostname(name.as_bytes()).call("sethostname", name.as_str())
            }
            SetupOp::Domainname(name) => {
                system::setdomainname(name.as_bytes()).call("setdomainname", name.as_str())
            }
            SetupOp::Propagation(bits) => self.propagate(*bits),
            SetupOp::Root(root) => self.mount_root(root),
            SetupOp::Mount(op) => self.mount(op),
            SetupOp::Hierarchies(op) => self.hierarchies(op),
            SetupOp::EnterCgroups { tasks, is_required } => enter_cgroups(tasks, *is_required),
            SetupOp::Device(op) => self.device(op),
            SetupOp::Link { target, path } => self.link(target, path),
            SetupOp::Console { size, bind, plain } => self.console(*size, *bind, *plain),
            SetupOp::PresentRoot => self.take_present_root(),
            SetupOp::Pivot { by_moving } => self.pivot(*by_moving),
            SetupOp::RootPropagation { bits, recursive } => self.propagate_root(*bits, *recursive),
            SetupOp::ReadonlyRoot => self.readonly_root(),
            SetupOp::Sysctl { name, value } => self.sysctl(name, value),
            SetupOp::Readonly(path) => self.readonly(path),
            SetupOp::Mask(path) => self.mask(path),
            SetupOp::Limit { resource, soft, hard, clamp } => identity::limit(resource, *soft, *hard, *clamp),
            SetupOp::OomScore(score) => self.oom_score(*score),
            SetupOp::Personality(persona) => sys::set_personality(*persona).call("personality", ""),
            SetupOp::Scheduler(op) => identity::schedule(*op),
            SetupOp::IoPriority { class, priority } => {
                sys::set_io_priority(*class, *priority).call("ioprio_set", "")
            }
            SetupOp::Affinity(processors) => identity::stay_on(processors),
            // Without that privilege it stays on its processors.
            SetupOp::AnyProcessor => identity::stay_on(&ALL_PROCESSORS).or(Ok(())),
            SetupOp::MemoryPolicy { mode, nodes } => identity::memory_policy(*mode, nodes),
            SetupOp::Label { file, value } => self.label(file, value),
            SetupOp::Hooks { name, hooks } => self.run_hooks(name, hooks),
            // Reports its failure itself; see above.
            SetupOp::FindProgram => Ok(()),
            SetupOp::Gate(slot) => self.wait_at_gate(*slot),
            SetupOp::Home(uid) => self.set_home(*uid),
            SetupOp::NewKeyring => identity::new_keyring(),
            SetupOp::MakeDir { path, mode } => self.make_dir(path, *mode),
            SetupOp::FindUser { user, groups, keep_groups } => self.find_user(user, groups, *keep_groups),
            SetupOp::User { ids, keep_groups } => self.become_user(ids, *keep_groups),
            SetupOp::TryWorkingDir(path) => self.try_working_dir(path),
            SetupOp::WorkingDir(path) => self.working_dir(path),
            SetupOp::Bounding(bounding) => identity::drop_bounding(*bounding),
            SetupOp::Capabilities(op) => identity::capabilities(*op),
            SetupOp::NoNewPrivileges => thread::set_no_new_privs(true).call("prctl", "PR_SET_NO_NEW_PRIVS"),
            SetupOp::Seccomp { program, flags, listens } => self.load_filter(program, *flags, *listens),
            SetupOp::Umask(mask) => identity::umask(*mask),
        }
    }

    fn slot(&self, slot: FdSlot) -> Done<BorrowedFd<'_>> {
        let missing =
            || Failed::saying("", format!("the plan names descriptor {} which was not sent", slot.0));
        self.slots.get(slot.0).map(AsFd::as_fd).ok_or_else(missing)
    }

    fn root(&self) -> Done<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| Failed::saying("/", "the plan mounts no root"))
    }

    fn load_filter(&self, program: &[u64], flags: u32, listens: bool) -> Done {
        let flags = if listens { flags | crate::seccomp::NEW_LISTENER } else { flags };
        let told: Vec<u64>;
        let program = if program.is_empty() {
            let words = self.filter.as_chunks().0.iter();
            told = words.map(|word| u64::from_ne_bytes(*word)).collect();
            &told
        } else {
            program
        };
        if let Some(listener) = sys::install_seccomp(program, flags).call("seccomp", "")? {
            self.send(&Status::Listener, Some(listener.as_fd()));
        }
        Ok(())
    }

    /// Waits for a message of the parent, which contains the container's state or its filter.
    fn wait(&mut self, point: Point) -> Done {
        if !point.is_unasked() {
            self.send(&Status::Waits(point), None);
        }
        match word::receive(&self.status).call("read", "status")? {
            Some(said) if said.is_empty() => {}
            Some(filter) if point.is_unasked() => self.filter = filter,
            Some(state) => self.state = state,
            // The parent has ended: the container is no longer needed.
            None => std::process::exit(1),
        }
        Ok(())
    }

    fn send(&self, status: &Status, fd: Option<BorrowedFd<'_>>) {
        send(&self.status, status, fd);
    }
}

fn send(socket: &OwnedFd, status: &Status, fd: Option<BorrowedFd<'_>>) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let Ok(json) = serde_json::to_vec(status) else { return };
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    // A parent that has closed the socket does not need the message.
    let _ = rustix::net::sendmsg(socket, &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL);
}

/// Moves this process, which has one thread, into the cgroups with these `tasks` files.
fn enter_cgroups(tasks: &[Bytes], is_required: bool) -> Done {
    use rustix::fs::{Mode, OFlags, open};
    for path in tasks {
        let file = open(path.as_path(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        // 0 refers to the thread that writes.
        match file.and_then(|file| rustix::io::write(&file, b"0")) {
            Err(errno) if is_required => return Err(errno).call("write", path.clone()),
            _ => {}
        }
    }
    Ok(())
}

fn join_path(kind: u64, path: &Bytes) -> Done {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::thread::move_into_link_name_space;
    let namespace =
        open(path.as_path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call("open", path.clone())?;
    match move_into_link_name_space(namespace.as_fd(), link_kind(kind)) {
        Err(Errno::INVAL) => Err(Failed::saying(
            path.clone(),
            format!(
                "cannot join `{}`: it is not a namespace of the kind that is named",
                path.as_path().display()
            ),
        )),
        other => other.call("setns", path.clone()),
    }
}

/// Kind of namespace of one `CLONE_NEW…` bit.
pub(crate) fn link_kind(kind: u64) -> Option<rustix::thread::LinkNameSpaceType> {
    use rustix::thread::LinkNameSpaceType;
    match kind as i32 {
        libc::CLONE_NEWNET => Some(LinkNameSpaceType::Network),
        libc::CLONE_NEWUTS => Some(LinkNameSpaceType::HostNameAndNISDomainName),
        libc::CLONE_NEWIPC => Some(LinkNameSpaceType::InterProcessCommunication),
        libc::CLONE_NEWCGROUP => Some(LinkNameSpaceType::ControlGroup),
        libc::CLONE_NEWNS => Some(LinkNameSpaceType::Mount),
        libc::CLONE_NEWUSER => Some(LinkNameSpaceType::User),
        libc::CLONE_NEWPID => Some(LinkNameSpaceType::ProcessID),
        libc::CLONE_NEWTIME => Some(LinkNameSpaceType::Time),
        _ => None,
    }
}
