//! Networks for containers: a bridge on the host, a pair of linked interfaces for each container, address translation
//! for outgoing connections, and published ports for incoming ones.
//!
//! A bridge and its packet rules are created when they are first needed and stay, as those of other engines do. What
//! belongs to a container vanishes with its network namespace, except published ports, which are removed. All is done by messages to the
//! kernel, in batches, without running other programs.
//!
//! - [`config`] configuration of a network and its ports, as data
//! - [`pool`] subnets for new networks
//! - [`Bridge`] a network, [`Connection`] a container's endpoint in it
//! - [`Published`] ports of the host that are mapped to a container, [`Proxy`] the part of the mapping that the kernel
//!   does not do
//! - [`dns`] names of containers in networks of users
//! - [`user_mode`] a network without privileges, by pasta or slirp4netns

mod address;
mod bridge;
pub mod config;
mod conntrack;
mod device;
pub mod dns;
pub mod doctor;
pub mod etc;
mod link;
mod netlink;
mod nft;
pub mod pool;
mod proxy;
mod publish;
pub mod resolv;
mod rules;
mod sockets;
mod store;
mod sysctl;
pub mod user_mode;

pub use address::{NotASubnet, Subnet, Subnet6};
pub use bridge::{Bridge, Connection, Connection6, Ranges};
pub use config::{Binding, Ipv6, NetworkConfig, Parent, ParentMode, Place, PortMapping, Protocol};
pub use device::move_device;
pub use proxy::Proxy;
pub use publish::{Holder, PublishError, Published};

use kiln_runtime::{MakeNetwork, SpawnError};
use netlink::{Netlink, NetlinkError};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Error of an operation on a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A message to the kernel failed.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// Description of the operation.
        what: &'static str,
        /// Error from the kernel.
        source: NetlinkError,
    },
    /// An operation on a file failed.
    #[error("cannot {what} `{path}`", path = path.display())]
    File {
        /// Description of the operation.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        #[source]
        source: io::Error,
    },
    /// All candidate subnets for the bridge are in use.
    #[error("no free subnet for containers: all of {0} overlap with networks of this host")]
    NoSubnet(String),
    /// The requested subnet is in use.
    #[error("the subnet {0} overlaps with a network of this host")]
    Overlap(Subnet),
    /// The requested IPv6 range is in use.
    #[error("the subnet {0} overlaps with a network of this host")]
    Overlap6(Subnet6),
    /// The parent of a network does not exist.
    #[error("-o parent interface does not exist on the host: {0}")]
    NoParent(String),
    /// An interface has the name of a new network's bridge.
    #[error("this host has a network device `{0}` already")]
    DeviceExists(String),
    /// All addresses of the subnet are in use.
    #[error("no free address in {0}: too many containers are running")]
    NoAddress(Subnet),
    /// The requested address is in use.
    #[error("the address {0} is in use")]
    AddressInUse(IpAddr),
    /// The requested address is outside the network's range, or its gateway.
    #[error("the address {0} cannot be used in {1}")]
    NotInRange(IpAddr, String),
    /// The text is not a valid interface name.
    #[error("`{0}` cannot be an interface's name: at most 15 letters, digits, `-` and `_`")]
    BadName(String),
    /// The interface does not exist, or cannot be moved.
    #[error("there is no network device `{0}` that could be moved")]
    NoDevice(String),
    /// The existing network differs from the configuration.
    #[error("the network of the bridge `{0}` has other addresses or options than asked for")]
    Differs(String),
    /// A container uses the network, which cannot be removed.
    #[error("the network of the bridge `{0}` is in use")]
    InUse(String),
    /// The text is not a valid id of a container.
    #[error("`{0}` cannot be the id of a container")]
    BadId(String),
    /// An operation on the process that serves names failed.
    #[error("cannot {0} the name server of containers")]
    Names(&'static str, #[source] Errno),
    /// The network namespace could not be created.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

fn kernel(what: &'static str) -> impl FnOnce(NetlinkError) -> NetworkError {
    move |source| NetworkError::Kernel { what, source }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError {
    let path = path.to_owned();
    move |source| NetworkError::File { what, path, source }
}

/// All addresses of this host, those of bridges for containers included.
///
/// # Errors
/// Fails when the kernel does not list them.
pub fn host_addresses() -> Result<Vec<IpAddr>, NetworkError> {
    link::all_addresses().map_err(kernel("list the addresses of this host"))
}

/// Creates a network namespace with nothing but loopback.
pub fn isolated(maker: &dyn MakeNetwork) -> Result<OwnedFd, NetworkError> {
    let (namespace, routing) = maker.make_network()?;
    let steps = [link::bring_up("bring up loopback", link::LOOPBACK)];
    link::carry_out(&mut Netlink::over(routing), &steps)?;
    Ok(namespace)
}

/// Calls a function in another network namespace, on a new thread that enters it and ends.
fn within<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
    let enter = file("enter", Path::new("network namespace"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        let result: Result<T, io::Error> =
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")));
        result
    })
    .map_err(enter)
}
