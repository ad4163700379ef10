//! The monitor's side: a container's membership.

use super::super::NetworkError;
use super::super::store::Store;
use super::member::{Files, Member, Stored, User};
use super::process::{self, PATIENCE, PAUSE};
use super::sockets::Sockets;
use super::{Order, Reply};
use kiln_runtime::message;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// File with the name servers of the host.
const CONF: &str = "/etc/resolv.conf";
/// Shortest time between two starts of the process: one that dies again and again must not keep the processor busy.
const REST: Duration = Duration::from_secs(1);

/// Names of a running container, which are served until this is dropped.
#[derive(Debug)]
pub struct Names {
    dir: PathBuf,
    conf: PathBuf,
    files: Files,
    stored: Stored,
    sockets: Sockets,
    link: Link,
    revived: Option<Instant>,
}

/// Connection with the process.
#[derive(Debug)]
enum Link {
    Connected(OwnedFd),
    /// There is none; the next attempt is made when this timer ends.
    Waiting(OwnedFd),
}

/// The connection was closed before a reply.
struct Gone;

impl Names {
    /// Serves names in the network namespace of a container, at 127.0.0.11. Starts the process that does it if there is
    /// none; then the caller must have one thread. `state` is the directory of [`super::super::Bridge::open`].
    ///
    /// For a container whose names are served already, because its monitor was killed, this one takes its part.
    ///
    /// # Errors
    /// Fails when a file, a socket or the packet rules of the container cannot be made, and when the process cannot be
    /// started or does not reply.
    pub fn join(state: &Path, member: &Member, namespace: BorrowedFd<'_>) -> Result<Names, NetworkError> {
        Names::join_with(state, member, namespace, Path::new(CONF))
    }

    /// Like [`Names::join`], with the host's servers in another file than `/etc/resolv.conf`. The one that starts the
    /// process decides.
    ///
    /// # Errors
    /// As [`Names::join`].
    pub fn join_with(
        state: &Path,
        member: &Member,
        namespace: BorrowedFd<'_>,
        conf: &Path,
    ) -> Result<Names, NetworkError> {
        let dir = Store::dir_of(state).join("dns");
        let dir = std::path::absolute(&dir).map_err(super::super::file("find", &dir))?;
        process::make_dir(&dir)?;
        let files = Files::open(&dir)?;
        let user = User::of(rustix::process::getpid().as_raw_pid());
        let stored = Stored { member: member.clone(), user };
        // The monitor of a container that runs was killed if there is a file.
        let is_known = files.read(&member.id).is_some();
        files.write(&stored)?;
        match enter(&dir, conf, &member.id, namespace, is_known) {
            Ok((socket, sockets)) => {
                let (link, conf, revived) = (Link::Connected(socket), conf.to_owned(), None);
                Ok(Names { dir, conf, files, stored, sockets, link, revived })
            }
            Err(error) => {
                files.remove(&member.id);
                Err(error)
            }
        }
    }

    /// Notes the container's process, by its pid and start time in ticks since boot: the names are served as long as it
    /// runs, even when this process is killed.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn note_user(&mut self, pid: i32, ticks: &str) -> Result<(), NetworkError> {
        self.stored.user = User { pid, ticks: ticks.to_owned() };
        self.files.write(&self.stored)
    }

    /// Replaces names, addresses, networks and servers of the container.
    ///
    /// # Errors
    /// Fails when the id differs, when the file cannot be written, and when the process cannot be started again.
    pub fn update(&mut self, member: &Member) -> Result<(), NetworkError> {
        if member.id != self.stored.member.id {
            return Err(NetworkError::BadId(member.id.clone()));
        }
        self.stored.member = member.clone();
        self.files.write(&self.stored)?;
        match &self.link {
            Link::Connected(socket) if ask(socket, &Order::Update, &[]).is_ok() => Ok(()),
            _ => self.revive(),
        }
    }

    /// Descriptor that can be read when [`Names::revive`] is to be called. It changes with each call.
    pub fn watched(&self) -> BorrowedFd<'_> {
        match &self.link {
            Link::Connected(fd) | Link::Waiting(fd) => fd.as_fd(),
        }
    }

    /// Has the names served again by a new process, or by one that another monitor has started. The caller must have
    /// one thread. A process that dies often is not started at once: then, and after an error, the watched descriptor
    /// is a timer.
    ///
    /// # Errors
    /// Fails when the process cannot be started or does not reply.
    pub fn revive(&mut self) -> Result<(), NetworkError> {
        if self.revived.is_some_and(|time| time.elapsed() < REST) {
            self.link = Link::Waiting(timer()?);
            return Ok(());
        }
        self.revived = Some(Instant::now());
        let id = self.stored.member.id.clone();
        let until = Instant::now() + PATIENCE;
        loop {
            let socket = connect(&self.dir, &self.conf, until);
            let socket = match socket {
                Ok(socket) => socket,
                Err(error) => {
                    self.link = Link::Waiting(timer()?);
                    return Err(error);
                }
            };
            if let Ok((Reply::Done, _)) = ask(&socket, &Order::Join { id: id.clone() }, &self.sockets.lend())
            {
                self.link = Link::Connected(socket);
                return Ok(());
            }
            if Instant::now() > until {
                self.link = Link::Waiting(timer()?);
                return Err(NetworkError::Names("use", Errno::TIMEDOUT));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // The namespace, and with it the container's addresses, stays as long as the process has sockets in it.
        if let Link::Connected(socket) = &self.link {
            let _ = ask(socket, &Order::Leave, &[]);
        }
        self.files.remove(&self.stored.member.id);
    }
}

/// Joins: takes the sockets from the process if it has them, or creates them and passes them.
fn enter(
    dir: &Path,
    conf: &Path,
    id: &str,
    namespace: BorrowedFd<'_>,
    mut is_known: bool,
) -> Result<(OwnedFd, Sockets), NetworkError> {
    let until = Instant::now() + PATIENCE;
    let mut made = None;
    while Instant::now() < until {
        let socket = connect(dir, conf, until)?;
        let id = id.to_owned();
        if is_known {
            match ask(&socket, &Order::Take { id }, &[]) {
                Ok((Reply::Done, fds)) => {
                    let sockets = Sockets::of(fds).ok_or(NetworkError::Names("use", Errno::BADMSG))?;
                    return Ok((socket, sockets));
                }
                Ok((Reply::Absent, _)) => is_known = false,
                Err(Gone) => std::thread::sleep(PAUSE),
            }
            continue;
        }
        let sockets = match made.take() {
            Some(sockets) => sockets,
            None => Sockets::make(namespace)?,
        };
        match ask(&socket, &Order::Join { id }, &sockets.lend()) {
            Ok((Reply::Done, _)) => return Ok((socket, sockets)),
            Ok((Reply::Absent, _)) => return Err(NetworkError::Names("join", Errno::BADMSG)),
            // The process was about to end, or was killed.
            Err(Gone) => {
                made = Some(sockets);
                std::thread::sleep(PAUSE);
            }
        }
    }
    Err(NetworkError::Names("use", Errno::TIMEDOUT))
}

/// Connects with the process; starts it if there is none.
fn connect(dir: &Path, conf: &Path, until: Instant) -> Result<OwnedFd, NetworkError> {
    loop {
        if let Some(socket) = process::reach(dir)? {
            return Ok(socket);
        }
        if !process::start(dir, conf)? {
            if Instant::now() > until {
                return Err(NetworkError::Names("reach", Errno::TIMEDOUT));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn ask(socket: &OwnedFd, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), Gone> {
    message::send(socket.as_fd(), order, fds).map_err(|_| Gone)?;
    message::receive(socket.as_fd()).ok().flatten().ok_or(Gone)
}

fn timer() -> Result<OwnedFd, NetworkError> {
    let failed = |errno| NetworkError::Names("wait for", errno);
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).map_err(failed)?;
    let once = Timespec { tv_sec: REST.as_secs() as i64, tv_nsec: 0 };
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value = Itimerspec { it_interval: never, it_value: once };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &value).map_err(failed)?;
    Ok(timer)
}
