//! Start of the process that serves names, and the way to it.

use super::super::{NetworkError, file};
use super::serve::Server;
use kiln_runtime::{fork_process, message};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, WaitId, WaitIdOptions, waitid};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SOCKET: &str = "socket";
/// Longest wait for the process, which is a sign that it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before the next attempt to reach a process that another one starts, or that is about to end.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

/// Connects with the process. `None` when there is none.
pub(super) fn reach(dir: &Path) -> Result<Option<OwnedFd>, NetworkError> {
    let reached = || -> Result<OwnedFd, Errno> {
        let (address, _dir) = address(dir)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &address)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(socket)
    };
    match reached() {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        Err(errno) => Err(NetworkError::Names("reach", errno)),
    }
}

/// Forks the process; returns true when it can be reached, and false when another one is there, or was started at the
/// same time.
pub(super) fn start(dir: &Path, conf: &Path) -> Result<bool, NetworkError> {
    wait_for_threads()?;
    let (dir, conf) = (dir.to_owned(), conf.to_owned());
    // The caller may outlive the process. An intermediate process ends at once, so that the host's init reaps the other.
    let (socket, pidfd) = fork_process(c"kiln-dns", move |starter| {
        let forked = fork_process(c"kiln-dns", move |socket| run(&dir, &conf, socket));
        if forked.is_ok_and(|(socket, _)| has_begun(&socket)) {
            let _ = rustix::net::send(&starter, b"1", SendFlags::NOSIGNAL);
        }
    })?;
    let is_started = has_begun(&socket);
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
    Ok(is_started)
}

/// Waits for the message of a process that has begun, or for its end.
fn has_begun(socket: &OwnedFd) -> bool {
    matches!(message::receive_bytes(socket.as_fd()), Ok(Some(_)))
}

/// Waits for threads that have been joined: the kernel lists them for a moment. A process with others cannot be forked.
fn wait_for_threads() -> Result<(), NetworkError> {
    let threads = || fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    let until = Instant::now() + Duration::from_secs(1);
    while threads() > 1 {
        if Instant::now() > until {
            return Err(NetworkError::Names("start, while other threads run,", Errno::BUSY));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Serves until the last member has left; ends at once when another process serves. `starter` gets a message when this
/// one can be reached.
fn run(dir: &Path, conf: &Path, starter: OwnedFd) {
    let Ok(lock) = lock(dir) else { return };
    let Ok(listener) = listen(dir) else { return };
    // Each container has some descriptors, and each query that is forwarded one.
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    // The directory of the command must not stay in use.
    let _ = rustix::process::chdir("/");
    let Ok(server) = Server::new(dir, conf, listener) else { return };
    let _ = rustix::net::send(&starter, b"1", SendFlags::NOSIGNAL);
    drop(starter);
    server.run();
    // The next one takes the lock after this one has ended, and makes another socket.
    if let Ok((_, opened)) = address(dir) {
        let _ = rustix::fs::unlinkat(&opened, SOCKET, AtFlags::empty());
    }
    drop(lock);
}

fn lock(dir: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let lock = rustix::fs::open(dir.join("lock"), flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

fn listen(dir: &Path) -> Result<OwnedFd, Errno> {
    let (address, opened) = address(dir)?;
    // One that was killed leaves its socket.
    let _ = rustix::fs::unlinkat(&opened, SOCKET, AtFlags::empty());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

/// Address of the process' socket, by a descriptor of its directory: its path can be longer than an address.
fn address(dir: &Path) -> Result<(SocketAddrUnix, OwnedFd), Errno> {
    let opened = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()))?;
    Ok((address, opened))
}

/// Creates the directory of the process.
pub(super) fn make_dir(dir: &Path) -> Result<(), NetworkError> {
    fs::create_dir_all(dir).map_err(file("make", dir))
}
