//! Networks of a store: records of the networks that users create, and the predefined ones.
//!
//! ```text
//! networks/.lock      held shared while a container is connected, exclusively to create or remove a network
//! networks/.moving    held while a network gets another subnet
//! networks/ID.json    record
//! networks/.new-ID    being written
//! ```
//!
//! A network that nothing uses exists as its record alone: its bridge is created with its first container and removed with
//! the record, so that creating one is quick, and the record is all that has to survive a boot. Which containers are
//! connected is in their records.

mod ends;
mod new;

pub use new::{NetworkOptionError, NetworkOptions};

use crate::directory::lock_at;
use crate::error::EngineError;
use crate::events::Events;
use kiln_image::digest::Digest;
use kiln_image::sys::{CallError, Named};
use kiln_network::config::DEFAULT_BRIDGE;
use kiln_network::{Bridge, Ipv6, NetworkConfig, NetworkError, Parent, ParentMode, Subnet, Subnet6, pool};
use rustix::fd::OwnedFd;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Name of the network that containers are connected to by default.
pub const DEFAULT: &str = "bridge";
/// Option with the name of the bridge.
pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Option with the MTU in bytes.
pub const MTU: &str = "com.docker.network.driver.mtu";
/// Option with the name of the parent device of a macvlan network.
pub const PARENT: &str = "parent";
/// Option with the mode of interfaces in a macvlan network.
pub const MACVLAN_MODE: &str = "macvlan_mode";
/// Option whether the containers of a network reach each other.
pub const ICC: &str = "com.docker.network.bridge.enable_icc";

/// Number of subnets that are tried for a network whose own one is in use.
const TRIES: usize = 20;

/// Way in which a network connects containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of this host, with address translation for outgoing connections.
    Bridge,
    /// A device of this host, in whose own network the containers are.
    Macvlan,
    /// The network of the host itself.
    Host,
    /// No interface but loopback.
    Null,
}

impl Driver {
    /// Name of the driver in Docker's output.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Macvlan => "macvlan",
            Driver::Host => "host",
            Driver::Null => "null",
        }
    }
}

impl Driver {
    /// True when containers of such a network have interfaces and addresses of their network.
    pub fn connects(self) -> bool {
        matches!(self, Driver::Bridge | Driver::Macvlan)
    }
}

/// IPv4 addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Subnet of the network.
    pub subnet: Subnet,
    /// Address of the bridge.
    pub gateway: Ipv4Addr,
    /// Part of the subnet in which containers get addresses; all of it when `None`.
    #[serde(default)]
    pub range: Option<Subnet>,
    /// Addresses that no container gets, by their names.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, Ipv4Addr>,
    /// True when the user left the subnet open: another one is chosen when the host has come to use it.
    #[serde(default)]
    pub is_chosen: bool,
}

/// IPv6 addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool6 {
    /// Range of the network.
    pub subnet: Subnet6,
    /// Addresses that no container gets, by their names.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, Ipv6Addr>,
    /// True when the user asked for IPv6: a host without it is an error then.
    #[serde(default)]
    pub is_required: bool,
}

/// Record of a network of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Id: 64 hexadecimal digits.
    pub id: String,
    /// Name of the network.
    pub name: String,
    /// Way in which it connects containers.
    pub driver: Driver,
    /// Time of creation, RFC 3339.
    pub created: String,
    /// True when nothing is forwarded into it or out of it.
    #[serde(default)]
    pub internal: bool,
    /// True when the user marked it as attachable, which all networks of one host are.
    #[serde(default)]
    pub attachable: bool,
    /// Options of the driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels of the network.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// IPv4 addresses; `None` for predefined networks.
    pub ipv4: Option<Pool>,
    /// IPv6 addresses; `None` without IPv6, and for predefined networks.
    #[serde(default)]
    pub ipv6: Option<Pool6>,
}

impl Network {
    /// True for the networks that every store has.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    /// True for the network that containers are connected to by default.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT
    }

    /// Name of the bridge on this host.
    pub fn bridge(&self) -> String {
        if self.is_default() {
            return DEFAULT_BRIDGE.to_owned();
        }
        let own = || format!("br-{}", self.id.chars().take(12).collect::<String>());
        self.options.get(BRIDGE_NAME).cloned().unwrap_or_else(own)
    }

    /// Device of the host on which its containers have interfaces; `None` for other drivers.
    pub(crate) fn parent(&self) -> Option<Parent> {
        let device = self.options.get(PARENT).filter(|_| self.driver == Driver::Macvlan)?.clone();
        let mode = self.options.get(MACVLAN_MODE).and_then(|mode| parent_mode(mode)).unwrap_or_default();
        Some(Parent { device, mode })
    }

    /// MTU of the network in bytes; `None` for the kernel's default.
    pub fn mtu(&self) -> Option<u32> {
        self.options.get(MTU).and_then(|mtu| mtu.parse().ok())
    }

    /// Configuration of its bridge. A subnet that is chosen then avoids those of `others`.
    pub(crate) fn config(&self, others: &[Network]) -> NetworkConfig {
        let reserved = self.ipv4.iter().flat_map(|pool| pool.auxiliary.values().copied().map(IpAddr::V4));
        let reserved6 = self.ipv6.iter().flat_map(|pool| pool.auxiliary.values().copied().map(IpAddr::V6));
        NetworkConfig {
            bridge: self.bridge(),
            ipv4: self.ipv4.as_ref().map(|pool| pool.subnet),
            gateway: self.ipv4.as_ref().map(|pool| pool.gateway),
            range: self.ipv4.as_ref().and_then(|pool| pool.range),
            reserved: reserved.chain(reserved6).collect(),
            avoid: others.iter().filter_map(|other| Some(other.ipv4.as_ref()?.subnet)).collect(),
            ipv6: match &self.ipv6 {
                _ if self.is_default() => Ipv6::Automatic,
                Some(pool) if pool.is_required || pool::host_has_ipv6() => Ipv6::Range(pool.subnet),
                _ => Ipv6::Off,
            },
            internal: self.internal,
            isolated_members: self.options.get(ICC).is_some_and(|value| is_false(value)),
            mtu: self.mtu(),
        }
    }
}

/// Mode of interfaces on a parent, by its name; `None` for other texts.
fn parent_mode(name: &str) -> Option<ParentMode> {
    match name {
        "bridge" => Some(ParentMode::Bridge),
        "private" => Some(ParentMode::Private),
        "vepa" => Some(ParentMode::Vepa),
        "passthru" => Some(ParentMode::Passthru),
        _ => None,
    }
}

/// True for the names of the networks that every store has.
pub(crate) fn is_predefined(name: &str) -> bool {
    ["bridge", "host", "none"].contains(&name)
}

fn is_false(text: &str) -> bool {
    ["false", "0", "f"].contains(&text.to_ascii_lowercase().as_str())
}

/// All networks of a store.
#[derive(Clone, Debug)]
pub struct Networks {
    root: PathBuf,
    dir: PathBuf,
}

impl Networks {
    /// Opens the networks of the store in `root`.
    ///
    /// # Errors
    /// Fails when their directory cannot be created.
    pub fn open(root: &Path) -> Result<Networks, EngineError> {
        let dir = root.join("networks");
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).call("mkdir", &dir)?;
        }
        Ok(Networks { root: root.to_owned(), dir })
    }

    /// All networks by name: the predefined ones, and those of users. Records that cannot be read are left out.
    ///
    /// # Errors
    /// Fails when the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Network>, EngineError> {
        let mut networks: Vec<Network> = ["bridge", "host", "none"].map(|name| self.predefined(name)).into();
        networks.extend(self.of_users()?);
        networks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(networks)
    }

    /// Networks that users have created.
    pub(crate) fn of_users(&self) -> Result<Vec<Network>, EngineError> {
        let entries = fs::read_dir(&self.dir).call("getdents", &self.dir)?.flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| self.read(name.strip_suffix(".json")?)).collect())
    }

    /// Network with a name, an id, or the beginning of one.
    ///
    /// # Errors
    /// [`EngineError::NoSuchNetwork`], and [`EngineError::AmbiguousNetwork`] when several ids have this beginning.
    pub fn find(&self, text: &str) -> Result<Network, EngineError> {
        let mut all = self.list()?;
        if let Some(at) = all.iter().position(|one| one.name == text || one.id == text) {
            return Ok(all.swap_remove(at));
        }
        let mut found: Vec<Network> =
            all.into_iter().filter(|one| !text.is_empty() && one.id.starts_with(text)).collect();
        match (found.pop(), found.len()) {
            (None, _) => Err(EngineError::NoSuchNetwork(text.to_owned())),
            (Some(network), 0) => Ok(network),
            (Some(_), others) => Err(EngineError::AmbiguousNetwork(text.to_owned(), others + 1)),
        }
    }

    /// Network with exactly this id. `None` when it has been removed.
    pub fn with_id(&self, id: &str) -> Option<Network> {
        if id.is_empty() {
            return Some(self.predefined(DEFAULT));
        }
        let predefined = ["bridge", "host", "none"].map(|name| self.predefined(name));
        predefined.into_iter().find(|network| network.id == id).or_else(|| self.read(id))
    }

    /// The network that containers are connected to by default.
    pub fn default_network(&self) -> Network {
        self.predefined(DEFAULT)
    }

    /// Network that every store has. Its id follows from the path of the store.
    fn predefined(&self, name: &str) -> Network {
        let seed = format!("kiln network {name} {}", self.root.display());
        let created = fs::metadata(&self.root).and_then(|metadata| metadata.created());
        let created = created.ok().and_then(|time| jiff::Timestamp::try_from(time).ok()).unwrap_or_default();
        Network {
            id: Digest::of(seed.as_bytes()).hex().to_owned(),
            name: name.to_owned(),
            driver: match name {
                "host" => Driver::Host,
                "none" => Driver::Null,
                _ => Driver::Bridge,
            },
            created: created.to_string(),
            internal: false,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            ipv4: None,
            ipv6: None,
        }
    }

    /// Locks the set of networks: shared while a container is connected, exclusively to create or remove a network.
    pub(crate) fn lock(&self, operation: FlockOperation) -> Result<OwnedFd, CallError> {
        lock_at(&self.dir.join(".lock"), operation)
    }

    /// Opens the bridge of a network, or creates it. The caller has locked the networks.
    ///
    /// # Errors
    /// Fails when the host has come to use the subnet, unless that was chosen: the network gets another one then.
    pub(crate) fn open_bridge(&self, network: &mut Network, state: &Path) -> Result<Bridge, EngineError> {
        if network.is_default() {
            return Ok(Bridge::open_with(state, &network.config(&self.of_users()?))?);
        }
        if let Some(parent) = network.parent() {
            return Ok(Bridge::open_on(state, &network.config(&[]), &parent)?);
        }
        match Bridge::open_with(state, &network.config(&[])) {
            Err(NetworkError::Overlap(_) | NetworkError::Differs(_)) => self.move_bridge(network, state),
            opened => Ok(opened?),
        }
    }

    /// Opens the bridge of a network whose subnet another network of this host has, or whose record is an older one. Stores
    /// on the same host, and VPNs, do not know of subnets whose bridges do not exist yet.
    fn move_bridge(&self, network: &mut Network, state: &Path) -> Result<Bridge, EngineError> {
        let _moving = lock_at(&self.dir.join(".moving"), FlockOperation::LockExclusive)?;
        if let Some(now) = self.read(&network.id) {
            *network = now;
        }
        let mut tries = TRIES;
        loop {
            let overlap = match Bridge::open_with(state, &network.config(&[])) {
                Err(error @ NetworkError::Overlap(_)) => error,
                opened => return Ok(opened?),
            };
            let others = self.of_users()?;
            let Some(pool) = network.ipv4.as_mut().filter(|pool| pool.is_chosen && tries > 0) else {
                return Err(overlap.into());
            };
            let taken: Vec<Subnet> =
                others.iter().filter_map(|other| Some(other.ipv4.as_ref()?.subnet)).collect();
            pool.subnet = pool::free_subnet(&taken)?;
            pool.gateway = pool.subnet.gateway();
            self.write(network)?;
            tries -= 1;
        }
    }

    fn read(&self, id: &str) -> Option<Network> {
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes = fs::read(self.path(id)).ok().filter(|_| is_id)?;
        serde_json::from_slice(&bytes).ok().filter(|network: &Network| network.id == id)
    }

    fn write(&self, network: &Network) -> Result<(), CallError> {
        let (path, new) = (self.path(&network.id), self.dir.join(format!(".new-{}", network.id)));
        let bytes = serde_json::to_vec(network).expect("a record is made of texts and numbers");
        let written = fs::write(&new, bytes).call("write", &new);
        let written = written.and_then(|()| fs::rename(&new, &path).call("rename", &path));
        if written.is_err() {
            // Files of this name are ignored.
            let _ = fs::remove_file(&new);
        }
        written
    }

    fn erase(&self, id: &str) -> Result<(), CallError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.call("unlink", &path),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// Adds an event about a network, with `more` attributes besides its name and driver.
    pub(crate) fn event(&self, network: &Network, action: &str, more: &[(&str, &str)]) {
        let own = [("name", network.name.as_str()), ("type", network.driver.name())];
        let all = own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Events::of(&self.root).add("network", &network.id, action, all.collect());
    }
}

#[cfg(test)]
mod tests;
