//! Ports of a project: which are published, and the addresses at which its container is reached.

use crate::commands::ports;
use kiln_engine::settings::PortRequest;
use kiln_engine::settings::ports::exposed;
use kiln_engine::{Container, NetworkMode};
use kiln_network::Protocol;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Address at which exposed ports are published.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Ports at which servers speak TLS.
const TLS: [&str; 2] = ["443/tcp", "8443/tcp"];

/// Ports of the host by those of a container such as `80/tcp`.
pub(super) type Chosen = BTreeMap<String, u16>;

/// Publishes the ports that an image exposes for this host: each on the port of the host that it had before, or the one
/// with the same number, or a free one.
pub(super) fn requests<'a>(
    image: impl IntoIterator<Item = &'a String>,
    before: &Chosen,
    is_free: impl Fn(u16, Protocol) -> bool,
) -> Vec<PortRequest> {
    let all = image.into_iter().flat_map(|text| exposed(text).unwrap_or_default());
    let requests = all.filter_map(|port| {
        let (number, protocol) = port.split_once('/')?;
        let (number, protocol) = (number.parse().ok()?, protocol.parse().ok()?);
        let mut wanted = before.get(&port).copied().into_iter().chain([number]);
        let host = wanted.find(|wanted| is_free(*wanted, protocol));
        Some(PortRequest {
            address: Some(OWN),
            host: host.map(|port| (port, port)),
            container: (number, number),
            protocol,
        })
    });
    requests.collect()
}

/// True when no program of this host uses a port.
pub(super) fn is_free(port: u16, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => TcpListener::bind((OWN, port)).is_ok(),
        Protocol::Udp => UdpSocket::bind((OWN, port)).is_ok(),
        Protocol::Sctp => true,
    }
}

/// Published ports of a container that runs.
pub(super) fn chosen(container: &Container) -> Chosen {
    ports::lines(container).into_iter().map(|(port, address)| (port, address.port())).collect()
}

/// Addresses at which this host reaches the TCP ports of a container.
pub(super) fn urls(container: &Container) -> Vec<String> {
    let mut lines = ports::lines(container);
    if container.settings.network == NetworkMode::Host {
        let exposed = container.settings.exposed.iter();
        let number = |port: &String| port.split('/').next().and_then(|port| port.parse().ok());
        lines =
            exposed.filter_map(|port| Some((port.clone(), SocketAddr::new(OWN, number(port)?)))).collect();
    }
    urls_of(&lines)
}

fn urls_of(lines: &[(String, SocketAddr)]) -> Vec<String> {
    let mut urls = Vec::new();
    for (port, address) in lines.iter().filter(|(port, _)| port.ends_with("/tcp")) {
        let reached = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(OWN, address.port()),
            // Published on all addresses of both versions: one is enough.
            IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(OWN, address.port()),
            _ => *address,
        };
        let scheme = if TLS.contains(&port.as_str()) { "https" } else { "http" };
        let url = format!("{scheme}://{reached}");
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_keep_their_numbers_where_they_are_free() {
        let image: Vec<String> = ["80/tcp", "53/udp", "8000-8001/tcp"].map(str::to_owned).into();
        let read = |before: &Chosen, taken: &[u16]| -> Vec<String> {
            let requests = requests(&image, before, |port, _| !taken.contains(&port));
            let shown = |request: &PortRequest| {
                let host = request.host.map_or_else(|| "any".to_owned(), |(port, _)| port.to_string());
                format!("{host}:{}/{}", request.container.0, request.protocol)
            };
            requests.iter().map(shown).collect()
        };
        let before = Chosen::new();
        assert_eq!(read(&before, &[80]), ["any:80/tcp", "53:53/udp", "8000:8000/tcp", "8001:8001/tcp"]);
        let before = Chosen::from([("80/tcp".to_owned(), 4711), ("8000/tcp".to_owned(), 8888)]);
        assert_eq!(read(&before, &[8888]), ["4711:80/tcp", "53:53/udp", "8000:8000/tcp", "8001:8001/tcp"]);
    }

    #[test]
    fn urls_are_those_of_this_host() {
        let line = |port: &str, address: &str| (port.to_owned(), address.parse().unwrap());
        let lines = [
            line("80/tcp", "0.0.0.0:8080"),
            line("80/tcp", "[::]:8080"),
            line("53/udp", "127.0.0.1:53"),
            line("443/tcp", "127.0.0.1:8443"),
            line("81/tcp", "[::1]:81"),
        ];
        assert_eq!(urls_of(&lines), ["http://127.0.0.1:8080", "https://127.0.0.1:8443", "http://[::1]:81"]);
    }
}
