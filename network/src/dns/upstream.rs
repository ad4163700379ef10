//! Servers that are asked for the names that no container has.

use super::super::resolv;
use rustix::net::{AddressFamily, SocketType};
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Port of name servers.
const PORT: u16 = 53;
/// Time for which a server that did not answer is asked after the others.
const AVOIDED: Duration = Duration::from_secs(30);
/// Addresses of the stub of systemd-resolved.
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
/// Most servers whose behaviour is remembered.
const REMEMBERED: usize = 256;

/// Servers of the host, and the behaviour of all that were asked.
#[derive(Debug)]
pub(super) struct Upstreams {
    path: PathBuf,
    /// State of the file when it was read; `None` when there was none.
    seen: Option<Seen>,
    servers: Vec<SocketAddr>,
    behaviour: HashMap<SocketAddr, Behaviour>,
}

/// State of a file: device, inode, time of the last change, size.
type Seen = (u64, u64, i64, i64, u64);

#[derive(Debug, Default)]
struct Behaviour {
    last_answer: Option<Instant>,
    avoided_until: Option<Instant>,
}

impl Upstreams {
    /// Servers in the file `path`, which has the form of `/etc/resolv.conf`.
    pub(super) fn new(path: &Path) -> Upstreams {
        let mut upstreams =
            Upstreams { path: path.to_owned(), seen: None, servers: Vec::new(), behaviour: HashMap::new() };
        upstreams.read();
        upstreams
    }

    /// Servers to ask, in order: `own`, or those of the host if that is empty. Those that did not answer lately are the
    /// last.
    pub(super) fn in_order(&mut self, own: &[IpAddr], now: Instant) -> Vec<SocketAddr> {
        let mut servers: Vec<SocketAddr> =
            own.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
        if servers.is_empty() {
            if seen(&self.path) != self.seen {
                self.read();
            }
            servers.clone_from(&self.servers);
        }
        let is_avoided = |server: &SocketAddr| {
            let until = self.behaviour.get(server).and_then(|behaviour| behaviour.avoided_until);
            until.is_some_and(|until| until > now)
        };
        // The sort keeps the order of the others.
        servers.sort_by_key(is_avoided);
        servers
    }

    pub(super) fn has_answered(&mut self, server: SocketAddr, now: Instant) {
        let behaviour = Behaviour { last_answer: Some(now), avoided_until: None };
        self.remember(server, behaviour);
    }

    /// Notes that a server did not answer a query of the time `asked`. One that answered another query meanwhile is
    /// not avoided.
    pub(super) fn is_silent(&mut self, server: SocketAddr, asked: Instant, now: Instant) {
        let last_answer = self.behaviour.get(&server).and_then(|behaviour| behaviour.last_answer);
        if last_answer.is_none_or(|last| last < asked) {
            self.remember(server, Behaviour { last_answer, avoided_until: Some(now + AVOIDED) });
        }
    }

    fn remember(&mut self, server: SocketAddr, behaviour: Behaviour) {
        if self.behaviour.len() >= REMEMBERED && !self.behaviour.contains_key(&server) {
            self.behaviour.clear();
        }
        self.behaviour.insert(server, behaviour);
    }

    fn read(&mut self) {
        self.seen = seen(&self.path);
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        self.servers = servers(&read(&self.path), || read(Path::new(resolv::RESOLVED)));
    }
}

fn seen(path: &Path) -> Option<Seen> {
    let data = fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
}

/// Servers of a `resolv.conf`. Those on loopback are among them: this process is where they listen, and the stub of
/// systemd-resolved alone knows which server of a VPN has which domain. The servers that the stub would ask are asked
/// where it does not answer. Without any server it is the one on loopback, as in the C library.
fn servers(own: &str, resolved: impl FnOnce() -> String) -> Vec<SocketAddr> {
    let mut servers = listed(own);
    let is_stub = |server: &SocketAddr| STUBS.contains(&server.ip());
    if servers.iter().any(is_stub) {
        let more: Vec<SocketAddr> =
            listed(&resolved()).into_iter().filter(|server| !servers.contains(server)).collect();
        servers.extend(more);
    }
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    servers
}

fn listed(text: &str) -> Vec<SocketAddr> {
    text.lines().filter_map(resolv::server).filter_map(address).collect()
}

/// Address of a server; one of a link has the name or the number of an interface behind `%`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, PORT));
    };
    let index = zone.parse().ok().or_else(|| {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None).ok()?;
        rustix::net::netdevice::name_to_index(&socket, zone).ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_host() {
        let check = |own: &str, resolved: &str, expected: &[&str]| {
            let servers: Vec<String> =
                servers(own, || resolved.to_owned()).iter().map(SocketAddr::to_string).collect();
            assert_eq!(servers, expected, "{own:?}");
        };
        check("search lan\n", "", &["127.0.0.1:53"]);
        check(
            "nameserver 127.0.0.1\nnameserver ::1\n#nameserver 1.1.1.1\n",
            "x",
            &["127.0.0.1:53", "[::1]:53"],
        );
        let upstream = "nameserver 192.168.1.1\nnameserver 127.0.0.53\n";
        check("nameserver 127.0.0.53\n", upstream, &["127.0.0.53:53", "192.168.1.1:53"]);
        check("nameserver fe80::1%2\nnameserver fe80::1%no-such\n", "", &["[fe80::1%2]:53"]);
        check("nameserver fe80::1%lo\n", "", &["[fe80::1%1]:53"]);
    }

    #[test]
    fn silent_servers_come_last_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n").unwrap();
        let mut upstreams = Upstreams::new(&path);
        let start = Instant::now();
        let check = |upstreams: &mut Upstreams, after: Duration, expected: [u8; 2]| {
            let servers = upstreams.in_order(&[], start + after);
            let expected = expected.map(|last| SocketAddr::from(([10, 0, 0, last], PORT)));
            assert_eq!(servers, expected, "after {after:?}");
        };
        let (first, second) = (Duration::from_secs(1), Duration::from_secs(2));
        let server = SocketAddr::from(([10, 0, 0, 1], PORT));
        check(&mut upstreams, Duration::ZERO, [1, 2]);
        upstreams.is_silent(server, start, start + first);
        check(&mut upstreams, second, [2, 1]);
        check(&mut upstreams, AVOIDED + second, [1, 2]);
        upstreams.has_answered(server, start + second);
        check(&mut upstreams, second, [1, 2]);
        // It has answered another query after this one was sent.
        upstreams.is_silent(server, start + first, start + second);
        check(&mut upstreams, second, [1, 2]);
        assert_eq!(
            upstreams.in_order(&[[10, 0, 0, 9].into()], start),
            [SocketAddr::from(([10, 0, 0, 9], PORT))]
        );
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut upstreams = Upstreams::new(&path);
        let now = Instant::now();
        assert_eq!(upstreams.in_order(&[], now), [SocketAddr::from(([127, 0, 0, 1], PORT))]);
        for last in [1, 2] {
            let beside = dir.path().join("new");
            fs::write(&beside, format!("nameserver 10.0.0.{last}\n")).unwrap();
            fs::rename(&beside, &path).unwrap();
            assert_eq!(upstreams.in_order(&[], now), [SocketAddr::from(([10, 0, 0, last], PORT))]);
        }
    }
}
