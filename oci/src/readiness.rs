//! Readiness of the program in a container, for a service manager (sd_notify(3)).
//!
//! The manager's socket is named in `NOTIFY_SOCKET`. The container does not get that one, over which it could send
//! other messages too: it gets a socket of this runtime, from which only readiness is passed on.

use crate::error::OciError;
use oci_spec::runtime::{Mount, Spec};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Name of the directory in the container's state directory, and of the socket in it.
const NAME: &str = "notify";
const READY: &str = "READY=1";

/// Service manager that waits for readiness.
#[derive(Debug)]
pub(crate) struct Readiness {
    manager: PathBuf,
    dir: PathBuf,
}

impl Readiness {
    /// Service manager of the environment, for the container with the state directory `state`. `None` when no manager
    /// waits. Sockets without a path cannot be mounted into containers, so abstract ones are ignored.
    pub(crate) fn wanted(state: &Path) -> Option<Readiness> {
        let manager = PathBuf::from(std::env::var_os("NOTIFY_SOCKET")?);
        manager.is_absolute().then(|| Readiness { manager, dir: state.join(NAME) })
    }

    /// Mounts a directory into the container at the path of the manager's socket, and sets `NOTIFY_SOCKET` to the
    /// future socket in it.
    pub(crate) fn show(&self, spec: &mut Spec) -> Result<(), OciError> {
        fs::create_dir(&self.dir).map_err(OciError::file("make", &self.dir))?;
        // Root in the container may be another user.
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

    /// Opens the socket, before the program runs. `None` for a container that was created while no manager waited.
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
        // Socket addresses have at most 108 bytes: the directory is addressed by a descriptor.
        let short = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
        let address = SocketAddrUnix::new(short).map_err(failed)?;
        rustix::net::bind(&socket, &address).map_err(failed)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666))
            .map_err(OciError::file("open to others", &path))?;
        Ok(Some(socket))
    }

    /// Receives messages of the container. Returns true when one reported readiness, after forwarding that to the
    /// manager.
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

    /// Reports readiness to the manager; failures are ignored, because a manager that has ended does not need it.
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
