//! The helper: a process with one thread and a small address space that creates all containers.
//!
//! A program with threads must not run ordinary code between `clone` and `exec`: a lock may be held by a thread that
//! the child does not have. The helper is forked before the second thread exists, receives requests over a socket,
//! creates each container with one `clone3`, is the parent of them all and reports their exits. When its own parent has
//! ended, for any reason, it kills the remaining containers and exits. Processes that were released run on: it stays
//! their parent, because a process that nothing reaps would keep its pid namespace from ending.

use crate::init;
use crate::launch::{clone_error, launch_between};
use crate::message::{receive, send};
use crate::network::make_namespace;
use crate::op::{Bytes, FdSlot, Plan, SetupError, Stage};
use crate::process::SpawnError;
use crate::sys::{self, Child, CloneFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// Request to the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Creates a container. Descriptors: plan, status, standard input, output, error, then the plan's slots.
    Spawn { id: u64 },
    /// Creates a network namespace.
    MakeNetwork { id: u64 },
    /// Leaves a process running when the parent has ended. Descriptor: the master of its terminal, if it has one.
    Release { id: u64 },
}

/// Message from the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The container exists; its pidfd is attached.
    Spawned { id: u64, pid: i32 },
    /// The container could not be created.
    NotSpawned { id: u64, error: SetupError },
    /// The container's first process ended: exit code, or 128 plus the signal.
    Exited { id: u64, code: i32 },
    /// The network namespace exists; it and a routing socket inside it are attached.
    Network { id: u64 },
    /// The network namespace could not be created.
    NoNetwork { id: u64, errno: i32 },
}

/// A container that has not been reaped.
struct Running {
    id: u64,
    pidfd: OwnedFd,
    /// True when it runs on after the end of the parent.
    is_released: bool,
    /// Master of the terminal of a released process: closed, it would end the process.
    console: Option<OwnedFd>,
}

/// Serves requests until the other end is closed; never returns.
pub(crate) fn serve(socket: OwnedFd) -> ! {
    // Detected here, the facts are known in all containers, which are copies of this process.
    crate::host::Host::get();
    let mut helper = Helper { socket, running: Vec::new() };
    while helper.turn() {}
    helper.end()
}

struct Helper {
    socket: OwnedFd,
    running: Vec<Running>,
}

impl Helper {
    /// Waits for one event and handles it; false when the parent has ended.
    fn turn(&mut self) -> bool {
        let mut polled: Vec<PollFd<'_>> = vec![PollFd::new(&self.socket, PollFlags::IN)];
        polled.extend(self.running.iter().map(|running| PollFd::new(&running.pidfd, PollFlags::IN)));
        if let Err(errno) = rustix::event::poll(&mut polled, None) {
            return errno == Errno::INTR;
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(polled);
        self.reap(&ready[1..]);
        if !ready[0] {
            return true;
        }
        match receive::<Request>(self.socket.as_fd()) {
            Ok(Some((request, fds))) => {
                self.handle(&request, fds);
                true
            }
            _ => false,
        }
    }

    fn reap(&mut self, ready: &[bool]) {
        let mut ended = Vec::new();
        let mut index = 0;
        self.running.retain(|running| {
            let is_ready = ready.get(index).copied().unwrap_or(false);
            index += 1;
            match is_ready.then(|| sys::wait_pidfd(running.pidfd.as_fd())) {
                Some(Ok(Some(code))) => ended.push((running.id, code)),
                Some(Err(_)) => ended.push((running.id, 255)),
                _ => return true,
            }
            false
        });
        for (id, code) in ended {
            let _ = send(self.socket.as_fd(), &Reply::Exited { id, code }, &[]);
        }
    }

    fn handle(&mut self, request: &Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Spawn { id } => match self.spawn(fds) {
                Ok((pid, pidfd)) => {
                    let _ = send(self.socket.as_fd(), &Reply::Spawned { id: *id, pid }, &[pidfd.as_fd()]);
                    self.running.push(Running { id: *id, pidfd, is_released: false, console: None });
                }
                Err(error) => {
                    let _ = send(self.socket.as_fd(), &Reply::NotSpawned { id: *id, error }, &[]);
                }
            },
            Request::MakeNetwork { id } => match make_namespace() {
                Ok((namespace, routing)) => {
                    let reply = Reply::Network { id: *id };
                    let _ = send(self.socket.as_fd(), &reply, &[namespace.as_fd(), routing.as_fd()]);
                }
                Err(errno) => {
                    let reply = Reply::NoNetwork { id: *id, errno: errno.raw_os_error() };
                    let _ = send(self.socket.as_fd(), &reply, &[]);
                }
            },
            Request::Release { id } => {
                if let Some(running) = self.running.iter_mut().find(|running| running.id == *id) {
                    running.is_released = true;
                    running.console = fds.into_iter().next();
                }
            }
        }
    }

    fn spawn(&mut self, fds: Vec<OwnedFd>) -> Result<(i32, OwnedFd), SetupError> {
        let fail = |call: &str, errno: Errno| SetupError {
            stage: Stage::Clone,
            call: call.to_owned(),
            on: Bytes::from(""),
            errno: errno.raw_os_error(),
            message: None,
        };
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| fail("recvmsg", Errno::BADMSG));
        let (plan, status, stdin, stdout, stderr) = (next()?, next()?, next()?, next()?, next()?);
        let slots: Vec<OwnedFd> = fds.collect();
        let plan = read_plan(plan).map_err(|errno| fail("read", errno))?;
        if !plan.joined.is_empty() {
            let launched = launch_between(plan, slots, status, Some([stdin, stdout, stderr]));
            return launched.map(|launched| (launched.pid, launched.pidfd)).map_err(|error| match error {
                SpawnError::Setup(error) => error,
                _ => fail("clone", Errno::IO),
            });
        }
        let cgroup = plan.cgroup.and_then(|FdSlot(slot)| slots.get(slot)).map(AsFd::as_fd);
        let made = sys::clone(CloneFlags(plan.namespaces), cgroup);
        match made.map_err(|errno| clone_error(plan.namespaces, errno))? {
            Child::There { pid, pidfd } => Ok((pid, pidfd)),
            Child::Here => {
                // With a copy of the socket in the container, the end of the helper would go unnoticed.
                let _ = rustix::io::dup3(&stdin, &mut self.socket, rustix::io::DupFlags::CLOEXEC);
                let _ = rustix::stdio::dup2_stdin(&stdin);
                let _ = rustix::stdio::dup2_stdout(&stdout);
                let _ = rustix::stdio::dup2_stderr(&stderr);
                // The container is killed when the helper ends for any reason.
                init::run(plan, slots, status, None, true)
            }
        }
    }

    /// Kills and reaps the remaining containers, waits for the ends of released processes, then ends the helper.
    fn end(mut self) -> ! {
        let (released, ended): (Vec<Running>, Vec<Running>) =
            self.running.drain(..).partition(|running| running.is_released);
        for running in &ended {
            let _ = rustix::process::pidfd_send_signal(&running.pidfd, Signal::KILL);
        }
        for running in ended {
            while let Ok(None) = sys::wait_pidfd(running.pidfd.as_fd()) {
                let mut polled = [PollFd::new(&running.pidfd, PollFlags::IN)];
                let _ = rustix::event::poll(&mut polled, None);
            }
        }
        outlive(released);
        std::process::exit(0)
    }
}

/// Reads and drops the output of released processes until all have ended.
fn outlive(mut released: Vec<Running>) {
    let mut buffer = [0; 4096];
    while !released.is_empty() {
        let polled = released.iter().flat_map(|running| [Some(&running.pidfd), running.console.as_ref()]);
        let mut polled: Vec<PollFd<'_>> = polled.flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        // After an interruption nothing is ready, and the loop looks again.
        let _ = rustix::event::poll(&mut polled, None);
        drop(polled);
        released.retain(|running| matches!(sys::wait_pidfd(running.pidfd.as_fd()), Ok(None)));
        for running in &mut released {
            let Some(console) = &running.console else { continue };
            let mut ready = [PollFd::new(console, PollFlags::IN)];
            let is_ready =
                rustix::event::poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0);
            // A terminal that no process has open is an input/output error: it is of no more use.
            if is_ready && !matches!(rustix::io::read(console, &mut buffer), Ok(1..)) {
                running.console = None;
            }
        }
    }
}

fn read_plan(memory: OwnedFd) -> Result<Plan, Errno> {
    let mut json = Vec::new();
    let mut file = std::fs::File::from(memory);
    std::io::Seek::rewind(&mut file).map_err(|_| Errno::IO)?;
    file.read_to_end(&mut json).map_err(|_| Errno::IO)?;
    serde_json::from_slice(&json).map_err(|_| Errno::BADMSG)
}
