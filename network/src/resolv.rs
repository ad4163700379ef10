//! Name resolution files of containers. Pure: texts in, texts out.

use std::fs;

/// File in which systemd-resolved lists the servers that it uses itself.
pub(super) const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Public name servers (Google's), which the reference engine uses where a host has none that containers reach.
const PUBLIC: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Address at which names are served in a container.
const NAME_SERVER: &str = "127.0.0.11";

/// Text of `resolv.conf` for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolv {
    /// Text of the file.
    pub text: String,
    /// True when the host has no name server that containers reach, so that public ones are used.
    pub is_public: bool,
}

/// Notice to users, once a command, where [`Resolv::is_public`].
pub const PUBLIC_NOTICE: &str = "this host has no name server that containers can reach (those on loopback are out of their \
                                 reach): they ask 8.8.8.8 and 8.8.4.4; name another one in /etc/resolv.conf";

/// Converts the host's `/etc/resolv.conf` for a container with its own network namespace.
///
/// Name servers on loopback cannot be reached from there. When there are no others, the servers of systemd-resolved are
/// used, and without these public ones, as in the reference engine.
pub fn for_container() -> Resolv {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    choose(&read("/etc/resolv.conf"), || read(RESOLVED))
}

/// Unchanged `/etc/resolv.conf` of the host, for a container in the host's network namespace.
pub fn for_host_network() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// Name servers of the host: those that it names, and those of systemd-resolved.
pub(super) fn servers() -> Vec<std::net::IpAddr> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    servers_in(&(read("/etc/resolv.conf") + "\n" + &read(RESOLVED)))
}

fn servers_in(text: &str) -> Vec<std::net::IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

pub(super) fn choose(own: &str, resolved: impl FnOnce() -> String) -> Resolv {
    let reachable = without_loopback(own);
    if has_server(&reachable) {
        return Resolv { text: reachable, is_public: false };
    }
    let upstream = without_loopback(&resolved());
    if has_server(&upstream) {
        return Resolv { text: upstream, is_public: false };
    }
    let servers: String = PUBLIC.iter().map(|server| format!("nameserver {server}\n")).collect();
    Resolv { text: reachable + &servers, is_public: true }
}

/// Text of `resolv.conf` with other name servers, domains and options, each unless the list is empty. The domain `.`
/// stands for none.
pub fn replaced(text: &str, servers: &[String], search: &[String], options: &[String]) -> String {
    let keyword = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let keeps = |line: &&str| match keyword(line).as_str() {
        "nameserver" => servers.is_empty(),
        "search" | "domain" => search.is_empty(),
        "options" => options.is_empty(),
        _ => true,
    };
    let mut new: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    new.extend(text.lines().filter(keeps).map(|line| format!("{line}\n")));
    if !search.is_empty() && search != ["."] {
        new.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        new.push_str(&format!("options {}\n", options.join(" ")));
    }
    new
}

/// Text of `resolv.conf` for a container whose names are served at 127.0.0.11 ([`super::dns`]), made of the host's
/// `text`; domains and options are replaced unless the list is empty. The domain `.` stands for none. A name without a
/// dot can be that of a container, so it is asked for as it is before domains are added.
pub fn for_names(text: &str, search: &[String], options: &[String]) -> String {
    let comments = |line: &&str| !line.trim_start().starts_with(['#', ';']);
    let host: String = text.lines().filter(comments).map(|line| format!("{line}\n")).collect();
    let of_host = host.lines().filter_map(|line| line.trim_start().strip_prefix("options"));
    let mut all: Vec<String> = of_host.flat_map(str::split_whitespace).map(str::to_owned).collect();
    if !options.is_empty() {
        all = options.to_vec();
    }
    if !all.iter().any(|option| option.starts_with("ndots:")) {
        all.push("ndots:0".to_owned());
    }
    replaced(&host, &[NAME_SERVER.to_owned()], search, &all)
}

fn without_loopback(text: &str) -> String {
    let keep = |line: &&str| server(line).is_none_or(|server| !is_loopback(server));
    let is_comment = |line: &&str| line.trim_start().starts_with(['#', ';']);
    text.lines().filter(keep).filter(|line| !is_comment(line)).map(|line| format!("{line}\n")).collect()
}

fn has_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

pub(super) fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn is_loopback(server: &str) -> bool {
    let bare = server.split('%').next().unwrap_or(server);
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Text of `/etc/hosts` for a build step, as the reference builder writes it; `extra` are lines of address and name.
pub fn build_hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (address, name) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// Text of `/etc/hosts` for a container, as the reference engine writes it.
pub fn container_hosts(address: Option<&str>, hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (address, name) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text.extend(address.map(|address| own_hosts(address, hostname)));
    text
}

/// Line of `/etc/hosts` for a container's own address. A name with a domain also gets an alias without it.
pub fn own_hosts(address: &str, hostname: &str) -> String {
    let short = hostname.split_once('.').map(|(short, _)| short).filter(|short| !short.is_empty());
    let names = short.map_or_else(|| hostname.to_owned(), |short| format!("{hostname} {short}"));
    format!("{address}\t{names}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_replaced() {
        let public = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        let check = |own: &str, resolved: &str, text: &str, is_public: bool| {
            let expected = Resolv { text: text.to_owned(), is_public };
            assert_eq!(choose(own, || resolved.to_owned()), expected, "{own:?}");
        };
        let own = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n";
        let upstream = "nameserver 192.168.1.1\nnameserver ::1\nsearch lan\n";
        check(own, upstream, "nameserver 192.168.1.1\nsearch lan\n", false);
        check(own, "", &format!("options edns0\nsearch lan\n{public}"), true);
        check(own, own, &format!("options edns0\nsearch lan\n{public}"), true);
        check("nameserver 9.9.9.9\nnameserver 127.0.0.1\n", "", "nameserver 9.9.9.9\n", false);
        check("nameserver ::1\n", "", public, true);
        check("", "", public, true);
        check("nameserver\n#nameserver 9.9.9.9\n", "", &format!("nameserver\n{public}"), true);
    }

    #[test]
    fn servers_domains_and_options_are_replaced() {
        let text = "nameserver 9.9.9.9\nsearch lan\noptions edns0\nsortlist x\n";
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(replaced(text, &[], &[], &[]), text);
        assert_eq!(
            replaced(text, &list(&["1.1.1.1", "::1"]), &list(&["a", "b"]), &list(&["ndots:1"])),
            "nameserver 1.1.1.1\nnameserver ::1\nsortlist x\nsearch a b\noptions ndots:1\n"
        );
        assert_eq!(
            replaced(text, &[], &list(&["."]), &[]),
            "nameserver 9.9.9.9\noptions edns0\nsortlist x\n"
        );
    }

    #[test]
    fn names_of_containers_are_asked_for_as_they_are() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let host = "# by hand\nnameserver 9.9.9.9\nsearch lan\noptions edns0\noptions trust-ad\n";
        assert_eq!(
            for_names(host, &[], &[]),
            "nameserver 127.0.0.11\nsearch lan\noptions edns0 trust-ad ndots:0\n"
        );
        assert_eq!(for_names("", &[], &[]), "nameserver 127.0.0.11\noptions ndots:0\n");
        assert_eq!(
            for_names(host, &list(&["a", "b"]), &list(&["ndots:3"])),
            "nameserver 127.0.0.11\nsearch a b\noptions ndots:3\n"
        );
        assert_eq!(
            for_names(host, &list(&["."]), &[]),
            "nameserver 127.0.0.11\noptions edns0 trust-ad ndots:0\n"
        );
    }

    #[test]
    fn host_names_with_a_domain_are_known_without_it() {
        let last =
            |name: &str| container_hosts(Some("10.0.0.2"), name, &[]).lines().last().unwrap().to_owned();
        assert_eq!(last("box"), "10.0.0.2\tbox");
        assert_eq!(last("web.example.org"), "10.0.0.2\tweb.example.org web");
        assert_eq!(last(".odd"), "10.0.0.2\t.odd");
    }
}
