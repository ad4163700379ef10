//! Networks for containers: a bridge on the machine, a pair of linked interfaces for each container, and
//! address translation on the way out.
//!
//! The bridge and the translation rules are made when they are first needed and stay, as those of other
//! engines do. What belongs to a container vanishes with its network namespace: nothing is deleted here.
//! All is done by messages to the kernel, in batches, without running other programs.

mod address;
mod link;
mod netlink;
mod nft;
pub mod resolv;

pub use address::Subnet;

use crate::process::{SpawnError, Spawner};
use netlink::{Netlink, NetlinkError};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Name of the bridge and of the rule table.
const BRIDGE: &str = "kiln0";

/// Why a network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A message to the kernel failed.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: NetlinkError,
    },
    /// A file failed.
    #[error("cannot {what} `{path}`", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Every subnet that we might use is in use.
    #[error("no free subnet for containers: all of {0} overlap with networks of this machine")]
    NoSubnet(String),
    /// All addresses are taken.
    #[error("no free address in {0}: too many containers are running")]
    NoAddress(Subnet),
    /// No namespace.
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

/// The default network of containers on this machine.
#[derive(Debug)]
pub struct Bridge {
    index: u32,
    subnet: Subnet,
    leases: PathBuf,
}

/// A container's place in a network. The address is free again when this is dropped and the container gone.
#[derive(Debug)]
pub struct Connection {
    namespace: OwnedFd,
    /// The container's address.
    pub address: Ipv4Addr,
    /// Where its packets go first.
    pub gateway: Ipv4Addr,
    /// The network's addresses.
    pub subnet: Subnet,
    /// The container's hardware address.
    pub mac: [u8; 6],
    _lease: OwnedFd,
}

impl Connection {
    /// The network namespace to start the container in.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Bridge {
    /// Finds the bridge, or makes it. `state` is a folder that is emptied at boot; several programs may use
    /// it at once.
    pub fn open(state: &Path) -> Result<Bridge, NetworkError> {
        let folder = state.join(format!("network-{}", namespace_inode()));
        let leases = folder.join("leases");
        fs::create_dir_all(&leases).map_err(file("make", &leases))?;
        let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
        let _making = lock(&folder.join("lock"))?;
        let existing = link::find(&mut host, BRIDGE).map_err(kernel("look for the bridge `kiln0`"))?;
        let (index, subnet) = match existing {
            Some(index) => {
                match link::address(&mut host, index).map_err(kernel("read the bridge's address"))? {
                    Some(subnet) => (index, subnet),
                    None => (index, give_address(&mut host, index)?),
                }
            }
            None => {
                let index =
                    link::make_bridge(&mut host, BRIDGE).map_err(kernel("make the bridge `kiln0`"))?;
                (index, give_address(&mut host, index)?)
            }
        };
        link::bring_up(&mut host, index).map_err(kernel("bring up the bridge `kiln0`"))?;
        forward_packets()?;
        nft::ensure(BRIDGE, subnet).map_err(kernel("set up address translation"))?;
        Ok(Bridge { index, subnet, leases })
    }

    /// The address under which containers reach this machine.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// Makes a network namespace and connects it.
    pub fn connect(&self, spawner: &Spawner) -> Result<Connection, NetworkError> {
        let (address, lease) = self.take_address()?;
        let (namespace, routing) = spawner.make_network()?;
        let mac = mac_of(address);
        let mut host = Netlink::open_route().map_err(kernel("open a routing socket"))?;
        let name = format!("kiln{:08x}", u32::from(address));
        // A killed program's interface lives on for a moment after its lock is free.
        let _ = link::delete(&mut host, &name);
        link::make_pair(&mut host, &name, self.index, namespace.as_fd(), mac)
            .map_err(kernel("link the container to the bridge"))?;
        let mut inside = Netlink::over(routing);
        link::bring_up(&mut inside, link::LOOPBACK).map_err(kernel("bring up loopback"))?;
        link::add_address(&mut inside, link::INSIDE, self.subnet.with(address))
            .map_err(kernel("set the container's address"))?;
        link::bring_up(&mut inside, link::INSIDE).map_err(kernel("bring up the container's interface"))?;
        link::add_default_route(&mut inside, self.subnet.gateway())
            .map_err(kernel("set the container's default route"))?;
        Ok(Connection {
            namespace,
            address,
            gateway: self.subnet.gateway(),
            subnet: self.subnet,
            mac,
            _lease: lease,
        })
    }

    /// An address that nobody uses: each in use is a file locked by its user.
    fn take_address(&self) -> Result<(Ipv4Addr, OwnedFd), NetworkError> {
        for address in self.subnet.hosts() {
            let path = self.leases.join(address.to_string());
            let opened = open_lock(&path)?;
            if rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok((address, opened));
            }
        }
        Err(NetworkError::NoAddress(self.subnet))
    }
}

/// A network namespace with nothing but loopback.
pub fn isolated(spawner: &Spawner) -> Result<OwnedFd, NetworkError> {
    let (namespace, routing) = spawner.make_network()?;
    link::bring_up(&mut Netlink::over(routing), link::LOOPBACK).map_err(kernel("bring up loopback"))?;
    Ok(namespace)
}

fn give_address(host: &mut Netlink, index: u32) -> Result<Subnet, NetworkError> {
    let used = link::networks(host).map_err(kernel("read this machine's routes"))?;
    let free =
        address::CANDIDATES.iter().copied().find(|candidate| !used.iter().any(|u| u.overlaps(*candidate)));
    let subnet = free.ok_or_else(|| {
        let list: Vec<String> = address::CANDIDATES.iter().map(ToString::to_string).collect();
        NetworkError::NoSubnet(list.join(", "))
    })?;
    let own = subnet.with(subnet.gateway());
    link::add_address(host, index, own).map_err(kernel("set the bridge's address"))?;
    Ok(subnet)
}

fn forward_packets() -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net/ipv4/ip_forward");
    let now = fs::read_to_string(path).map_err(file("read", path))?;
    if now.trim() == "1" {
        return Ok(());
    }
    fs::write(path, "1").map_err(file("write", path))
}

/// Tells the networks of one namespace from those of another.
fn namespace_inode() -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino())
}

fn open_lock(path: &Path) -> Result<OwnedFd, NetworkError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600));
    opened.map_err(|errno: Errno| file("open", path)(errno.into()))
}

fn lock(path: &Path) -> Result<OwnedFd, NetworkError> {
    let opened = open_lock(path)?;
    loop {
        match rustix::fs::flock(&opened, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(opened),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(file("lock", path)(errno.into())),
        }
    }
}

/// Docker's way: a locally administered address that ends in the IP address.
fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}
