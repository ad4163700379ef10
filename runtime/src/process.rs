//! The parent's side: starts containers and waits for their ends.

use crate::container::{CallerError, Handed, NoSteps, Steps, follow};
use crate::helper::{self, Reply, Request};
use crate::message;
use crate::network::{self, MakeNetwork};
use crate::op::{Plan, Point, SetupError};
use crate::sys::{self, Child};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};

/// Failure to start a container.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The helper could not be started, or does not answer.
    #[error("cannot {0} the helper process")]
    Helper(&'static str, #[source] Errno),
    /// The helper ended unexpectedly.
    #[error("the helper process ended unexpectedly")]
    HelperGone,
    /// Set-up failed in the container.
    #[error("{0}")]
    Setup(SetupError),
    /// The container's process was killed before it ran its program.
    #[error(
        "the container's first process was killed by signal {0} while it set itself up (a limit of memory that is too low does that)"
    )]
    Killed(i32),
    /// The caller failed to do its part while the container waited.
    #[error(transparent)]
    Caller(CallerError),
}

/// Creates containers through the helper process.
///
/// Cheap to clone; the helper ends with the last clone, or with the process.
#[derive(Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
}

struct Shared {
    socket: OwnedFd,
    helper: Mutex<Option<OwnedFd>>,
    next: AtomicU64,
    waiters: Arc<Mutex<Waiters>>,
    listening: OnceLock<()>,
}

#[derive(Default)]
struct Waiters {
    by_id: HashMap<u64, mpsc::Sender<Event>>,
    /// True when the helper has ended: no more messages arrive.
    closed: bool,
}

/// Message about one container.
enum Event {
    Spawned { pid: i32, pidfd: OwnedFd },
    NotSpawned(SetupError),
    Exited(i32),
    Network { namespace: OwnedFd, routing: OwnedFd },
    NoNetwork(Errno),
}

/// A container to start.
pub struct SpawnRequest<'a> {
    /// Plan to carry out.
    pub plan: &'a Plan,
    /// File descriptors to which the plan refers by slot.
    pub handed: &'a Handed<'a>,
    /// File for standard input.
    pub stdin: BorrowedFd<'a>,
    /// File for standard output.
    pub stdout: BorrowedFd<'a>,
    /// File for standard error.
    pub stderr: BorrowedFd<'a>,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Process {
    id: u64,
    pid: i32,
    pidfd: OwnedFd,
    events: mpsc::Receiver<Event>,
    exit: Option<i32>,
    /// True when it runs on without this value.
    is_released: bool,
    /// Master of its terminal; `None` without one.
    pub console: Option<OwnedFd>,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Event")
    }
}

impl Spawner {
    /// Starts the helper by fork(2).
    ///
    /// Must be called before the program starts its second thread; panics otherwise.
    pub fn start() -> Result<Spawner, SpawnError> {
        let (socket, pidfd) = fork_process(c"kiln-helper", |socket| helper::serve(socket))?;
        Ok(Spawner::over(socket, Some(pidfd)))
    }

    /// Starts the helper by running a program that calls [`serve_standard_input`]: for processes that already have
    /// threads. It costs one exec more than [`Spawner::start`].
    pub fn start_by_exec(mut command: std::process::Command) -> Result<Spawner, SpawnError> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(|errno| SpawnError::Helper("reach", errno))?;
        let child = command.stdin(theirs).spawn();
        let child = child
            .map_err(|error| SpawnError::Helper("run", Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        Ok(Spawner::over(ours, pidfd.ok()))
    }

    fn over(socket: OwnedFd, helper: Option<OwnedFd>) -> Spawner {
        Spawner {
            shared: Arc::new(Shared {
                socket,
                helper: Mutex::new(helper),
                next: AtomicU64::new(1),
                waiters: Arc::default(),
                listening: OnceLock::new(),
            }),
        }
    }

    /// Starts a container and waits until its program runs.
    ///
    /// # Errors
    /// [`SpawnError::Setup`] when set-up fails in the container, [`SpawnError::HelperGone`] when the helper has ended.
    pub fn spawn(&self, request: &SpawnRequest<'_>) -> Result<Process, SpawnError> {
        self.spawn_with(request, &mut NoSteps)
    }

    /// Like [`Spawner::spawn`], with work of the caller at the points where the plan waits. The terminal's master is in
    /// [`Process::console`].
    ///
    /// # Errors
    /// Fails in the cases of [`Spawner::spawn`], and with the errors of `steps`.
    pub fn spawn_with(
        &self,
        request: &SpawnRequest<'_>,
        steps: &mut dyn Steps,
    ) -> Result<Process, SpawnError> {
        let (status, status_there) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| SpawnError::Helper("reach", errno))?;
        let memory = memory_of(request.plan).map_err(|errno| SpawnError::Helper("reach", errno))?;
        let mut fds =
            vec![memory.as_fd(), status_there.as_fd(), request.stdin, request.stdout, request.stderr];
        fds.extend(request.handed.iter());
        let (id, events) = self.ask(|id| Request::Spawn { id }, &fds)?;
        drop(status_there);
        let (pid, pidfd) = match events.recv() {
            Ok(Event::Spawned { pid, pidfd }) => (pid, pidfd),
            Ok(Event::NotSpawned(error)) => return Err(SpawnError::Setup(error)),
            _ => return Err(SpawnError::HelperGone),
        };
        let mut process = Process { id, pid, pidfd, events, exit: None, is_released: false, console: None };
        process.follow_setup(&status, steps)?;
        Ok(process)
    }

    /// Leaves a process running after the end of this one: the helper stays its parent until it ends, reads its terminal,
    /// whose master is `console`, and drops what it reads. Containers that were not released are killed as ever.
    ///
    /// # Errors
    /// [`SpawnError::Helper`] when the helper has ended; the process has ended with it.
    pub fn release(&self, mut process: Process, console: Option<BorrowedFd<'_>>) -> Result<(), SpawnError> {
        let request = Request::Release { id: process.id };
        let fds: Vec<BorrowedFd<'_>> = console.into_iter().collect();
        message::send(self.shared.socket.as_fd(), &request, &fds)
            .map_err(|errno| SpawnError::Helper("reach", errno))?;
        process.is_released = true;
        // The helper outlives this process: nothing waits for its end.
        self.shared.helper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        Ok(())
    }

    fn ask(
        &self,
        request: impl FnOnce(u64) -> Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(u64, mpsc::Receiver<Event>), SpawnError> {
        let shared = &self.shared;
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        {
            let mut waiters = shared.waiters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if waiters.closed {
                return Err(SpawnError::HelperGone);
            }
            waiters.by_id.insert(id, sender);
        }
        shared.listen();
        message::send(shared.socket.as_fd(), &request(id), fds)
            .map_err(|errno| SpawnError::Helper("reach", errno))?;
        Ok((id, receiver))
    }
}

impl MakeNetwork for Spawner {
    fn make_network(&self) -> Result<(OwnedFd, OwnedFd), SpawnError> {
        let (_, events) = self.ask(|id| Request::MakeNetwork { id }, &[])?;
        match events.recv() {
            Ok(Event::Network { namespace, routing }) => Ok((namespace, routing)),
            Ok(Event::NoNetwork(errno)) => Err(network::failed(errno)),
            _ => Err(SpawnError::HelperGone),
        }
    }
}

/// Forks a process with one thread that serves a socket; returns the other end, and the pidfd of the process.
///
/// The process has its own session and no terminal, its standard streams are /dev/null, and all other file descriptors
/// are closed. It ends when `serve` returns. Must be called before the program starts its second thread; panics otherwise.
///
/// # Errors
/// Fails when the process or the socket cannot be created.
pub fn fork_process(
    name: &'static std::ffi::CStr,
    serve: impl FnOnce(OwnedFd),
) -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert_eq!(threads, 1, "a process is forked before the program has threads");
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(|errno| SpawnError::Helper("reach", errno))?;
    match sys::fork().map_err(|errno| SpawnError::Helper("fork", errno))? {
        Child::Here => {
            drop(ours);
            detach(name);
            // Open copies of pipes here would keep their readers from seeing the end.
            serve(sys::keep_only(theirs));
            std::process::exit(0)
        }
        Child::There { pidfd, .. } => Ok((ours, pidfd)),
    }
}

/// Leaves the session, so that no key of a terminal signals this process, and closes the standard streams, so that
/// their readers see the end.
fn detach(name: &std::ffi::CStr) {
    use rustix::fs::{Mode, OFlags};
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(name);
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// Runs as the helper, in the process that has its socket as standard input; never returns.
pub fn serve_standard_input() -> ! {
    match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
        Ok(socket) => {
            detach(c"kiln-helper");
            helper::serve(sys::keep_only(socket))
        }
        Err(_) => std::process::exit(1),
    }
}

impl Shared {
    /// Starts the thread that distributes replies, once.
    fn listen(&self) {
        self.listening.get_or_init(|| {
            let waiters = Arc::clone(&self.waiters);
            let socket = self.socket.try_clone().expect("a descriptor can be duplicated");
            std::thread::Builder::new()
                .name("kiln-replies".to_owned())
                .spawn(move || hand_out_replies(&socket, &waiters))
                .expect("a thread can be started");
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The helper ends when the socket is shut down; after it is reaped, neither it nor its containers remain.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let helper = self.helper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(helper) = helper {
            while let Ok(None) = sys::wait_pidfd(helper.as_fd()) {
                let mut polled = [rustix::event::PollFd::new(&helper, rustix::event::PollFlags::IN)];
                let _ = rustix::event::poll(&mut polled, None);
            }
        }
    }
}

fn hand_out_replies(socket: &OwnedFd, waiters: &Mutex<Waiters>) {
    while let Ok(Some((reply, fds))) = message::receive::<Reply>(socket.as_fd()) {
        let mut fds = fds.into_iter();
        let (id, event, last) = match reply {
            Reply::Spawned { id, pid } => match fds.next() {
                Some(pidfd) => (id, Event::Spawned { pid, pidfd }, false),
                None => continue,
            },
            Reply::NotSpawned { id, error } => (id, Event::NotSpawned(error), true),
            Reply::Exited { id, code } => (id, Event::Exited(code), true),
            Reply::Network { id } => match (fds.next(), fds.next()) {
                (Some(namespace), Some(routing)) => (id, Event::Network { namespace, routing }, true),
                _ => continue,
            },
            Reply::NoNetwork { id, errno } => (id, Event::NoNetwork(Errno::from_raw_os_error(errno)), true),
        };
        let mut waiters = waiters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sender = if last { waiters.by_id.remove(&id) } else { waiters.by_id.get(&id).cloned() };
        if let Some(sender) = sender {
            // The receiver may have stopped waiting.
            let _ = sender.send(event);
        }
    }
    let mut waiters = waiters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    waiters.closed = true;
    waiters.by_id.clear();
}

/// Writes the plan to a memory file: arguments may be larger than a message.
fn memory_of(plan: &Plan) -> Result<OwnedFd, Errno> {
    let json = serde_json::to_vec(plan).map_err(|_| Errno::INVAL)?;
    let memory = rustix::fs::memfd_create("plan", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&json).map_err(|_| Errno::NOMEM)?;
    Ok(file.into())
}

impl Process {
    /// Pid of the first process in the pid namespace of this process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Pidfd of the first process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal to the first process; succeeds when that has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Waits for the end; returns the exit code, or 128 plus the signal.
    pub fn wait(&mut self) -> Result<i32, SpawnError> {
        while self.exit.is_none() {
            match self.events.recv() {
                Ok(Event::Exited(code)) => self.exit = Some(code),
                Ok(_) => {}
                Err(_) => return Err(SpawnError::HelperGone),
            }
        }
        Ok(self.exit.unwrap_or(255))
    }

    /// Serves the new process until its program runs. A process whose set-up fails is reaped.
    fn follow_setup(&mut self, status: &OwnedFd, steps: &mut dyn Steps) -> Result<(), SpawnError> {
        let mut steps = WithConsole { steps, console: &mut self.console };
        // Id maps of user namespaces are written by the parent, which is the helper.
        let followed = follow(status, self.pid, &mut steps, |_| Ok(()));
        if followed.is_err() {
            let _ = self.signal(Signal::KILL);
            self.wait()?;
        }
        // Closed by exec, or by a death that the exit code explains.
        followed.map(drop)
    }
}

/// Keeps the terminal's master, and forwards all other steps to the caller.
struct WithConsole<'a> {
    steps: &'a mut dyn Steps,
    console: &'a mut Option<OwnedFd>,
}

impl Steps for WithConsole<'_> {
    fn reached(&mut self, point: Point, pid: i32) -> Result<Vec<u8>, CallerError> {
        self.steps.reached(point, pid)
    }
    fn console(&mut self, master: OwnedFd) -> Result<(), CallerError> {
        *self.console = Some(master);
        Ok(())
    }
    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<(), CallerError> {
        self.steps.listener(listener, pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_none() && !self.is_released {
            let _ = self.signal(Signal::KILL);
        }
    }
}
