//! State of the networks of one network namespace, in a directory that several processes use at once.
//!
//! ```text
//! network-<inode of the namespace>/
//!     lock                  held while bridges, ports or rules are changed
//!     leases/10.87.0.2      an address in use is a file locked by its user; it contains the user's interface name
//!     bridges/kiln0         a network, as JSON
//!     ports/10.87.0.2       published ports of an address, as JSON; void when its lease is not locked
//!     forwarding4           Kiln enabled forwarding of IPv4: the interfaces that the host had before, one a line;
//!                           forwarding6 likewise
//!     dns/                  names of containers, see [`super::dns`]
//! ```
//!
//! A lock ends with the process that holds it, even when that is killed, so stale files can be recognised. The packet
//! rules are derived from these files, so they can be restored when another program has removed them.

use super::address::Subnet;
use super::config::{Binding, Protocol};
use super::rules::{self, Entry, Network};
use super::sysctl::{self, Version};
use super::{NetworkError, file, kernel};
use kiln_runtime::cgroup::Groups;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Directory of the state of one network namespace.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

/// Lock that is held while bridges, ports or rules are changed.
pub(super) struct Changing {
    _lock: OwnedFd,
}

/// Addresses in use. They are free again when this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    /// Name of the user's interface in this namespace.
    pub(super) interface: String,
    /// Interface in this namespace of the address's previous user; `None` when there was none.
    pub(super) before: Option<String>,
    locks: Vec<OwnedFd>,
}

/// Existing network, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Interface index, which distinguishes this bridge from a later one of the same name.
    pub(super) index: u32,
    pub(super) gateway: Ipv4Addr,
    pub(super) network: Network,
}

/// Published ports of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    /// Owner of the ports, for messages.
    pub(super) owner: String,
    pub(super) bindings: Vec<Binding>,
    /// IPv4 address of the container.
    pub(super) ipv4: Ipv4Addr,
    pub(super) ipv6: Option<Ipv6Addr>,
    /// Proxy listeners for connections to loopback addresses when no sockets are bound to the ports.
    pub(super) redirect: Vec<SocketAddr>,
}

impl Ports {
    /// Entries of these ports in the packet rules.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for binding in &self.bindings {
            let address = binding.host_address;
            let container = match address {
                IpAddr::V4(_) => Some(IpAddr::V4(self.ipv4)),
                IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
            };
            let container = container.filter(|_| !address.is_loopback());
            let same_version = |proxy: &&SocketAddr| proxy.is_ipv4() == address.is_ipv4();
            let is_local = address.is_unspecified() || address.is_loopback();
            let is_stream = binding.protocol == Protocol::Tcp;
            let proxy = self.redirect.iter().find(same_version).filter(|_| is_local && is_stream);
            let entry =
                |port, last, target| Entry { address, port, last, protocol: binding.protocol, target };
            if let Some(proxy) = proxy.filter(|_| address.is_unspecified()) {
                entries.push(entry(binding.host_port, binding.last_port(), *proxy));
            }
            let proxy = proxy.filter(|_| address.is_loopback()).copied();
            for (port, inside) in binding.ports() {
                let target = container.map(|container| SocketAddr::new(container, inside)).or(proxy);
                entries.extend(target.map(|target| entry(port, port, target)));
            }
        }
        entries
    }
}

impl Store {
    pub(super) fn open(state: &Path) -> Result<Store, NetworkError> {
        let dir = Store::dir_of(state);
        for name in ["leases", "bridges", "ports"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(file("make", &path))?;
        }
        Ok(Store { dir })
    }

    /// Directory of this network namespace.
    pub(super) fn dir_of(state: &Path) -> PathBuf {
        state.join(format!("network-{}", namespace_inode()))
    }

    /// State of this network namespace as it is, without creating any; for looking only.
    pub(super) fn look(state: &Path) -> Store {
        Store { dir: state.join(format!("network-{}", namespace_inode())) }
    }

    /// Locks the state for changes; waits for other processes.
    pub(super) fn change(&self) -> Result<Changing, NetworkError> {
        let path = self.dir.join("lock");
        let opened = open_lock(&path)?;
        loop {
            match rustix::fs::flock(&opened, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Changing { _lock: opened }),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(file("lock", &path)(errno.into())),
            }
        }
    }

    /// Leases an address and the address that belongs to it for the user of an interface. `None` when one of them is in
    /// use.
    pub(super) fn lease(
        &self,
        address: Ipv4Addr,
        with: Option<IpAddr>,
        new_name: impl FnOnce() -> String,
    ) -> Result<Option<Lease>, NetworkError> {
        let mut locks = Vec::new();
        for name in [Some(IpAddr::V4(address)), with].into_iter().flatten() {
            match self.try_take(name)? {
                Some(lock) => locks.push(lock),
                None => return Ok(None),
            }
        }
        let Some(first) = locks.first() else { return Ok(None) };
        let interface = new_name();
        let before = replace_text(first, &interface)
            .map_err(|errno| file("write", &self.dir.join("leases"))(errno.into()))?;
        let lease = Lease { address, interface, before, locks };
        // Ports that a killed user of the address left behind must not lead to its next user.
        if self.ports_path(address).exists() {
            let changing = self.change()?;
            self.forget_ports(&changing, address)?;
        }
        Ok(Some(lease))
    }

    /// Locks addresses that a container uses, whose previous holder was killed. `None` when one of them is in use.
    pub(super) fn retake(
        &self,
        address: Ipv4Addr,
        with: Option<IpAddr>,
    ) -> Result<Option<Lease>, NetworkError> {
        let names = [Some(IpAddr::V4(address)), with].into_iter().flatten();
        let locks: Option<Vec<OwnedFd>> = names.map(|name| self.try_lock(name)).collect::<Result<_, _>>()?;
        Ok(locks.map(|locks| {
            let text = locks.first().and_then(|first| text_of(first).ok()).unwrap_or_default();
            let interface = text.split(' ').next().unwrap_or_default().to_owned();
            Lease { address, interface, before: None, locks }
        }))
    }

    /// True when an address is in use.
    pub(super) fn is_taken(&self, address: IpAddr) -> Result<bool, NetworkError> {
        Ok(self.try_take(address)?.is_none())
    }

    /// Locks an address. `None` while it is locked, and while the process that uses it runs: the holder of the lock was
    /// killed then, and the address stays with the user.
    fn try_take(&self, address: IpAddr) -> Result<Option<OwnedFd>, NetworkError> {
        let lock = self.try_lock(address)?;
        Ok(lock.filter(|lock| !user_runs(lock)))
    }

    fn try_lock(&self, address: IpAddr) -> Result<Option<OwnedFd>, NetworkError> {
        let path = self.dir.join("leases").join(address.to_string());
        let opened = open_lock(&path)?;
        match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(opened)),
            Err(_) => Ok(None),
        }
    }

    /// Stored network of a bridge. `None` when there is none.
    pub(super) fn known(&self, bridge: &str) -> Option<Known> {
        read(&self.dir.join("bridges").join(bridge))
    }

    pub(super) fn remember(&self, _changing: &Changing, known: &Known) -> Result<(), NetworkError> {
        write(&self.dir.join("bridges").join(&known.network.bridge), known)
    }

    pub(super) fn forget(&self, _changing: &Changing, bridge: &str) -> Result<(), NetworkError> {
        remove(&self.dir.join("bridges").join(bridge))
    }

    /// All networks with a stored file.
    pub(super) fn networks(&self) -> Vec<Network> {
        let names = names(&self.dir.join("bridges"));
        names.iter().filter_map(|name| self.known(name)).map(|known| known.network).collect()
    }

    /// True when an address of a subnet is in use.
    pub(super) fn is_used(&self, range: Subnet) -> Result<bool, NetworkError> {
        for address in addresses(&self.dir.join("leases")) {
            if range.contains(address) && self.try_take(IpAddr::V4(address))?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Published ports in use; stale ones are removed.
    pub(super) fn live_ports(&self, changing: &Changing) -> Result<Vec<Ports>, NetworkError> {
        let mut live = Vec::new();
        for address in addresses(&self.dir.join("ports")) {
            match self.try_take(IpAddr::V4(address))? {
                None => live.extend(read(&self.ports_path(address))),
                Some(_lock) => self.forget_ports(changing, address)?,
            }
        }
        Ok(live)
    }

    /// Stores the ports of a container.
    pub(super) fn remember_ports(&self, _changing: &Changing, ports: &Ports) -> Result<(), NetworkError> {
        write(&self.ports_path(ports.ipv4), ports)
    }

    pub(super) fn has_ports(&self, address: Ipv4Addr) -> bool {
        self.ports_path(address).exists()
    }

    /// Removes the ports of an address, and their rules.
    pub(super) fn forget_ports(&self, _changing: &Changing, address: Ipv4Addr) -> Result<(), NetworkError> {
        let path = self.ports_path(address);
        let ports: Option<Ports> = read(&path);
        // The file is removed first: another process may restore the rules from it.
        remove(&path)?;
        let entries = ports.map(|ports| ports.entries()).unwrap_or_default();
        rules::remove_entries(&entries).map_err(kernel("remove the rules of published ports"))
    }

    fn ports_path(&self, address: Ipv4Addr) -> PathBuf {
        self.dir.join("ports").join(address.to_string())
    }

    /// Ensures that the rules are in force and contain a network.
    pub(super) fn ensure_rules(&self, changing: &Changing, network: &Network) -> Result<(), NetworkError> {
        let failed = || kernel("set up packet rules");
        if rules::know(&network.bridge).map_err(failed())? {
            return Ok(());
        }
        if rules::in_force().map_err(failed())? {
            return rules::add_network(network).map_err(failed());
        }
        self.restore_rules(changing)
    }

    /// Restores the rules from the stored state.
    pub(super) fn restore_rules(&self, changing: &Changing) -> Result<(), NetworkError> {
        let networks = self.networks();
        let ports = self.live_ports(changing)?;
        let entries: Vec<Entry> = ports.iter().flat_map(Ports::entries).collect();
        let closed = self.closed();
        rules::restore(&networks, &entries, &closed).map_err(kernel("set up packet rules"))
    }

    /// Enables forwarding on the host. Where it was off, the rules that block forwarding between the host's own
    /// interfaces are in force first.
    pub(super) fn start_forwarding(&self, changing: &Changing, version: Version) -> Result<(), NetworkError> {
        if sysctl::is_forwarding(version) {
            return Ok(());
        }
        let note = self.forwarding_path(version);
        let own: Vec<String> = self.networks().into_iter().map(|network| network.bridge).collect();
        let names: Vec<String> =
            sysctl::interfaces().into_iter().filter(|name| !own.contains(name)).collect();
        fs::write(&note, names.join("\n")).map_err(file("write", &note))?;
        let started = self.restore_rules(changing).and_then(|()| sysctl::start_forwarding(version));
        if started.is_err() {
            remove(&note)?;
            self.restore_rules(changing)?;
        }
        started
    }

    /// Disables forwarding on the host where Kiln enabled it. Nothing else can rely on it: the rules forward only
    /// packets of Kiln's networks.
    pub(super) fn stop_forwarding(&self, changing: &Changing) -> Result<(), NetworkError> {
        let closed = self.closed();
        for (version, _) in &closed {
            sysctl::stop_forwarding(*version)?;
            remove(&self.forwarding_path(*version))?;
        }
        if closed.is_empty() { Ok(()) } else { self.restore_rules(changing) }
    }

    /// IP versions whose forwarding Kiln enabled, with the interfaces that the host had before.
    fn closed(&self) -> Vec<(Version, Vec<String>)> {
        let ours = |version: Version| {
            let names = fs::read_to_string(self.forwarding_path(version)).ok()?;
            Some((version, names.lines().map(str::to_owned).collect()))
        };
        [Version::Four, Version::Six].into_iter().filter_map(ours).collect()
    }

    fn forwarding_path(&self, version: Version) -> PathBuf {
        self.dir.join(match version {
            Version::Four => "forwarding4",
            Version::Six => "forwarding6",
        })
    }
}

/// Inode number of this network namespace, which distinguishes it from others.
fn namespace_inode() -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino())
}

fn open_lock(path: &Path) -> Result<OwnedFd, NetworkError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600));
    opened.map_err(|errno: Errno| file("open", path)(errno.into()))
}

impl Lease {
    /// Notes the process that uses the address, by its pid and start time in ticks since boot: the address stays with it
    /// when this process is killed.
    pub(super) fn note_user(&self, pid: i32, ticks: &str) -> Result<(), Errno> {
        self.write(&format!("{} {pid} {ticks}", self.interface))
    }

    /// Removes this note: the process does not use the address any more.
    pub(super) fn forget_user(&self) -> Result<(), Errno> {
        self.write(&self.interface)
    }

    fn write(&self, text: &str) -> Result<(), Errno> {
        self.locks.iter().try_for_each(|file| {
            rustix::io::pwrite(file, text.as_bytes(), 0)?;
            rustix::fs::ftruncate(file, text.len() as u64)
        })
    }
}

/// Text of a lease: the interface of the address's last user, and its process if that was noted.
fn text_of(file: &OwnedFd) -> Result<String, Errno> {
    let mut text = [0; 64];
    let length = rustix::io::pread(file, &mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// True while the process that a lease notes runs.
fn user_runs(file: &OwnedFd) -> bool {
    let text = text_of(file).unwrap_or_default();
    let mut words = text.split(' ').skip(1);
    let user = words.next().and_then(|pid| pid.parse().ok()).zip(words.next());
    user.is_some_and(|(pid, ticks)| Groups::is_running(pid, ticks))
}

/// Replaces the name in a file; returns the previous one.
fn replace_text(file: &OwnedFd, name: &str) -> Result<Option<String>, Errno> {
    let before = text_of(file)?;
    rustix::io::pwrite(file, name.as_bytes(), 0)?;
    rustix::fs::ftruncate(file, name.len() as u64)?;
    let before = before.split(' ').next().unwrap_or_default();
    Ok((!before.is_empty()).then(|| before.to_owned()))
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

fn addresses(dir: &Path) -> Vec<Ipv4Addr> {
    names(dir).iter().filter_map(|name| name.parse().ok()).collect()
}

/// Content of a file. `None` when it is absent or cannot be parsed.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a temporary file and renames it, so that a reader sees all or nothing.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), NetworkError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}"));
    let json = serde_json::to_vec(value).map_err(|error| file("write", path)(error.into()))?;
    fs::write(&beside, json).map_err(file("write", &beside))?;
    fs::rename(&beside, path).map_err(file("write", path))
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}
