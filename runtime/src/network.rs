//! Network namespaces for containers.

use crate::op::{Bytes, SetupError, Stage};
use crate::process::SpawnError;
use crate::sys;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

/// Way in which a process creates network namespaces.
pub trait MakeNetwork {
    /// Creates a network namespace; returns it and a routing socket inside it.
    ///
    /// # Errors
    /// Fails when the kernel refuses a namespace.
    fn make_network(&self) -> Result<(OwnedFd, OwnedFd), SpawnError>;
}

/// Creates network namespaces in this process, which must have one thread.
#[derive(Clone, Copy, Debug)]
pub struct OneThread;

impl MakeNetwork for OneThread {
    fn make_network(&self) -> Result<(OwnedFd, OwnedFd), SpawnError> {
        make_namespace().map_err(failed)
    }
}

/// Error for a network namespace that could not be created.
pub(crate) fn failed(errno: Errno) -> SpawnError {
    SpawnError::Setup(SetupError {
        stage: Stage::Clone,
        call: "unshare".to_owned(),
        on: Bytes::from("network namespace"),
        errno: errno.raw_os_error(),
        message: None,
    })
}

/// Creates a network namespace, and a socket to configure links and routes in it.
///
/// The process enters the new namespace and returns to its own, which a process with one thread can do.
pub(crate) fn make_namespace() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::fs::{Mode, OFlags};
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let open = || rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let home = open()?;
    sys::unshare(libc::CLONE_NEWNET as u64)?;
    let made = open().and_then(|namespace| {
        // Protocol 0 of this family is NETLINK_ROUTE.
        let protocol = None;
        let kind = SocketType::RAW;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
        Ok((namespace, socket))
    });
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
    made
}
