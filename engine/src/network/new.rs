//! New networks: what the user asks for is checked as a whole, and only then written.

use super::{
    BRIDGE_NAME, Driver, ICC, MACVLAN_MODE, MTU, Network, Networks, PARENT, Pool, Pool6, is_predefined,
    parent_mode,
};
use crate::container;
use crate::error::EngineError;
use crate::record::now;
use kiln_image::digest::hex;
use kiln_network::config::DEFAULT_BRIDGE;
use kiln_network::{NotASubnet, Subnet, Subnet6, pool};
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest prefix of an IPv4 subnet: one with room for the gateway and a container.
const LONGEST: u8 = 30;

/// A new network as the user describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Name of the network.
    pub name: String,
    /// Name of the driver.
    pub driver: String,
    /// Subnets, at most one of each IP version; chosen when there is none.
    pub subnets: Vec<String>,
    /// Addresses of the bridge, at most one of each IP version.
    pub gateways: Vec<String>,
    /// Parts of the subnets in which containers get addresses.
    pub ranges: Vec<String>,
    /// Addresses that no container gets, as `NAME=ADDRESS`.
    pub auxiliary: Vec<String>,
    /// True when nothing is forwarded into it or out of it.
    pub internal: bool,
    /// True when the user marked it as attachable.
    pub attachable: bool,
    /// Whether it has IPv6; where the host has it when `None`.
    pub ipv6: Option<bool>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels of the network.
    pub labels: BTreeMap<String, String>,
}

/// Part of the description of a new network that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkOptionError {
    /// A name with other characters.
    #[error("invalid network name {0:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// A driver that does not exist here.
    #[error("network driver {0:?} is not supported: {1}")]
    Driver(String, &'static str),
    /// Text that is no subnet.
    #[error("invalid subnet: {0}")]
    Subnet(#[from] NotASubnet),
    /// A subnet with an address that is not its first.
    #[error("invalid network config: invalid subnet {0}: it should be {1}")]
    NotFirst(String, String),
    /// A subnet without room for a gateway and a container, or beside the addresses of hosts.
    #[error("invalid network config: invalid subnet {0}: {1}")]
    Unusable(String, &'static str),
    /// A second subnet, gateway or range of an IP version.
    #[error("invalid network config: {0} and {1}: a network has one {2} of each IP version")]
    Twice(String, String, &'static str),
    /// Text that is no IP address.
    #[error("invalid {0} address: {1:?}")]
    Address(&'static str, String),
    /// An address without a subnet that it is in.
    #[error("invalid network config: no matching subnet for {0} {1}")]
    NoSubnet(&'static str, String),
    /// A gateway that is the first or the last address of its subnet.
    #[error("invalid network config: the gateway {0} is the {1} address of {2}, which no host can have")]
    Gateway(String, &'static str, String),
    /// An IPv6 gateway other than the first address.
    #[error(
        "invalid network config: the gateway {0} is not supported: the gateway of {1} is its first address, {2}"
    )]
    Gateway6(String, String, String),
    /// An auxiliary address that the network itself uses.
    #[error("failed to allocate secondary ip address ({0}): Address already in use")]
    Auxiliary(String),
    /// Part of a version 6 subnet.
    #[error("--ip-range {0} is not supported: addresses of version 6 follow from those of version 4")]
    Range6(String),
    /// An IPv6 subnet with fewer addresses than the IPv4 subnet.
    #[error(
        "invalid network config: the subnet {0} has fewer addresses than {1}: each container gets one of both"
    )]
    Smaller(String, String),
    /// IPv6 subnets in a network without IPv6.
    #[error("invalid network config: the subnet {0} contradicts --ipv6=false")]
    WithoutIpv6(String),
    /// An option that the driver does not have.
    #[error("network option {0:?} is not supported: known are {1}")]
    Option(String, String),
    /// An option with a value that it cannot have.
    #[error("invalid value {1:?} of the network option {0}: {2}")]
    Value(String, String, &'static str),
    /// The subnet overlaps with that of another network.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} with {other} of network {name}"
    )]
    Overlap {
        /// Subnet that was requested.
        subnet: String,
        /// Subnet of the other network.
        other: String,
        /// Name of the other network.
        name: String,
    },
    /// A macvlan network without a parent.
    #[error("a macvlan network needs a network device of this host: -o parent=DEVICE")]
    NoParent,
    /// A macvlan network without a subnet.
    #[error(
        "a macvlan network needs --subnet, the subnet of its parent device, and --gateway, the router there"
    )]
    NoParentSubnet,
    /// The bridge of another network has the name.
    #[error("network with name {1} already has the bridge {0}")]
    Bridge(String, String),
}

use NetworkOptionError as Wrong;

impl Networks {
    /// Creates a network: checks all of it, and writes its record.
    ///
    /// # Errors
    /// [`EngineError::NetworkExists`], [`EngineError::NetworkOption`] for what cannot be, and
    /// [`EngineError::Network`] when the host uses the subnet or has a device of the bridge's name.
    pub fn create(&self, options: &NetworkOptions) -> Result<Network, EngineError> {
        check_name(&options.name)?;
        let driver = read_driver(&options.driver)?;
        check_options(driver, &options.options)?;
        let asked = Asked::read(options)?;
        if driver == Driver::Macvlan && asked.subnet.is_none() {
            return Err(Wrong::NoParentSubnet.into());
        }
        // Held to the end: two processes never choose the same subnet.
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let others = self.of_users()?;
        if others.iter().any(|other| other.name == options.name) {
            return Err(EngineError::NetworkExists(options.name.clone()));
        }
        let id = hex(&container::random::<32>());
        let mut network = Network {
            id,
            name: options.name.clone(),
            driver,
            created: now(),
            internal: options.internal,
            attachable: options.attachable,
            options: options.options.clone(),
            labels: options.labels.clone(),
            ipv4: None,
            ipv6: None,
        };
        if let Some(parent) = network.parent() {
            pool::check_parent(&parent.device).map_err(EngineError::NetworkSetup)?;
        } else {
            check_bridge(&network.bridge(), &others)?;
        }
        let bridge = network.bridge();
        let (ipv4, ipv6) = asked.settle(driver, &bridge, &others, options.ipv6)?;
        (network.ipv4, network.ipv6) = (Some(ipv4), ipv6);
        self.write(&network)?;
        self.event(&network, "create", &[]);
        Ok(network)
    }
}

/// Checks that the bridge of a new network can have its name.
fn check_bridge(bridge: &str, others: &[Network]) -> Result<(), EngineError> {
    let taken = |other: &str| Err(Wrong::Bridge(bridge.to_owned(), other.to_owned()).into());
    if let Some(other) = others.iter().find(|other| other.bridge() == bridge) {
        return taken(&other.name);
    }
    if bridge == DEFAULT_BRIDGE {
        return taken(super::DEFAULT);
    }
    pool::check_bridge(bridge).map_err(EngineError::NetworkSetup)
}

fn check_name(name: &str) -> Result<(), EngineError> {
    if is_predefined(name) {
        return Err(EngineError::PredefinedNetwork(
            name.to_owned(),
            "operation is not permitted on predefined",
        ));
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    match first && name.len() <= 255 && name.bytes().all(valid) {
        // `container:NAME` is excluded by its colon, as this would not be a name on a command line.
        true if name != "default" => Ok(()),
        _ => Err(Wrong::Name(name.to_owned()).into()),
    }
}

fn read_driver(name: &str) -> Result<Driver, NetworkOptionError> {
    let reason = match name {
        "bridge" => return Ok(Driver::Bridge),
        "macvlan" => return Ok(Driver::Macvlan),
        "host" => "only one instance of \"host\" network is allowed",
        "null" | "none" => "only one instance of \"null\" network is allowed",
        "overlay" => "it connects the hosts of a swarm, and there are no swarms",
        "ipvlan" => "the driver macvlan connects containers to the network of a device as well",
        _ => "the drivers are bridge and macvlan, and the predefined networks host and none",
    };
    Err(Wrong::Driver(name.to_owned(), reason))
}

/// Checks the options of the driver, so that none is ignored.
fn check_options(driver: Driver, options: &BTreeMap<String, String>) -> Result<(), NetworkOptionError> {
    if driver == Driver::Macvlan {
        return check_macvlan(options);
    }
    const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    let boolean = |value: &str| {
        let value = value.to_ascii_lowercase();
        let is = |texts: [&str; 3]| texts.contains(&value.as_str());
        if is(["true", "1", "t"]) { Some(true) } else { is(["false", "0", "f"]).then_some(false) }
    };
    for (name, value) in options {
        let wrong = |expected| Err(Wrong::Value(name.clone(), value.clone(), expected));
        match (name.as_str(), boolean(value)) {
            (BRIDGE_NAME, _) if value.is_empty() || value.len() > 15 => {
                return wrong("the name of a network device has 1 to 15 characters");
            }
            (BRIDGE_NAME, _) => {}
            (MTU, _) if is_mtu(value) => {}
            (MTU, _) => return wrong(MTU_RANGE),
            (ICC | MASQUERADE | "isolate", None) => return wrong("it is true or false"),
            (ICC, Some(_)) | (MASQUERADE | "isolate", Some(true)) => {}
            (MASQUERADE, Some(false)) => {
                return wrong("connections to the outside always have the host's address");
            }
            ("isolate", Some(false)) => return wrong("networks are always isolated from each other"),
            _ => {
                let known = [BRIDGE_NAME, MTU, ICC, MASQUERADE, "isolate"].join(", ");
                return Err(Wrong::Option(name.clone(), known));
            }
        }
    }
    Ok(())
}

fn check_macvlan(options: &BTreeMap<String, String>) -> Result<(), NetworkOptionError> {
    for (name, value) in options {
        let expected = match name.as_str() {
            PARENT => continue,
            MACVLAN_MODE if parent_mode(value).is_some() => continue,
            MTU if is_mtu(value) => continue,
            MACVLAN_MODE => "the modes are bridge, private, vepa and passthru",
            MTU => MTU_RANGE,
            _ => return Err(Wrong::Option(name.clone(), [PARENT, MACVLAN_MODE, MTU].join(", "))),
        };
        return Err(Wrong::Value(name.clone(), value.clone(), expected));
    }
    if options.contains_key(PARENT) { Ok(()) } else { Err(Wrong::NoParent) }
}

/// Description of the values of an MTU.
const MTU_RANGE: &str = "the MTU is a number of bytes from 68 to 65535";

fn is_mtu(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|mtu| (68..=65_535).contains(&mtu))
}

/// Addresses that the user asks for, each checked by itself.
#[derive(Debug, Default)]
struct Asked {
    subnet: Option<Subnet>,
    subnet6: Option<Subnet6>,
    gateway: Option<Ipv4Addr>,
    gateway6: Option<Ipv6Addr>,
    range: Option<Subnet>,
    auxiliary: BTreeMap<String, IpAddr>,
}

impl Asked {
    fn read(options: &NetworkOptions) -> Result<Asked, NetworkOptionError> {
        let mut asked = Asked::default();
        for text in &options.subnets {
            match text.contains(':') {
                false => once(&mut asked.subnet, subnet(text)?, "subnet")?,
                true => once(&mut asked.subnet6, subnet6(text)?, "subnet")?,
            }
        }
        for text in &options.gateways {
            match text.parse() {
                Ok(IpAddr::V4(address)) => once(&mut asked.gateway, address, "gateway")?,
                Ok(IpAddr::V6(address)) => once(&mut asked.gateway6, address, "gateway")?,
                Err(_) => return Err(Wrong::Address("gateway", text.clone())),
            }
        }
        for text in &options.ranges {
            if text.contains(':') {
                return Err(Wrong::Range6(text.clone()));
            }
            once(&mut asked.range, text.parse()?, "range")?;
        }
        for text in &options.auxiliary {
            let wrong = || Wrong::Address("auxiliary", text.clone());
            let (name, address) = text.split_once('=').unwrap_or(("", text));
            asked.auxiliary.insert(name.to_owned(), address.parse().map_err(|_| wrong())?);
        }
        asked.check()?;
        Ok(asked)
    }

    /// Checks that all addresses are in the subnets.
    fn check(&self) -> Result<(), NetworkOptionError> {
        let is_in = |address: IpAddr| match address {
            IpAddr::V4(address) => self.subnet.is_some_and(|subnet| subnet.contains(address)),
            IpAddr::V6(address) => self.subnet6.is_some_and(|subnet| subnet.contains(address)),
        };
        let gateways = [self.gateway.map(IpAddr::V4), self.gateway6.map(IpAddr::V6)].into_iter().flatten();
        let gateways = gateways.map(|address| ("gateway", address));
        let others = self.auxiliary.values().map(|address| ("aux-address", *address));
        if let Some((what, address)) = gateways.chain(others).find(|(_, address)| !is_in(*address)) {
            return Err(Wrong::NoSubnet(what, address.to_string()));
        }
        if let Some((gateway, subnet)) = self.gateway.zip(self.subnet) {
            let wrong = |which| Err(Wrong::Gateway(gateway.to_string(), which, subnet.to_string()));
            if gateway == subnet.network() {
                return wrong("first");
            }
            if gateway == subnet.last() {
                return wrong("last");
            }
        }
        if let Some((gateway, subnet)) = self.gateway6.zip(self.subnet6).filter(|(g, s)| *g != s.gateway()) {
            let first = subnet.gateway().to_string();
            return Err(Wrong::Gateway6(gateway.to_string(), subnet.to_string(), first));
        }
        if let Some(subnet) = self.subnet {
            let gateway = self.gateway.unwrap_or_else(|| (u32::from(subnet.network()) + 1).into());
            let own = [gateway, subnet.network(), subnet.last()].map(IpAddr::V4);
            if let Some((name, address)) = self.auxiliary.iter().find(|(_, address)| own.contains(address)) {
                return Err(Wrong::Auxiliary(format!("{name}:{address}")));
            }
        }
        match self.range {
            Some(range)
                if !self.subnet.is_some_and(|s| s.contains(range.network()) && s.contains(range.last())) =>
            {
                Err(Wrong::NoSubnet("range", range.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Completes the addresses: subnets that the user leaves open are chosen.
    fn settle(
        self,
        driver: Driver,
        bridge: &str,
        others: &[Network],
        wants_ipv6: Option<bool>,
    ) -> Result<(Pool, Option<Pool6>), EngineError> {
        let subnet = match self.subnet {
            Some(subnet) => {
                let taken = others.iter().filter_map(|other| Some((other, other.ipv4.as_ref()?.subnet)));
                overlap(subnet, taken, |other| other.overlaps(subnet))?;
                // That of a macvlan network is the subnet of its parent.
                if driver == Driver::Bridge {
                    pool::check_subnet(subnet).map_err(EngineError::NetworkSetup)?;
                }
                subnet
            }
            None => {
                let taken: Vec<Subnet> =
                    others.iter().filter_map(|other| Some(other.ipv4.as_ref()?.subnet)).collect();
                pool::free_subnet(&taken).map_err(EngineError::NetworkSetup)?
            }
        };
        let is_required = wants_ipv6 == Some(true) || self.subnet6.is_some();
        let subnet6 = match (self.subnet6, wants_ipv6) {
            (Some(subnet6), Some(false)) => return Err(Wrong::WithoutIpv6(subnet6.to_string()).into()),
            (Some(subnet6), _) => {
                let taken = others.iter().filter_map(|other| Some((other, other.ipv6.as_ref()?.subnet)));
                overlap(subnet6, taken, |other| other.overlaps(subnet6))?;
                if driver == Driver::Bridge {
                    pool::check_subnet6(subnet6).map_err(EngineError::NetworkSetup)?;
                }
                Some(subnet6)
            }
            (None, Some(false)) => None,
            (None, _) if driver == Driver::Macvlan => None,
            (None, Some(true)) => Some(pool::local_subnet6(bridge)),
            (None, None) => pool::host_has_ipv6().then(|| pool::local_subnet6(bridge)),
        };
        if let Some(subnet6) = subnet6.filter(|six| 128 - six.prefix() < 32 - subnet.prefix()) {
            return Err(Wrong::Smaller(subnet6.to_string(), subnet.to_string()).into());
        }
        let auxiliary = self.auxiliary.iter().filter_map(|(name, address)| match address {
            IpAddr::V4(address) => Some((name.clone(), *address)),
            IpAddr::V6(_) => None,
        });
        let auxiliary6 = self.auxiliary.iter().filter_map(|(name, address)| match address {
            IpAddr::V6(address) => Some((name.clone(), *address)),
            IpAddr::V4(_) => None,
        });
        let pool = Pool {
            subnet,
            gateway: self.gateway.unwrap_or_else(|| subnet.gateway()),
            range: self.range,
            auxiliary: auxiliary.collect(),
            is_chosen: self.subnet.is_none(),
        };
        let pool6 = subnet6.map(|subnet| Pool6 { subnet, auxiliary: auxiliary6.collect(), is_required });
        Ok((pool, pool6))
    }
}

/// Fails when a subnet overlaps with one of another network.
fn overlap<'a, S: ToString>(
    subnet: S,
    mut taken: impl Iterator<Item = (&'a Network, S)>,
    overlaps: impl Fn(&S) -> bool,
) -> Result<(), NetworkOptionError> {
    match taken.find(|(_, other)| overlaps(other)) {
        Some((network, other)) => Err(Wrong::Overlap {
            subnet: subnet.to_string(),
            other: other.to_string(),
            name: network.name.clone(),
        }),
        None => Ok(()),
    }
}

fn once<T: Copy + ToString>(
    known: &mut Option<T>,
    new: T,
    what: &'static str,
) -> Result<(), NetworkOptionError> {
    match known.replace(new) {
        Some(old) => Err(Wrong::Twice(old.to_string(), new.to_string(), what)),
        None => Ok(()),
    }
}

fn subnet(text: &str) -> Result<Subnet, NetworkOptionError> {
    let subnet: Subnet = text.parse()?;
    let address = subnet.address();
    if address != subnet.network() {
        return Err(Wrong::NotFirst(text.to_owned(), subnet.to_string()));
    }
    match address {
        _ if subnet.prefix() > LONGEST => {
            Err(Wrong::Unusable(text.to_owned(), "it has no room for a gateway and a container"))
        }
        address if address.is_multicast() || address.is_loopback() || address.octets()[0] == 0 => {
            Err(Wrong::Unusable(text.to_owned(), "its addresses are not those of hosts"))
        }
        _ => Ok(subnet),
    }
}

fn subnet6(text: &str) -> Result<Subnet6, NetworkOptionError> {
    let subnet: Subnet6 = text.parse()?;
    let address = subnet.address();
    if address != subnet.network() {
        return Err(Wrong::NotFirst(text.to_owned(), subnet.to_string()));
    }
    match address.is_multicast() || address.is_loopback() || address.is_unicast_link_local() {
        true => Err(Wrong::Unusable(text.to_owned(), "its addresses are not those of hosts")),
        false => Ok(subnet),
    }
}
