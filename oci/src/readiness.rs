//! Telling a service manager that the program in a container is ready (sd_notify(3)).
//!
//! Whoever wants to be told names a socket in `NOTIFY_SOCKET`. The container does not get that one, over which it could
//! say much more: it gets a socket of ours, and that it is ready is all that is passed on.

use crate::error::OciError;
use oci_spec::runtime::{Mount, Spec};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directory in that of the container's state, and the socket in it.
const NAME: &str = "notify";
const READY: &str = "READY=1";

/// Somebody who is to be told.
#[derive(Debug)]
pub(crate) struct Readiness {
    manager: PathBuf,
    dir: PathBuf,
}

impl Readiness {
    /// Of the container whose state is in a directory; `None` when nobody wants to be told. Sockets without a file cannot be
    /// shown in containers.
    pub(crate) fn wanted(state: &Path) -> Option<Readiness> {
        let manager = PathBuf::from(std::env::var_os("NOTIFY_SOCKET")?);
        manager.is_absolute().then(|| Readiness { manager, dir: state.join(NAME) })
    }

    /// Shows the container a directory in the manager's socket's place, and names the socket that is going to be there.
    pub(crate) fn show(&self, spec: &mut Spec) -> Result<(), OciError> {
        fs::create_dir(&self.dir).map_err(OciError::file("make", &self.dir))?;
        // Root in there may be somebody else.
        fs::set_permissions(&self.dir, PermissionsExt::from_mode(0o755))
            .map_err(OciError::file("open to others", &self.dir))?;
        let mut mount = Mount::default();
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
        mount
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(self.dir.clone()))
            .set_destination(self.manager.clone())
            .set_options(Some(options));
        spec.mounts_mut().get_or_insert_default().push(mount);
        if let Some(process) = spec.process_mut() {
            let entry = format!("NOTIFY_SOCKET={}", self.manager.join(NAME).display());
            process.env_mut().get_or_insert_default().push(entry);
        }
        Ok(())
    }

    /// The socket, before the program runs; `None` for a container that was made when nobody wanted to be told.
    pub(crate) fn listen(&self) -> Result<Option<OwnedFd>, OciError> {
        let path = self.dir.join(NAME);
        let failed = |errno: rustix::io::Errno| OciError::file("make", &path)(errno.into());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&self.dir, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, kind, None);
        let socket = socket.map_err(failed)?;
        // Names of sockets are short: the directory is named by a descriptor.
        let short = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
        let address = SocketAddrUnix::new(short).map_err(failed)?;
        rustix::net::bind(&socket, &address).map_err(failed)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666))
            .map_err(OciError::file("open to others", &path))?;
        Ok(Some(socket))
    }

    /// Hears what the container has to say. True when that was that it is ready: then the manager has been told.
    pub(crate) fn hear(&self, socket: &OwnedFd) -> bool {
        const LONGEST: usize = 4096;
        let mut message = [0u8; LONGEST];
        while let Ok((length, _)) = rustix::net::recv(socket, &mut message, RecvFlags::empty()) {
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == READY.as_bytes()) {
                self.tell();
                return true;
            }
        }
        false
    }

    /// A manager that is gone needs to know nothing.
    fn tell(&self) {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        if let (Ok(socket), Ok(address)) = (socket, SocketAddrUnix::new(&self.manager)) {
            let _ = rustix::net::sendto(&socket, READY.as_bytes(), SendFlags::NOSIGNAL, &address);
        }
    }

    /// Waits until the container is ready, or has ended.
    pub(crate) fn wait(&self, socket: &OwnedFd, pidfd: &OwnedFd) {
        loop {
            let mut polled = [PollFd::new(socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let has_ended = !polled[1].revents().is_empty();
            if self.hear(socket) || has_ended {
                return;
            }
        }
    }
}
