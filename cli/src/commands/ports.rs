//! Texts of published ports, in the forms of `kiln ps`, `kiln port` and `kiln inspect`.

use crate::ui;
use kiln_engine::Container;
use kiln_engine::settings::ports::by_port;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Place of a published port on the host, with the names of Docker's fields.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostPort {
    host_ip: String,
    host_port: String,
}

/// Places on the host by the container's port, `None` for one that is only exposed; none while it does not
/// run.
pub(super) fn in_use(container: &Container) -> BTreeMap<String, Option<Vec<HostPort>>> {
    if container.endpoints.is_empty() {
        return BTreeMap::new();
    }
    let place = |(address, port): (IpAddr, u16)| HostPort {
        host_ip: address.to_string(),
        host_port: port.to_string(),
    };
    let places = |list: Vec<(IpAddr, u16)>| {
        (!list.is_empty()).then(|| list.into_iter().map(place).collect::<Vec<HostPort>>())
    };
    let all = by_port(&container.settings.exposed, container.bindings());
    all.into_iter().map(|(port, list)| (port, places(list))).collect()
}

/// Ports that the user wants to be published, by the container's port.
pub(super) fn wanted(container: &Container) -> BTreeMap<String, Vec<HostPort>> {
    let mut all: BTreeMap<String, Vec<HostPort>> = BTreeMap::new();
    for request in &container.settings.published.ports {
        let is_choice = request.container.0 == request.container.1;
        for (place, port) in request.container_ports().enumerate() {
            let host_port = match request.host {
                None => String::new(),
                Some((first, last)) if is_choice && first != last => format!("{first}-{last}"),
                Some((first, _)) => (usize::from(first) + place).to_string(),
            };
            let host_ip = request.address.map_or_else(String::new, |address| address.to_string());
            all.entry(port).or_default().push(HostPort { host_ip, host_port });
        }
    }
    all
}

/// Lines of `kiln port`: the container's port, and its address on the host.
pub(super) fn lines(container: &Container) -> Vec<(String, SocketAddr)> {
    let all = by_port(&container.settings.exposed, container.bindings());
    let mut lines: Vec<(String, SocketAddr)> = all
        .into_iter()
        .flat_map(|(port, list)| list.into_iter().map(move |place| (port.clone(), SocketAddr::from(place))))
        .collect();
    lines.sort_by_key(|(port, address)| (number(port), port.clone(), address.is_ipv6()));
    lines
}

/// Port of a container as it is shown: number, address of the host, port of the host, protocol. The address of a port
/// that is only exposed is empty.
type Shown = (u16, String, u16, String);

/// Column of `kiln ps`, in Docker's form: consecutive ports that have the same number on the host are one entry, other
/// published ports follow one by one.
pub(super) fn column(container: &Container) -> String {
    if container.endpoints.is_empty() {
        return String::new();
    }
    let mut shown: Vec<Shown> = Vec::new();
    for (port, list) in by_port(&container.settings.exposed, container.bindings()) {
        let protocol = port.split_once('/').map_or("tcp", |(_, protocol)| protocol).to_owned();
        if list.is_empty() {
            shown.push((number(&port), String::new(), 0, protocol.clone()));
        }
        shown.extend(list.into_iter().map(|(address, public)| {
            let address = match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            (number(&port), address, public, protocol.clone())
        }));
    }
    shown.sort();
    entries(shown).join(", ")
}

fn entries(shown: Vec<Shown>) -> Vec<String> {
    let (mut ended, mut single) = (Vec::new(), Vec::new());
    // Address, protocol, first and last port of each range that may go on.
    let mut ranges: Vec<(String, String, u16, u16)> = Vec::new();
    for (port, address, public, protocol) in shown {
        if !address.is_empty() && public != port {
            single.push(format!("{address}:{public}->{port}/{protocol}"));
            continue;
        }
        match ranges.iter_mut().find(|range| range.0 == address && range.1 == protocol) {
            Some(range) if range.3.checked_add(1) == Some(port) => range.3 = port,
            Some(range) => {
                ended.push(entry(range));
                (range.2, range.3) = (port, port);
            }
            None => ranges.push((address, protocol, port, port)),
        }
    }
    ended.extend(ranges.iter().map(entry));
    ended.extend(single);
    ended
}

fn entry((address, protocol, first, last): &(String, String, u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match address.is_empty() {
        true => format!("{range}/{protocol}"),
        false => format!("{address}:{range}->{range}/{protocol}"),
    }
}

/// Prints at which addresses other hosts reach the ports of a container that are published on all of them, when a terminal
/// listens.
pub(super) fn tell_of_exposure(container: &Container) {
    if !ui::is_terminal() {
        return;
    }
    // Addresses are asked for only where they are shown.
    let open: Vec<u16> = open_ports(&lines(container));
    if open.is_empty() {
        return;
    }
    let own = container.endpoints.iter().flat_map(|endpoint| {
        let ipv6 = endpoint.ipv6.as_ref().map(|ipv6| IpAddr::V6(ipv6.gateway));
        [Some(IpAddr::V4(endpoint.gateway)), ipv6]
    });
    let own: Vec<IpAddr> = own.flatten().collect();
    let addresses = kiln_network::host_addresses().unwrap_or_default();
    let addresses = addresses.into_iter().filter(|address| !own.contains(address));
    if let Some(text) = exposure(&open, &addresses.collect::<Vec<_>>()) {
        ui::tell_line(&text);
    }
}

/// Ports of the host that are published on all addresses.
fn open_ports(lines: &[(String, SocketAddr)]) -> Vec<u16> {
    let mut open: Vec<u16> = Vec::new();
    for (_, address) in lines.iter().filter(|(_, address)| address.ip().is_unspecified()) {
        if !open.contains(&address.port()) {
            open.push(address.port());
        }
    }
    open
}

/// Text about the ports that are published on all addresses of a host; `None` when the host has only loopback addresses.
fn exposure(open: &[u16], addresses: &[IpAddr]) -> Option<String> {
    /// Most addresses of the host, and most ports, that are listed.
    const MOST: usize = 4;
    let is_reached = |address: &&IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let reached: Vec<&IpAddr> = addresses.iter().filter(is_reached).collect();
    if reached.is_empty() || open.is_empty() {
        return None;
    }
    let places = reached
        .iter()
        .take(MOST)
        .flat_map(|address| open.iter().take(MOST).map(|port| SocketAddr::new(**address, *port).to_string()));
    let more = if reached.len() > MOST || open.len() > MOST { " and others" } else { "" };
    let places = places.collect::<Vec<_>>().join(", ");
    let port = open[0];
    Some(format!(
        "reachable from other hosts at {places}{more}; publish it for this host only: -p 127.0.0.1:{port}:PORT"
    ))
}

/// Number of a port such as `80/tcp`.
fn number(port: &str) -> u16 {
    port.split('/').next().and_then(|port| port.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_is_said_with_addresses() {
        let addresses = ["127.0.0.1", "192.0.2.7", "::1", "fe80::1", "2001:db8::7"];
        let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
        let line = |address: &str| ("80/tcp".to_owned(), address.parse().unwrap());
        let open = open_ports(&[line("0.0.0.0:8080"), line("[::]:8080"), line("127.0.0.1:81")]);
        assert_eq!(open, [8080]);
        assert_eq!(
            exposure(&open, &addresses).unwrap(),
            "reachable from other hosts at 192.0.2.7:8080, [2001:db8::7]:8080; publish it for this host only: \
             -p 127.0.0.1:8080:PORT"
        );
        assert_eq!(exposure(&open, &addresses[..1]), None);
        assert_eq!(exposure(&[], &addresses), None);
    }

    #[test]
    fn ranges_are_one_entry() {
        let shown = |port: u16, address: &str, public| (port, address.to_owned(), public, "tcp".to_owned());
        let all = vec![
            shown(53, "", 0),
            shown(54, "", 0),
            shown(80, "0.0.0.0", 8080),
            shown(90, "0.0.0.0", 90),
            shown(90, "[::]", 90),
            shown(91, "0.0.0.0", 91),
            shown(91, "[::]", 91),
            shown(95, "0.0.0.0", 95),
        ];
        assert_eq!(
            entries(all),
            [
                "0.0.0.0:90-91->90-91/tcp",
                "53-54/tcp",
                "0.0.0.0:95->95/tcp",
                "[::]:90-91->90-91/tcp",
                "0.0.0.0:8080->80/tcp"
            ]
        );
    }
}
