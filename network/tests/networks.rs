//! Tests of networks: bridges, packet rules and published ports on this host's kernel.
//!
//! The test runs in a separate network namespace, which stands for the host; another one stands for a host outside. It
//! has its own `main`, because the helper must be forked before the test harness creates threads.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use kiln_network::user_mode::{Program, UserMode, UserModeConfig};
use kiln_network::{
    Binding, Bridge, Connection, Ipv6, NetworkConfig, NetworkError, Place, PortMapping, Protocol, Proxy,
    PublishError, Published, Subnet,
};
use kiln_runtime::MakeNetwork;
use kiln_runtime::Spawner;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "networks/forwarding.rs"]
mod forwarding;

type Test = fn(&Bed);

const TESTS: &[(&str, Test)] = &[
    ("rules_are_as_written", rules),
    ("the_machine_still_hears_its_router", advertisements),
    ("containers_reach_the_outside_under_the_machines_address", outward),
    ("the_outside_reaches_published_ports_and_is_known_by_its_address", inward),
    ("the_machine_reaches_published_ports_at_all_its_addresses", from_machine),
    ("containers_reach_published_ports_of_their_own_network", hairpin),
    ("datagrams_go_the_same_ways", datagrams),
    ("datagrams_that_keep_coming_find_their_new_way", steady_datagrams),
    ("networks_are_apart", networks_apart),
    ("the_host_passes_on_nothing_but_what_is_ours", forwarding::test),
    ("an_internal_network_has_no_way_out_nor_in", internal),
    ("members_may_be_kept_apart", members_apart),
    ("a_container_may_be_in_two_networks", two_networks),
    ("addresses_may_be_chosen", chosen_addresses),
    ("ten_thousand_ports_take_no_descriptors_and_little_time", range),
    ("ports_that_are_taken_are_told_with_who_has_them", conflicts),
    ("any_free_port_is_found", any_port),
    ("much_data_goes_through_the_proxy_unchanged", bulk),
    ("what_a_killed_program_leaves_is_found", killed),
    ("rules_that_others_remove_come_back", restored),
    ("two_hundred_connect_at_once", many),
    ("nothing_is_left_behind", nothing_left),
    ("a_network_without_privileges", user_mode),
];

const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const MACHINE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
/// Timeout that a passing test never reaches.
const LONG: Duration = Duration::from_secs(10);
/// Duration without an answer after which an address counts as silent.
const SILENCE: Duration = Duration::from_millis(300);

fn main() {
    if let Some(role) = std::env::var_os("KILN_TEST_ROLE") {
        return match role.to_str().unwrap() {
            "publisher" => publisher(),
            _ => without_privileges(),
        };
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: all {} network tests need root", TESTS.len());
        return;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("SKIPPED: all {} network tests need `ip` (package `iproute2`)", TESTS.len());
        return;
    }
    if std::env::var_os("KILN_TEST_NETNS").is_none() {
        let status = Command::new("unshare")
            .arg("--net")
            .args(std::env::args_os())
            .env("KILN_TEST_NETNS", "1")
            .status();
        match status {
            Ok(status) => std::process::exit(status.code().unwrap_or(1)),
            Err(error) => println!("SKIPPED: no network namespace for the tests: {error}"),
        }
        return;
    }
    let spawner = Spawner::start().expect("the helper starts");
    let bed = Bed::new(spawner);
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, test) in TESTS {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        print!("test {name} ... ");
        io::stdout().flush().unwrap();
        test(&bed);
        println!("ok");
    }
}

/// State of all tests: the host, a host outside, and the default network.
struct Bed {
    spawner: Spawner,
    outside: OwnedFd,
    state: tempfile::TempDir,
    bridge: Bridge,
    proxy: Proxy,
    has_ipv6: bool,
}

impl Bed {
    fn new(spawner: Spawner) -> Bed {
        let state = tempfile::tempdir().unwrap();
        let (outside, _) = spawner.make_network().unwrap();
        let has_ipv6 = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
            .is_ok_and(|disabled| disabled.trim() == "0");
        if !has_ipv6 {
            println!("SKIPPED: everything of version 6, which this host does not have");
        }
        ip("link set lo up");
        let there = format!("/proc/{}/fd/{}", std::process::id(), outside.as_raw_fd());
        ip(&format!("link add up0 type veth peer name up1 netns {there}"));
        inside(&outside, || ip("link set lo up"));
        let sides = [(None, "up0", MACHINE, MACHINE6), (Some(&outside), "up1", OUTSIDE, OUTSIDE6)];
        for (namespace, name, address, address6) in sides {
            within(namespace.map(AsFd::as_fd), || {
                ip(&format!("addr add {address}/24 dev {name}"));
                if has_ipv6 {
                    ip(&format!("addr add {address6}/64 dev {name} nodad"));
                }
                ip(&format!("link set {name} up"));
            });
        }
        // The namespace may have inherited the setting of another one.
        forwarding::set("0");
        let bridge = Bridge::open(state.path()).unwrap();
        assert_eq!(bridge.subnet6().is_some(), has_ipv6);
        Bed { spawner, outside, state, bridge, proxy: Proxy::new(), has_ipv6 }
    }

    fn connect(&self) -> Connection {
        self.bridge.connect(&self.spawner).unwrap()
    }

    fn network(&self, config: &NetworkConfig) -> Bridge {
        Bridge::open_with(self.state.path(), config).unwrap()
    }

    fn publish(&self, connection: &Connection, mappings: &[PortMapping]) -> Published {
        self.bridge.publish(connection, mappings, "web", &self.proxy).unwrap()
    }

    /// Addresses of a list whose IP version the host supports.
    fn usable<const N: usize>(&self, addresses: [IpAddr; N]) -> Vec<IpAddr> {
        addresses.into_iter().filter(|address| self.has_ipv6 || address.is_ipv4()).collect()
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn interfaces() -> String {
    let output = Command::new("ip").args(["-o", "link"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Output of `nft`. `None` where it is not installed, or fails.
fn nft(arguments: &str) -> Option<String> {
    let output = Command::new("nft").args(arguments.split_whitespace()).output().ok()?;
    assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Calls a function in a network namespace.
fn inside<T: Send>(namespace: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> T {
    within(Some(namespace.as_fd()), work)
}

fn within<T: Send>(namespace: Option<BorrowedFd<'_>>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(namespace) = namespace {
                move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).unwrap();
            }
            work()
        });
        thread.join().unwrap()
    })
}

/// Listens in a namespace, for both IP versions.
fn listen(namespace: BorrowedFd<'_>, port: u16) -> TcpListener {
    inside(namespace, || {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .unwrap()
    })
}

fn listen_datagrams(namespace: BorrowedFd<'_>, port: u16) -> UdpSocket {
    let socket = inside(namespace, || {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))
            .unwrap()
    });
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn try_connect(from: Option<BorrowedFd<'_>>, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    within(from, || TcpStream::connect_timeout(&to, patience))
}

/// Connects, sends data both ways, and returns the client's address as the server sees it.
#[track_caller]
fn talk(from: Option<BorrowedFd<'_>>, to: SocketAddr, server: &TcpListener) -> IpAddr {
    let client = try_connect(from, to, LONG);
    let mut client = client.unwrap_or_else(|error| panic!("{to}: {error}"));
    let (mut served, peer) = server.accept().unwrap();
    for stream in [&client, &served] {
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    let mut heard = [0; 5];
    client.write_all(b"hello").unwrap();
    served.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    served.write_all(b"again").unwrap();
    drop(served);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "again");
    peer.ip().to_canonical()
}

/// Sends a datagram, receives an answer, and returns the client's address as the server sees it.
#[track_caller]
fn exchange(from: Option<BorrowedFd<'_>>, to: SocketAddr, server: &UdpSocket) -> IpAddr {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let client = within(from, || UdpSocket::bind((any, 0)).unwrap());
    client.set_read_timeout(Some(LONG)).unwrap();
    client.connect(to).unwrap();
    client.send(b"hello").unwrap();
    let mut heard = [0; 16];
    let (length, peer) = server.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"hello");
    server.send_to(b"again", peer).unwrap();
    let length = client.recv(&mut heard).unwrap_or_else(|error| panic!("{to}: {error}"));
    assert_eq!(&heard[..length], b"again");
    peer.ip().to_canonical()
}

#[track_caller]
fn assert_silent(from: Option<BorrowedFd<'_>>, to: SocketAddr) {
    let result = try_connect(from, to, SILENCE);
    assert!(result.is_err(), "{to} was reached");
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// All addresses of a container.
fn addresses(connection: &Connection) -> Vec<IpAddr> {
    let ipv6 = connection.ipv6.map(|ipv6| IpAddr::V6(ipv6.address));
    [Some(IpAddr::V4(connection.address)), ipv6].into_iter().flatten().collect()
}

fn udp(host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { protocol: Protocol::Udp, ..PortMapping::tcp(host_port, container_port) }
}

const RULES: &str = include_str!("../testdata/network/rules.nft");

fn rules(bed: &Bed) {
    let container = bed.connect();
    let (Some(ipv6), Some(subnet6)) = (container.ipv6, bed.bridge.subnet6()) else {
        println!("SKIPPED: the rules are compared where there is version 6");
        return;
    };
    let one = PortMapping { host_address: Some(MACHINE.into()), ..PortMapping::tcp(8443, 443) };
    let _published = bed.publish(&container, &[one, udp(5353, 53)]);
    let Some(listed) = nft("list table inet kiln") else {
        println!("SKIPPED: the rules are compared where `nft` is installed");
        return;
    };
    let expected = RULES
        .replace("V6", &subnet6.to_string())
        .replace("C4", &container.address.to_string())
        .replace("C6", &ipv6.address.to_string());
    // Versions of nft write priorities differently.
    let plain = |text: &str| text.replace("priority -100;", "priority dstnat;");
    assert_eq!(plain(&listed), plain(&expected));
}

fn advertisements(bed: &Bed) {
    if !bed.has_ipv6 {
        return;
    }
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}")).unwrap();
    assert_eq!(read("all/forwarding").trim(), "1");
    assert_eq!(read("up0/accept_ra").trim(), "2", "an interface that heeded them goes on doing so");
    assert_eq!(read("kiln0/accept_ra").trim(), "0", "containers are not the host's routers");
}

fn outward(bed: &Bed) {
    let container = bed.connect();
    let server = listen(bed.outside.as_fd(), 7000);
    for (there, seen) in [(IpAddr::V4(OUTSIDE), IpAddr::V4(MACHINE)), (OUTSIDE6.into(), MACHINE6.into())] {
        if bed.has_ipv6 || there.is_ipv4() {
            assert_eq!(talk(Some(container.namespace()), at(there, 7000), &server), seen);
        }
    }
    // The container's address needs no duplicate address detection, so the host reaches it at once.
    let server = listen(container.namespace(), 80);
    for address in addresses(&container) {
        talk(None, at(address, 80), &server);
    }
}

fn inward(bed: &Bed) {
    let container = bed.connect();
    let server = listen(container.namespace(), 80);
    let published = bed.publish(&container, &[PortMapping::tcp(8080, 80)]);
    let from = Some(bed.outside.as_fd());
    for (there, seen) in [(IpAddr::V4(MACHINE), IpAddr::V4(OUTSIDE)), (MACHINE6.into(), OUTSIDE6.into())] {
        if bed.has_ipv6 || there.is_ipv4() {
            assert_eq!(talk(from, at(there, 8080), &server), seen);
        }
    }
    // A port on loopback is reachable only from this host.
    drop(published);
    let loopback =
        PortMapping { host_address: Some(Ipv4Addr::LOCALHOST.into()), ..PortMapping::tcp(8080, 80) };
    let _published = bed.publish(&container, &[loopback]);
    assert_silent(from, at(MACHINE, 8080));
    talk(None, at(Ipv4Addr::LOCALHOST, 8080), &server);
}

fn from_machine(bed: &Bed) {
    let container = bed.connect();
    let server = listen(container.namespace(), 80);
    let _published = bed.publish(&container, &[PortMapping::tcp(8080, 80)]);
    let gateway6 = container.ipv6.map_or(IpAddr::V6(Ipv6Addr::LOCALHOST), |ipv6| ipv6.gateway.into());
    for address in bed.usable([
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 9, 9, 9).into(),
        Ipv6Addr::LOCALHOST.into(),
        MACHINE.into(),
        MACHINE6.into(),
        container.gateway.into(),
        gateway6,
    ]) {
        talk(None, at(address, 8080), &server);
    }
    // A program that listens on IPv4 only is reached at ::1 too.
    drop(server);
    let server = inside(container.namespace(), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
    for address in bed.usable([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]) {
        talk(None, at(address, 8080), &server);
    }
    // No program listens: the connection is reset, it does not just end.
    drop(server);
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

fn hairpin(bed: &Bed) {
    let (container, neighbour) = (bed.connect(), bed.connect());
    let server = listen(container.namespace(), 80);
    let _published = bed.publish(&container, &[PortMapping::tcp(8080, 80)]);
    for from in [&container, &neighbour] {
        for address in bed.usable([MACHINE.into(), MACHINE6.into(), container.gateway.into()]) {
            talk(Some(from.namespace()), at(address, 8080), &server);
        }
    }
    // The packets do not pass through the host, so neighbours see each other's own addresses.
    for address in addresses(&container) {
        let seen = talk(Some(neighbour.namespace()), at(address, 80), &server);
        assert!(addresses(&neighbour).contains(&seen));
    }
}

fn datagrams(bed: &Bed) {
    let (container, neighbour) = (bed.connect(), bed.connect());
    let server = listen_datagrams(container.namespace(), 53);
    let published = bed.publish(&container, &[udp(5300, 53)]);
    for (there, seen) in [(IpAddr::V4(MACHINE), IpAddr::V4(OUTSIDE)), (MACHINE6.into(), OUTSIDE6.into())] {
        if bed.has_ipv6 || there.is_ipv4() {
            assert_eq!(exchange(Some(bed.outside.as_fd()), at(there, 5300), &server), seen);
        }
    }
    for address in
        bed.usable([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), MACHINE.into(), MACHINE6.into()])
    {
        exchange(None, at(address, 5300), &server);
    }
    for from in [&container, &neighbour] {
        for address in bed.usable([MACHINE.into(), MACHINE6.into()]) {
            exchange(Some(from.namespace()), at(address, 5300), &server);
        }
    }
    let outside = listen_datagrams(bed.outside.as_fd(), 53);
    for address in bed.usable([OUTSIDE.into(), OUTSIDE6.into()]) {
        exchange(Some(container.namespace()), at(address, 53), &outside);
    }
    drop(published);
}

fn steady_datagrams(bed: &Bed) {
    for address in bed.usable([MACHINE.into(), MACHINE6.into()]) {
        // A sender without pauses keeps its flow in the kernel's connection tracking.
        let any: IpAddr = if address.is_ipv4() { OUTSIDE.into() } else { OUTSIDE6.into() };
        let client = inside(&bed.outside, || UdpSocket::bind((any, 0)).unwrap());
        client.set_read_timeout(Some(LONG)).unwrap();
        client.send_to(b"nobody", (address, 5300)).unwrap();
        for _ in 0..2 {
            let container = bed.connect();
            let server = listen_datagrams(container.namespace(), 53);
            let _published = bed.publish(&container, &[udp(5300, 53)]);
            client.send_to(b"hello", (address, 5300)).unwrap();
            let mut heard = [0; 16];
            let (length, peer) = server.recv_from(&mut heard).unwrap();
            assert_eq!((&heard[..length], peer.ip().to_canonical()), (&b"hello"[..], any));
            server.send_to(b"again", peer).unwrap();
            let (length, from) = client.recv_from(&mut heard).unwrap();
            assert_eq!((&heard[..length], from.ip()), (&b"again"[..], address));
        }
    }
}

fn networks_apart(bed: &Bed) {
    let config = NetworkConfig { bridge: "kiln-two".to_owned(), ..NetworkConfig::default() };
    let two = bed.network(&config);
    assert_ne!((two.subnet(), two.subnet6()), (bed.bridge.subnet(), bed.bridge.subnet6()));
    let (container, stranger) = (bed.connect(), two.connect(&bed.spawner).unwrap());
    let server = listen(container.namespace(), 80);
    let _published = bed.publish(&container, &[PortMapping::tcp(8080, 80)]);
    for address in addresses(&container) {
        assert_silent(Some(stranger.namespace()), at(address, 80));
    }
    // A published port is open to other networks, and keeps the client's address.
    for address in bed.usable([MACHINE.into(), MACHINE6.into()]) {
        let seen = talk(Some(stranger.namespace()), at(address, 8080), &server);
        assert!(addresses(&stranger).contains(&seen), "{seen}");
    }
    let outside = listen(bed.outside.as_fd(), 7000);
    talk(Some(stranger.namespace()), at(OUTSIDE, 7000), &outside);
    // A host with a route to a container cannot reach it either.
    inside(&bed.outside, || ip(&format!("route add {} via {MACHINE}", bed.bridge.subnet())));
    assert_silent(Some(bed.outside.as_fd()), at(container.address, 80));
    inside(&bed.outside, || ip(&format!("route del {}", bed.bridge.subnet())));

    let removed = Bridge::remove(bed.state.path(), "kiln-two");
    assert!(matches!(removed, Err(NetworkError::InUse(_))), "{removed:?}");
    drop(stranger);
    Bridge::remove(bed.state.path(), "kiln-two").unwrap();
    assert!(!interfaces().contains("kiln-two"));
    Bridge::remove(bed.state.path(), "kiln-two").expect("one that is not there is fine");
}

fn internal(bed: &Bed) {
    let config = NetworkConfig { bridge: "kiln-in".to_owned(), internal: true, ..NetworkConfig::default() };
    let bridge = bed.network(&config);
    let (one, two) = (bridge.connect(&bed.spawner).unwrap(), bridge.connect(&bed.spawner).unwrap());
    let server = listen(two.namespace(), 80);
    for address in addresses(&two) {
        talk(Some(one.namespace()), at(address, 80), &server);
    }
    let mapping = [PortMapping::tcp(8080, 80)];
    let error = bridge.publish(&two, &mapping, "web", &bed.proxy).unwrap_err();
    assert_eq!(error.to_string(), "ports cannot be published in an internal network");
    let outside = try_connect(Some(one.namespace()), at(OUTSIDE, 7000), LONG);
    assert_eq!(outside.unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
    // A container that adds a route to itself cannot leave the network either.
    let container = bed.connect();
    let _listening = listen(container.namespace(), 80);
    let _published = bed.publish(&container, &mapping);
    let _outside = listen(bed.outside.as_fd(), 7000);
    inside(one.namespace(), || ip(&format!("route add default via {}", one.gateway)));
    assert_silent(Some(one.namespace()), at(OUTSIDE, 7000));
    assert_silent(Some(one.namespace()), at(container.address, 80));
    assert_silent(Some(one.namespace()), at(MACHINE, 8080));
    let differs = Bridge::open_with(bed.state.path(), &NetworkConfig { internal: false, ..config });
    assert!(matches!(differs, Err(NetworkError::Differs(_))));
    drop((one, two));
    Bridge::remove(bed.state.path(), "kiln-in").unwrap();
}

fn members_apart(bed: &Bed) {
    let config = NetworkConfig {
        bridge: "kiln-apart".to_owned(),
        isolated_members: true,
        mtu: Some(1400),
        ..NetworkConfig::default()
    };
    let bridge = bed.network(&config);
    let (one, two) = (bridge.connect(&bed.spawner).unwrap(), bridge.connect(&bed.spawner).unwrap());
    let _listening = listen(two.namespace(), 80);
    for address in addresses(&two) {
        assert_silent(Some(one.namespace()), at(address, 80));
    }
    let outside = listen(bed.outside.as_fd(), 7000);
    talk(Some(one.namespace()), at(OUTSIDE, 7000), &outside);
    let mtu = inside(one.namespace(), || Command::new("ip").args(["link", "show", "eth0"]).output());
    let mtu = String::from_utf8(mtu.unwrap().stdout).unwrap();
    assert!(mtu.contains("mtu 1400"), "{mtu}");
    drop((one, two));
    Bridge::remove(bed.state.path(), "kiln-apart").unwrap();
}

fn two_networks(bed: &Bed) {
    let config = NetworkConfig { bridge: "kiln-two".to_owned(), ..NetworkConfig::default() };
    let two = bed.network(&config);
    let container = bed.connect();
    let joined = two.join(container.namespace(), "eth1", &Place::default()).unwrap();
    let neighbour = two.connect(&bed.spawner).unwrap();
    let server = listen(container.namespace(), 80);
    for address in addresses(&joined) {
        talk(Some(neighbour.namespace()), at(address, 80), &server);
    }
    let outside = listen(bed.outside.as_fd(), 7000);
    talk(Some(container.namespace()), at(OUTSIDE, 7000), &outside);
    drop((joined, neighbour));
    Bridge::remove(bed.state.path(), "kiln-two").unwrap();
}

fn chosen_addresses(bed: &Bed) {
    let subnet = Subnet::new([10, 99, 0, 0], 24);
    let config = NetworkConfig {
        bridge: "kiln-own".to_owned(),
        ipv4: Some(subnet),
        gateway: Some(Ipv4Addr::new(10, 99, 0, 254)),
        ipv6: Ipv6::Off,
        ..NetworkConfig::default()
    };
    let bridge = bed.network(&config);
    assert_eq!(bridge.gateway(), Ipv4Addr::new(10, 99, 0, 254));
    let wanted = Ipv4Addr::new(10, 99, 0, 77);
    let place = Place { ipv4: Some(wanted), mac: Some([2, 0, 0, 0, 0, 7]), ..Place::default() };
    let container = bridge.connect_at(&bed.spawner, &place).unwrap();
    assert_eq!((container.address, container.ipv6, container.mac), (wanted, None, [2, 0, 0, 0, 0, 7]));
    let again = bridge.connect_at(&bed.spawner, &place).unwrap_err();
    assert_eq!(again.to_string(), "the address 10.99.0.77 is in use");
    let foreign = Place { ipv4: Some(Ipv4Addr::new(10, 98, 0, 1)), ..Place::default() };
    let error = bridge.connect_at(&bed.spawner, &foreign).unwrap_err();
    assert_eq!(error.to_string(), "the address 10.98.0.1 cannot be used in 10.99.0.0/24");
    let overlapping = NetworkConfig { bridge: "kiln-other".to_owned(), gateway: None, ..config };
    let error = Bridge::open_with(bed.state.path(), &overlapping).unwrap_err();
    assert_eq!(error.to_string(), "the subnet 10.99.0.0/24 overlaps with a network of this host");
    drop(container);
    Bridge::remove(bed.state.path(), "kiln-own").unwrap();
}

fn range(bed: &Bed) {
    let container = bed.connect();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mapping = PortMapping { count: 10_000, ..PortMapping::tcp(20_000, 30_000) };
    let started = Instant::now();
    let published = bed.publish(&container, &[mapping]);
    let (took, more) = (started.elapsed(), descriptors() - before);
    assert!(more < 10, "{more} descriptors");
    for port in [0, 4_321, 9_999] {
        let server = listen(container.namespace(), 30_000 + port);
        for address in bed.usable([
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            MACHINE.into(),
            MACHINE6.into(),
        ]) {
            talk(None, at(address, 20_000 + port), &server);
        }
        let seen = talk(Some(bed.outside.as_fd()), at(MACHINE, 20_000 + port), &server);
        assert_eq!(seen, IpAddr::V4(OUTSIDE));
    }
    let neighbour = bed.connect();
    let one = [PortMapping::tcp(25_000, 80)];
    let error = bed.bridge.publish(&neighbour, &one, "other", &bed.proxy).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Bind for 0.0.0.0:25000 failed: port is already allocated by container `web`"
    );
    let started = Instant::now();
    drop(published);
    print!("{took:.1?} to publish, {:.1?} to withdraw ... ", started.elapsed());
    assert!(took < Duration::from_secs(1), "{took:?}");
    bed.bridge.publish(&neighbour, &one, "other", &bed.proxy).unwrap();
}

fn conflicts(bed: &Bed) {
    let (container, neighbour) = (bed.connect(), bed.connect());
    let published = bed.publish(&container, &[PortMapping::tcp(8080, 80)]);
    let fails = |mapping: PortMapping| {
        bed.bridge.publish(&neighbour, &[mapping], "other", &bed.proxy).unwrap_err().to_string()
    };
    let all = "Bind for 0.0.0.0:8080 failed: port is already allocated";
    assert_eq!(fails(PortMapping::tcp(8080, 80)), format!("{all} by container `web`"));
    let one = PortMapping { host_address: Some(MACHINE.into()), ..PortMapping::tcp(8080, 80) };
    assert_eq!(
        fails(one.clone()),
        "Bind for 192.0.2.1:8080 failed: port is already allocated by container `web`"
    );
    let twice = bed.bridge.publish(&container, &[PortMapping::tcp(8081, 80)], "web", &bed.proxy);
    assert!(matches!(twice, Err(PublishError::Twice)));
    // The other protocol is a separate port, and is free again at once.
    drop(bed.bridge.publish(&neighbour, &[udp(8080, 80)], "other", &bed.proxy).unwrap());
    drop(published);
    let two = [one, PortMapping { host_address: Some(OUTSIDE.into()), ..PortMapping::tcp(8080, 80) }];
    let error = bed.bridge.publish(&neighbour, &two, "other", &bed.proxy).unwrap_err();
    assert_eq!(error.to_string(), "cannot bind 192.0.2.9:8080/tcp");
    drop(bed.bridge.publish(&neighbour, &[PortMapping::tcp(8080, 80)], "other", &bed.proxy).unwrap());

    // A program uses the port.
    let program = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
    let (pid, name) = (std::process::id(), fs::read_to_string("/proc/self/comm").unwrap());
    let by = format!("{all} by process {pid} (`{}`)", name.trim());
    assert_eq!(fails(PortMapping::tcp(8080, 80)), by);
    let many = PortMapping { count: 1000, ..PortMapping::tcp(8000, 80) };
    assert_eq!(fails(many), by);
    drop(program);
    let outside = PortMapping { count: 10, ..PortMapping::tcp(65_530, 80) };
    assert_eq!(fails(outside), "10 ports from 65530 on are more than there are");
}

fn any_port(bed: &Bed) {
    let container = bed.connect();
    let server = listen(container.namespace(), 80);
    let mappings = [PortMapping { count: 3, ..PortMapping::tcp(0, 79) }, udp(0, 53)];
    let published = bed.publish(&container, &mappings);
    let versions = bed.usable([Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    assert_eq!(published.bindings().len(), 4 * versions.len());
    let of_80: Vec<&Binding> =
        published.bindings().iter().filter(|binding| binding.container_port == 80).collect();
    assert_eq!(of_80.iter().map(|binding| binding.host_address).collect::<Vec<_>>(), versions);
    assert!(of_80.iter().all(|binding| binding.host_port == of_80[0].host_port));
    talk(Some(bed.outside.as_fd()), at(MACHINE, of_80[0].host_port), &server);
}

fn bulk(bed: &Bed) {
    const LENGTH: usize = 64 << 20;
    let container = bed.connect();
    let server = listen(container.namespace(), 80);
    let _published = bed.publish(&container, &[PortMapping::tcp(8080, 80)]);
    let word = |place: usize| (place as u32).wrapping_mul(2_654_435_761).to_ne_bytes();
    let data: Vec<u8> = (0..LENGTH / 4).flat_map(word).collect();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
    let (served, _) = server.accept().unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for stream in [&client, &served] {
            let data = &data;
            scope.spawn(move || {
                let mut stream = stream;
                stream.write_all(data).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let (mut stream, mut heard) = (stream, Vec::with_capacity(LENGTH));
                stream.read_to_end(&mut heard).unwrap();
                assert!(heard == *data, "{} bytes have come", heard.len());
            });
        }
    });
    let rate = 2.0 * LENGTH as f64 / started.elapsed().as_secs_f64() / 1e6;
    print!("{rate:.0} MB/s ... ");
}

/// Publishes a port until it is killed.
fn publisher() {
    let spawner = Spawner::start().unwrap();
    let state = std::env::var_os("KILN_TEST_STATE").unwrap();
    let bridge = Bridge::open(Path::new(&state)).unwrap();
    let container = bridge.connect(&spawner).unwrap();
    let many = PortMapping { count: 1000, ..PortMapping::tcp(9000, 80) };
    let proxy = Proxy::new();
    let _published = bridge.publish(&container, &[PortMapping::tcp(8080, 80), many], "killed", &proxy);
    _published.as_ref().unwrap();
    println!("{}", container.address);
    let _ = io::stdin().read(&mut [0; 1]);
}

fn killed(bed: &Bed) {
    let mut publisher = Command::new(std::env::current_exe().unwrap())
        .env("KILN_TEST_ROLE", "publisher")
        .env("KILN_TEST_STATE", bed.state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(publisher.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let address: Ipv4Addr = address.trim().parse().unwrap();
    let ports = || {
        let dir = fs::read_dir(bed.state.path()).unwrap().next().unwrap().unwrap().path();
        fs::read_dir(dir.join("ports")).unwrap().count()
    };
    assert_eq!(ports(), 1);
    // While the process runs, other processes leave its ports alone.
    drop(Bridge::open(bed.state.path()).unwrap());
    assert_eq!(ports(), 1);
    publisher.kill().unwrap();
    publisher.wait().unwrap();
    // The next user of the address does not get the ports.
    let container = bed.connect();
    assert_eq!(container.address, address);
    assert_eq!(ports(), 0);
    let _listening = listen(container.namespace(), 80);
    let refused = try_connect(Some(bed.outside.as_fd()), at(MACHINE, 8080), LONG).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    for map in ["anywhere4", "anywhere6", "loopback4", "loopback6"] {
        let listed = nft(&format!("list map inet kiln {map}")).unwrap_or_default();
        assert!(!listed.contains("elements"), "{listed}");
    }
}

fn restored(bed: &Bed) {
    let (container, neighbour) = (bed.connect(), bed.connect());
    let server = listen(container.namespace(), 80);
    let _published = bed.publish(&container, &[PortMapping::tcp(8080, 80)]);
    if nft("delete table inet kiln").is_none() {
        println!("SKIPPED: needs `nft`");
        return;
    }
    // Publishing for another container restores the rules of all.
    let _other = bed.publish(&neighbour, &[PortMapping::tcp(8081, 80)]);
    assert_eq!(talk(Some(bed.outside.as_fd()), at(MACHINE, 8080), &server), IpAddr::V4(OUTSIDE));
    let outside = listen(bed.outside.as_fd(), 7000);
    assert_eq!(talk(Some(container.namespace()), at(OUTSIDE, 7000), &outside), IpAddr::V4(MACHINE));
}

fn many(bed: &Bed) {
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let started = Instant::now();
            bed.connect();
            started.elapsed()
        })
        .collect();
    times.sort();
    let mut opens: Vec<Duration> = (0..100)
        .map(|_| {
            let started = Instant::now();
            Bridge::open(bed.state.path()).unwrap();
            started.elapsed()
        })
        .collect();
    opens.sort();
    let started = Instant::now();
    let connections: Vec<Connection> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..200).map(|_| scope.spawn(|| bed.connect())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let all = started.elapsed();
    let addresses: HashSet<IpAddr> = connections.iter().flat_map(addresses).collect();
    assert_eq!(addresses.len(), connections.len() * if bed.has_ipv6 { 2 } else { 1 });
    let (first, last) = (&connections[0], &connections[199]);
    let server = listen(last.namespace(), 80);
    talk(Some(first.namespace()), at(last.address, 80), &server);
    print!("{:.2?} to connect, {:.2?} to open, {all:.0?} for 200 at once ... ", times[50], opens[50]);
}

fn nothing_left(bed: &Bed) {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let round = || {
        let container = bed.connect();
        let server = listen(container.namespace(), 80);
        let datagrams = listen_datagrams(container.namespace(), 53);
        let _published = bed.publish(&container, &[PortMapping::tcp(8080, 80), udp(5300, 53)]);
        talk(None, at(Ipv4Addr::LOCALHOST, 8080), &server);
        exchange(None, at(Ipv4Addr::LOCALHOST, 5300), &datagrams);
    };
    round();
    let before = descriptors();
    for _ in 0..5 {
        round();
    }
    assert_eq!(descriptors(), before, "descriptors leak");
    let dir = fs::read_dir(bed.state.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(dir.join("ports")).unwrap().count(), 0);
    let bridges: Vec<_> =
        fs::read_dir(dir.join("bridges")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(bridges, ["kiln0"]);
    for map in ["at4", "at6", "anywhere4", "anywhere6", "loopback4", "loopback6"] {
        let Some(listed) = nft(&format!("list map inet kiln {map}")) else { break };
        assert!(!listed.contains("elements"), "{listed}");
    }
    // The thread ends with the last user of the proxy.
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let own = Proxy::new();
    let with = threads();
    let container = bed.connect();
    let published = bed.bridge.publish(&container, &[PortMapping::tcp(8080, 80)], "web", &own).unwrap();
    assert_eq!(threads(), with + 1);
    drop(published);
    drop(own);
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).expect("the port is free at once");
}

fn user_mode(_bed: &Bed) {
    // Accessible to all users, as under udev.
    let device = tempfile::tempdir().unwrap();
    fs::set_permissions(device.path(), fs::Permissions::from_mode(0o777)).unwrap();
    ip("route add default via 192.0.2.9");
    let dir = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = format!(
        "mknod -m 666 {0}/tun c 10 200 && mount --bind {0}/tun /dev/net/tun && \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\"",
        device.path().display()
    );
    let program = std::env::current_exe().unwrap();
    let copy = device.path().join("test");
    fs::copy(program, &copy).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(&copy)
        .env("KILN_TEST_ROLE", "user")
        .env("KILN_TEST_STATE", dir.path())
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ip("route del default");
}

/// Tests of an unprivileged user: both programs, each for a new namespace.
fn without_privileges() {
    let state = std::env::var_os("KILN_TEST_STATE").unwrap();
    for program in [Program::Pasta, Program::Slirp4netns] {
        let place = Path::new("/usr/bin").join(program.name());
        if !place.exists() {
            println!("SKIPPED: `{}` is not installed", program.name());
            continue;
        }
        // The shell reports when it is in its namespaces.
        let script = "echo in; read line";
        let container = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut container = container.unwrap();
        let mut said = String::new();
        BufReader::new(container.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "in\n" {
            println!("SKIPPED: users may not make user namespaces here");
            container.wait().unwrap();
            return;
        }
        let pid = container.id();
        let config = UserModeConfig {
            namespace: format!("/proc/{pid}/ns/net").into(),
            user_namespace: Some(format!("/proc/{pid}/ns/user").into()),
            ports: vec![Binding {
                host_address: Ipv4Addr::UNSPECIFIED.into(),
                host_port: 18_080,
                container_port: 80,
                count: 1,
                protocol: Protocol::Tcp,
            }],
            dir: state.clone().into(),
        };
        let started = Instant::now();
        let running = UserMode::start_with(program, &place, &config).unwrap();
        let took = started.elapsed();
        let interfaces = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
        assert!(interfaces.contains("eth0"), "{interfaces}");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 18_080)).expect_err("the port is the program's");
        print!("{} {took:.0?} ... ", program.name());
        drop(running);
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 18_080)).expect("it has ended");
        drop(container.stdin.take());
        container.wait().unwrap();
    }
}
