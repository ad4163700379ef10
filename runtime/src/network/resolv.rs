//! Name resolution files of containers. Pure: texts in, texts out.

use std::fs;

/// Where systemd-resolved says which servers it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The machine's `/etc/resolv.conf` for a container with a network of its own.
///
/// Name servers on loopback cannot be reached from there. When there are no others, the servers that
/// systemd-resolved asks are taken; failing these, none: a public server that nobody chose would leak names.
pub fn for_container() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    choose(&read("/etc/resolv.conf"), || read(RESOLVED))
}

/// The machine's `/etc/resolv.conf` as it is, for a container in the machine's network.
pub fn for_host_network() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

fn choose(own: &str, resolved: impl FnOnce() -> String) -> String {
    let reachable = without_loopback(own);
    if has_server(&reachable) {
        return reachable;
    }
    let upstream = without_loopback(&resolved());
    if has_server(&upstream) { upstream } else { reachable }
}

fn without_loopback(text: &str) -> String {
    let keep = |line: &&str| server(line).is_none_or(|server| !is_loopback(server));
    let is_comment = |line: &&str| line.trim_start().starts_with(['#', ';']);
    text.lines().filter(keep).filter(|line| !is_comment(line)).map(|line| format!("{line}\n")).collect()
}

fn has_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn is_loopback(server: &str) -> bool {
    let bare = server.split('%').next().unwrap_or(server);
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `/etc/hosts` of a build step, as the reference builder writes it; `extra` are lines of address and name.
pub fn build_hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (address, name) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// `/etc/hosts` of a container, as the reference engine writes it.
pub fn container_hosts(address: Option<&str>, hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (address, name) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    if let Some(address) = address {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_replaced() {
        let own = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n";
        let upstream = || "nameserver 192.168.1.1\nnameserver ::1\nsearch lan\n".to_owned();
        assert_eq!(choose(own, upstream), "nameserver 192.168.1.1\nsearch lan\n");
        assert_eq!(choose(own, String::new), "options edns0\nsearch lan\n");
        assert_eq!(choose("nameserver 9.9.9.9\nnameserver 127.0.0.1\n", String::new), "nameserver 9.9.9.9\n");
    }
}
