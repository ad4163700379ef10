//! Carries out a [`Plan`] in the new process, up to running its program.
//!
//! Runs in the child of the single-threaded helper, inside the new namespaces. Every failure is sent to the
//! parent as data. Paths inside the root are resolved by the kernel against a handle on it, never joined as
//! text, and nothing below the root is believed before its handle has been looked at.

mod console;
mod exec;
mod identity;
mod mount;
mod path;

pub(crate) use mount::make_filesystem;

use crate::op::{Bytes, FdSlot, Plan, SetupError, SetupOp, Stage};
use crate::sys;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::IoSlice;

/// What the new process tells its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// It waits to be told to go on.
    Ready,
    /// The master of its terminal comes with this message.
    Console,
    /// Files and folders that had to be made in the image for mounts to go on.
    Stubs(Vec<Bytes>),
    /// Setting up failed; the process ends.
    Failed(SetupError),
}

/// The state of a container being set up.
pub(crate) struct Init {
    slots: Vec<OwnedFd>,
    status: OwnedFd,
    root: Option<OwnedFd>,
    /// An empty read-only folder that hides others, once one was needed.
    empty: Option<OwnedFd>,
    /// A handle on /proc that the image cannot have tampered with.
    proc: Option<OwnedFd>,
    stubs: Vec<Bytes>,
    environment: Vec<Bytes>,
    terminal: Option<OwnedFd>,
    keeps_capabilities: bool,
}

/// A failed call with what it was called on.
pub(crate) struct Failed {
    call: &'static str,
    on: Bytes,
    errno: Errno,
    message: Option<String>,
}

pub(crate) type Done<T = ()> = Result<T, Failed>;

/// Names a failed call after the fact.
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

/// Sets up and runs; never returns.
pub(crate) fn run(plan: Plan, slots: Vec<OwnedFd>, status: OwnedFd) -> ! {
    // What is made for the container has the modes that the plan says; the program gets its own mask.
    let _ = rustix::process::umask(rustix::fs::Mode::empty());
    let mut init = Init {
        slots,
        status,
        root: None,
        empty: None,
        proc: None,
        stubs: Vec::new(),
        environment: plan.program.environment,
        terminal: None,
        keeps_capabilities: false,
    };
    let error = match init.set_up(&plan.setup) {
        Ok(()) => init.exec(&plan.program.arguments),
        Err(error) => error,
    };
    init.send(&Status::Failed(error), None);
    std::process::exit(1)
}

impl Init {
    fn set_up(&mut self, setup: &[SetupOp]) -> Result<(), SetupError> {
        for op in setup {
            let stage = match op {
                SetupOp::FindUser(_) | SetupOp::User(_) => Stage::User,
                SetupOp::WorkingFolder(_) | SetupOp::MakeFolder { .. } => Stage::WorkingFolder,
                _ => Stage::Setup,
            };
            self.carry_out(op).map_err(|failed| failed.at(stage))?;
        }
        if !self.stubs.is_empty() {
            let stubs = std::mem::take(&mut self.stubs);
            self.send(&Status::Stubs(stubs), None);
        }
        Ok(())
    }

    fn carry_out(&mut self, op: &SetupOp) -> Done {
        use rustix::{fs, system, thread};
        match op {
            SetupOp::WaitForGo => self.wait_for_go(),
            SetupOp::Join(slot) => {
                thread::move_into_link_name_space(self.slot(*slot)?, None).call("setns", "")
            }
            SetupOp::JoinPath(path) => {
                let flags = fs::OFlags::RDONLY | fs::OFlags::CLOEXEC;
                let namespace =
                    fs::open(path.as_path(), flags, fs::Mode::empty()).call("open", path.clone())?;
                thread::move_into_link_name_space(namespace.as_fd(), None).call("setns", path.clone())
            }
            SetupOp::Unshare(flags) => sys::unshare(*flags).call("unshare", ""),
            SetupOp::Hostname(name) => {
                system::sethostname(name.as_bytes()).call("sethostname", name.as_str())
            }
            SetupOp::Domainname(name) => {
                system::setdomainname(name.as_bytes()).call("setdomainname", name.as_str())
            }
            SetupOp::Propagation(bits) => mount::propagate(*bits),
            SetupOp::Root(root) => self.mount_root(root),
            SetupOp::Mount(op) => self.mount(op),
            SetupOp::Device(op) => self.device(op),
            SetupOp::Link { target, path } => self.link(target, path),
            SetupOp::Console(size) => self.console(*size),
            SetupOp::Pivot => self.pivot(),
            SetupOp::ReadonlyRoot => self.readonly_root(),
            SetupOp::Sysctl { name, value } => self.sysctl(name, value),
            SetupOp::Readonly(path) => self.readonly(path),
            SetupOp::Mask(path) => self.mask(path),
            SetupOp::Limit { resource, soft, hard, clamp } => identity::limit(resource, *soft, *hard, *clamp),
            SetupOp::OomScore(score) => {
                self.write_proc("self/oom_score_adj", &score.to_string()).call("write", "oom_score_adj")
            }
            SetupOp::NewKeyring => match sys::join_new_session_keyring() {
                // Kernels without keyrings, and filters that forbid them, are fine.
                Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::DQUOT) => Ok(()),
                Err(errno) => Err(errno).call("keyctl", ""),
            },
            SetupOp::MakeFolder { path, mode } => self.make_folder(path, *mode),
            SetupOp::FindUser(user) => self.find_user(user),
            SetupOp::User(ids) => self.become_user(ids),
            SetupOp::WorkingFolder(path) => self.working_folder(path),
            SetupOp::Bounding(bounding) => identity::drop_bounding(*bounding),
            SetupOp::Capabilities(op) => identity::capabilities(*op),
            SetupOp::NoNewPrivileges => thread::set_no_new_privs(true).call("prctl", "PR_SET_NO_NEW_PRIVS"),
            SetupOp::Seccomp { program, flags } => sys::install_seccomp(program, *flags).call("seccomp", ""),
            SetupOp::Umask(mask) => {
                let _ = rustix::process::umask(fs::Mode::from_raw_mode(*mask));
                Ok(())
            }
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

    fn wait_for_go(&self) -> Done {
        self.send(&Status::Ready, None);
        let mut byte = [0u8];
        loop {
            match rustix::io::read(&self.status, &mut byte) {
                Ok(1) => return Ok(()),
                Err(Errno::INTR) => {}
                // The parent is gone: nobody wants this container any more.
                Ok(_) => std::process::exit(1),
                Err(errno) => return Err(errno).call("read", "status"),
            }
        }
    }

    fn send(&self, status: &Status, fd: Option<BorrowedFd<'_>>) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
        let Ok(json) = serde_json::to_vec(status) else { return };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        // A parent that does not listen any more has no use for the message.
        let _ = rustix::net::sendmsg(&self.status, &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL);
    }
}
