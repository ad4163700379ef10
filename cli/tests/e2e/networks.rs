//! Networks of users: `network`, and the flags of `run` about networks.

use crate::fixture::{Done, Fixture};
use crate::lifecycle::{shell, until};
use std::process::Command;

/// Removes networks at the end of a test, whatever its result: bridges outlive the store.
struct Networks<'a>(&'a Fixture, Vec<&'static str>);

impl<'a> Networks<'a> {
    #[track_caller]
    fn create(fixture: &'a Fixture, lines: &[&'static str]) -> Networks<'a> {
        let mut names = Vec::new();
        for line in lines {
            fixture.ok(&format!("network create {line}"));
            names.extend(line.split_whitespace().last());
        }
        Networks(fixture, names)
    }
}

impl Drop for Networks<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let left = self.0.words("ps -aq").out;
            self.0.kiln(&["rm", "-f"].into_iter().chain(left.split_whitespace()).collect::<Vec<_>>());
        }
        for name in &self.1 {
            self.0.words(&format!("network rm -f {name}"));
        }
    }
}

/// Starts a container that sleeps.
#[track_caller]
fn start(fixture: &Fixture, flags: &str) {
    let done = shell(fixture, &format!("-d {flags}"), "exec sleep 1000");
    assert_eq!(done.code, 0, "{flags}: {}", done.err);
}

/// Output of a command in a container.
#[track_caller]
fn inside(fixture: &Fixture, name: &str, script: &str) -> String {
    let done = fixture.kiln(&["exec", name, "sh", "-c", script]);
    assert_eq!(done.code, 0, "{script}: {}{}", done.out, done.err);
    done.out
}

fn reaches(fixture: &Fixture, name: &str, address: &str) -> bool {
    fixture.kiln(&["exec", name, "ping", "-c", "1", "-W", "1", address]).code == 0
}

#[track_caller]
fn inspect(fixture: &Fixture, kind: &str, template: &str, name: &str) -> String {
    let done = fixture.kiln(&[kind, "inspect", "-f", template, name]);
    assert_eq!(done.code, 0, "{template}: {}", done.err);
    done.out.trim_end().to_owned()
}

fn address(fixture: &Fixture, name: &str, network: &str) -> String {
    let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    inspect(fixture, "container", &template, name)
}

#[track_caller]
fn refused(done: &Done, code: i32, reason: &str) {
    assert_eq!((done.code, done.out.as_str()), (code, ""), "{reason}: {}", done.err);
    assert!(done.err.contains(reason), "{reason}: {}", done.err);
}

fn host(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn networks_are_created_listed_and_removed() {
    let fixture = fixture!();
    let id = fixture.ok("network create --label a=b --internal -o com.docker.network.driver.mtu=1400 web");
    assert_eq!(id.trim_end().len(), 64);
    fixture.ok("network create --ipv6=false --subnet 10.233.16.0/24 db");
    assert_eq!(
        fixture.ok("network ls --format {{.Name}}:{{.Driver}}:{{.Scope}}:{{.Internal}}"),
        "bridge:bridge:local:false\ndb:bridge:local:false\nhost:host:local:false\nnone:null:local:false\nweb:bridge:local:true\n"
    );
    assert!(fixture.ok("network ls").starts_with("NETWORK ID     NAME      DRIVER    SCOPE\n"));
    for (filter, names) in [
        ("type=custom", "db\nweb\n"),
        ("driver=null", "none\n"),
        ("label=a=b", "web\n"),
        ("name=we", "web\n"),
        ("dangling=true", "db\nweb\n"),
    ] {
        let line = format!("network ls --filter {filter} --format {{{{.Name}}}}");
        assert_eq!(fixture.ok(&line), names, "{filter}");
    }
    assert_eq!(fixture.ok("network ls -q --no-trunc --filter name=web"), id);
    assert_eq!(
        inspect(&fixture, "network", "{{.ID}} {{.Name}}", &id[..12]),
        format!("{} web", id.trim_end())
    );
    let config = inspect(&fixture, "network", "{{json .IPAM.Config}}", "db");
    assert_eq!(config, "[{\"Subnet\":\"10.233.16.0/24\",\"Gateway\":\"10.233.16.1\"}]");
    assert_eq!(inspect(&fixture, "network", "{{json .Labels}} {{.Internal}}", "web"), "{\"a\":\"b\"} true");
    // Creating one changes nothing on the host.
    assert!(!host("ip -o link").contains(&format!("br-{}", &id[..12])));
    refused(&fixture.words("network create web"), 1, "network with name web already exists");
    let done = fixture.words("network inspect nosuch");
    assert_eq!((done.code, done.out.as_str()), (1, "[]\n"));
    assert!(done.err.starts_with("ERROR: network nosuch not found\n"), "{}", done.err);
    let done = fixture.words("network rm nosuch web bridge");
    assert_eq!((done.code, done.out.as_str()), (1, "web\n"));
    assert!(done.err.contains("network nosuch not found"), "{}", done.err);
    assert!(done.err.contains("bridge is a pre-defined network and cannot be removed"), "{}", done.err);
    assert_eq!(fixture.words("network rm -f nosuch").code, 0);
    assert_eq!(fixture.ok("network prune -f --filter label=a"), "");
    assert!(
        fixture.ok("network prune").starts_with("WARNING! This will remove all custom networks not used")
    );
    assert_eq!(fixture.ok("network prune -f"), "Deleted Networks:\ndb\n\n");
    fixture.ok("network create web");
    assert_eq!(fixture.ok("system prune -f"), "Deleted Networks:\nweb\n\nTotal reclaimed space: 0B\n");
    let events = fixture.ok("events --since 10m --until 0s --filter type=network --format {{.Action}}");
    assert_eq!(events, "create\ncreate\ndestroy\ndestroy\ncreate\ndestroy\n");
}

#[test]
fn containers_keep_what_they_ask_for_in_a_network() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let web = "-o com.docker.network.driver.mtu=1400 --subnet 10.233.17.0/24 --ip-range 10.233.17.128/25 web";
    let _networks = Networks::create(&fixture, &[web]);
    let flags = "--network web --ip 10.233.17.9 --network-alias uno --mac-address 02:00:00:00:00:09 -h host";
    start(&fixture, &format!("--name one {flags}"));
    start(&fixture, "--name two --network name=web,alias=zwei --link one:eins");
    assert_eq!(address(&fixture, "two", "web"), "10.233.17.128");
    assert!(reaches(&fixture, "two", "10.233.17.9"));
    assert_eq!(inside(&fixture, "two", "cat /sys/class/net/eth0/mtu"), "1400\n");
    let hosts = inside(&fixture, "two", "cat /etc/hosts");
    assert!(hosts.contains("10.233.17.9\teins ") && hosts.contains("10.233.17.128\t"), "{hosts}");
    for _ in 0..2 {
        assert!(inside(&fixture, "one", "ip addr show eth0").contains("inet 10.233.17.9/24"));
        assert_eq!(inside(&fixture, "one", "cat /sys/class/net/eth0/address"), "02:00:00:00:00:09\n");
        let shown = "{{range $name, $it := .NetworkSettings.Networks}}{{$name}} {{$it.IPAMConfig.IPv4Address}} {{$it.Aliases}} \
                     {{$it.Gateway}} {{$it.IPPrefixLen}} {{len $it.EndpointID}} {{slice $it.DNSNames 0 2}}{{end}}";
        assert_eq!(
            inspect(&fixture, "container", shown, "one"),
            "web 10.233.17.9 [uno] 10.233.17.1 24 64 [one uno]"
        );
        assert_eq!(
            inspect(
                &fixture,
                "container",
                "{{.HostConfig.NetworkMode}}|{{.NetworkSettings.IPAddress}}",
                "one"
            ),
            "web|"
        );
        fixture.ok("restart -t 0 one");
    }
    let members =
        inspect(&fixture, "network", "{{range .Containers}}{{.Name}} {{.IPv4Address}};{{end}}", "web");
    assert!(
        members.contains("one 10.233.17.9/24;") && members.contains("two 10.233.17.128/24;"),
        "{members}"
    );
    assert_eq!(fixture.ok("ps --filter network=web --format {{.Names}}:{{.Networks}}").lines().count(), 2);
    assert_eq!(fixture.ok("ps -q --filter network=bridge"), "");
    let taken = shell(&fixture, "--rm --network web --ip 10.233.17.9", "true");
    refused(&taken, 125, "network web: the address 10.233.17.9 is in use");
    let done = fixture.words("network rm web");
    refused(&done, 1, "error while removing network: network web has active endpoints (name:\"");
    fixture.ok("rm -f one two");
}

#[test]
fn containers_are_in_several_networks() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let _networks = Networks::create(
        &fixture,
        &[
            "--subnet 10.233.18.0/24 web",
            "--subnet 10.233.19.0/24 db",
            "--subnet 10.233.20.0/24 --internal in",
        ],
    );
    let script = "mkdir /w; echo it > /w/index.html; httpd -p 80 -h /w; echo up; exec sleep 1000";
    let flags = "-d --name two -p 127.0.0.1::80 --network in --network name=web,ip=10.233.18.9 --network db";
    assert_eq!(shell(&fixture, flags, script).code, 0);
    until(&fixture, "logs two", |done| done.out.contains("up"));
    let route = |name: &str| inside(&fixture, name, "ip route | grep default || echo none");
    assert!(route("two").starts_with("default via 10.233.19.1 dev eth2"), "{}", route("two"));
    let addresses = inside(&fixture, "two", "ip -o -4 addr");
    for (interface, address) in [("eth0", "10.233.20.2"), ("eth1", "10.233.18.9"), ("eth2", "10.233.19.2")] {
        assert!(addresses.contains(&format!("{interface}    inet {address}/24")), "{addresses}");
    }
    let port = fixture.ok("port two 80").trim_end().to_owned();
    let fetch = || crate::ports::fetch(&port).unwrap_or_else(|error| error.to_string());
    assert_eq!(fetch(), "it\n");
    // The ports move with the way out, which the container loses at last.
    fixture.ok("network disconnect db two");
    assert!(route("two").starts_with("default via 10.233.18.1 dev eth1"), "{}", route("two"));
    assert_eq!(fetch(), "it\n");
    fixture.ok("network connect --gw-priority 1 db two");
    assert!(route("two").starts_with("default via 10.233.19.1 dev eth2"), "{}", route("two"));
    assert_eq!(fetch(), "it\n");
    fixture.ok("network disconnect web two");
    assert_eq!(fetch(), "it\n");
    fixture.ok("network disconnect db two");
    assert_eq!(route("two"), "none\n");
    assert_eq!(fixture.ok("ps --format {{.Networks}}"), "in\n");
    let hosts = inside(&fixture, "two", "cat /etc/hosts");
    assert!(hosts.contains("10.233.20.2\t") && !hosts.contains("10.233.18.9\t"), "{hosts}");
    fixture.ok("network connect web two");
    assert_eq!(crate::ports::fetch(fixture.ok("port two 80").trim_end()).unwrap(), "it\n");
    // Connections outlast a restart.
    fixture.ok("restart -t 0 two");
    assert!(route("two").starts_with("default via 10.233.18.1"), "{}", route("two"));
    fixture.ok("rm -f two");
}

#[test]
fn stopped_containers_are_connected_at_their_start() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let networks = Networks::create(&fixture, &["--subnet 10.233.21.0/24 web", "--subnet 10.233.22.0/24 db"]);
    fixture.ok("create --name one busybox sleep 1000");
    fixture.ok("network connect --ip 10.233.21.9 web one");
    refused(
        &fixture.words("network connect web one"),
        1,
        "endpoint with name one already exists in network web",
    );
    fixture.ok("network connect db one");
    fixture.ok("network disconnect bridge one");
    refused(&fixture.words("network disconnect bridge one"), 1, "is not connected to network bridge");
    fixture.ok("start one");
    assert_eq!(address(&fixture, "one", "web"), "10.233.21.9");
    assert_eq!(fixture.ok("ps --format {{.Networks}}"), "web,db\n");
    fixture.ok("stop -t 0 one");
    // A network that only stopped containers use can be removed, but is not pruned.
    assert_eq!(fixture.ok("network prune -f"), "");
    fixture.ok("network rm db");
    let done = fixture.words("start one");
    assert!(done.code != 0 && done.err.contains("network db not found: it has been removed"), "{}", done.err);
    refused(&fixture.words("network connect db one"), 1, "network db not found");
    fixture.ok("network disconnect db one");
    fixture.ok("start one");
    fixture.ok("rm -f one");
    drop(networks);
}

#[test]
fn networks_are_apart_and_leave_nothing() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let lines = [
        "--subnet 10.233.23.0/24 web",
        "--subnet 10.233.24.0/24 db",
        "--subnet 10.233.25.0/24 --internal in",
    ];
    let networks = Networks::create(&fixture, &lines);
    let outside = Outside::new("192.0.2.129", "192.0.2.130");
    start(&fixture, "--name one --network web");
    start(&fixture, "--name two --network db");
    start(&fixture, "--name both --network web --network db");
    start(&fixture, "--name inner --network in");
    let at = |name: &str, network: &str| address(&fixture, name, network);
    assert!(!reaches(&fixture, "one", &at("two", "db")) && !reaches(&fixture, "two", &at("one", "web")));
    assert!(!reaches(&fixture, "one", &at("both", "db")), "nor at a further address");
    assert!(reaches(&fixture, "one", &at("both", "web")) && reaches(&fixture, "two", &at("both", "db")));
    assert!(!reaches(&fixture, "inner", &at("one", "web")) && !reaches(&fixture, "one", &at("inner", "in")));
    if outside.is_there {
        assert!(reaches(&fixture, "one", "192.0.2.130"), "the outside");
        assert!(!reaches(&fixture, "inner", "192.0.2.130"), "the outside from an internal network");
    }
    let bridges: Vec<String> = ["web", "db", "in"]
        .iter()
        .map(|name| format!("br-{}", &inspect(&fixture, "network", "{{.Id}}", name)[..12]))
        .collect();
    let (links, rules) = (host("ip -o link"), host("nft list table inet kiln"));
    assert!(bridges.iter().all(|bridge| links.contains(bridge)), "{links}");
    fixture.ok("rm -f one two both inner");
    // The monitors end just after the containers.
    fixture.assert_clean();
    if !rules.is_empty() {
        let rules = host("nft list table inet kiln");
        assert!(!bridges.iter().any(|bridge| rules.contains(bridge)), "{rules}");
    }
    let enslaved = host("ip -o link");
    assert!(!bridges.iter().any(|bridge| enslaved.contains(&format!("master {bridge}"))), "{enslaved}");
    drop(networks);
    let links = host("ip -o link");
    assert!(!bridges.iter().any(|bridge| links.contains(bridge)), "{links}");
}

/// Network namespace that stands for a host outside.
struct Outside {
    name: String,
    is_there: bool,
}

impl Outside {
    fn new(here: &str, there: &str) -> Outside {
        // Several tests have one: the names differ by the address.
        let number = here.rsplit('.').next().unwrap_or_default();
        let name = format!("kt{}-{number}", std::process::id());
        let run = |line: String| {
            let mut words = line.split_whitespace();
            Command::new(words.next().unwrap()).args(words).status().is_ok_and(|status| status.success())
        };
        let is_there = run(format!("ip netns add {name}"))
            && run(format!("ip link add {name} type veth peer name up0 netns {name}"))
            && run(format!("ip addr add {here}/30 dev {name}"))
            && run(format!("ip link set {name} up"))
            && run(format!("ip -n {name} addr add {there}/30 dev up0"))
            && run(format!("ip -n {name} link set up0 up"));
        if !is_there {
            eprintln!("SKIPPED: a host outside needs `ip netns`");
        }
        Outside { name, is_there }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        host(&format!("ip link del {}", self.name));
        host(&format!("ip netns del {}", self.name));
    }
}

#[test]
fn further_monitors_keep_all_endpoints() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let networks = ["--subnet 10.233.26.0/24 web", "--subnet 10.233.27.0/28 db"];
    let _networks = Networks::create(&fixture, &networks);
    start(&fixture, "--name one --network web --network name=db,ip=10.233.27.3");
    crate::orphans::kill_monitor(&fixture);
    let taken = shell(&fixture, "--rm --network db --ip 10.233.27.3", "true");
    refused(&taken, 125, "the address 10.233.27.3 is in use");
    // The change makes a further monitor, which knows both networks.
    let done = fixture.words("network disconnect web one");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("is replaced"), "{}", done.err);
    assert!(inside(&fixture, "one", "ip route").starts_with("default via 10.233.27.1"));
    refused(&fixture.words("network rm db"), 1, "has active endpoints");
    fixture.ok("rm -f one");
    assert_eq!(shell(&fixture, "--rm --network db --ip 10.233.27.3", "true").code, 0, "it is free again");
}

/// Subnets are chosen before there are bridges that another store could see.
#[test]
fn chosen_subnets_give_way_to_those_of_the_host() {
    let (one, two) = (fixture!(), fixture!());
    let fixtures = [&one, &two];
    let _networks = fixtures.map(|fixture| {
        fixture.ok("pull -q busybox");
        Networks::create(fixture, &["web"])
    });
    let subnet = |fixture: &Fixture| {
        start(fixture, "--name box --network web");
        let shown = inspect(fixture, "network", "{{(index .IPAM.Config 0).Subnet}}", "web");
        let own = inside(fixture, "box", "ip -o -4 addr show eth0");
        assert!(own.contains(&address(fixture, "box", "web")), "{own}");
        assert!(reaches(
            fixture,
            "box",
            &inspect(fixture, "network", "{{(index .IPAM.Config 0).Gateway}}", "web")
        ));
        shown
    };
    assert_ne!(subnet(&one), subnet(&two));
    fixtures.iter().for_each(|fixture| drop(fixture.ok("rm -f box")));
}

/// A network with room for five containers, and more that start at once.
#[test]
fn addresses_are_given_once() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let _networks = Networks::create(&fixture, &["--subnet 10.233.28.0/29 web"]);
    let starting: Vec<_> = (0..8)
        .map(|_| fixture.start(&["run", "-d", "--network", "web", "busybox", "sleep", "1000"]))
        .collect();
    let done: Vec<Done> = starting.into_iter().map(|one| Done::of(one.wait_with_output().unwrap())).collect();
    let (started, failed): (Vec<&Done>, Vec<&Done>) = done.iter().partition(|done| done.code == 0);
    assert_eq!((started.len(), failed.len()), (5, 3), "{done:?}");
    assert!(failed.iter().all(|done| done.err.contains("no free address in 10.233.28.0/29")), "{failed:?}");
    let template = "{{range .Containers}}{{.IPv4Address}} {{end}}";
    let shown = inspect(&fixture, "network", template, "web");
    let mut addresses: Vec<&str> = shown.split_whitespace().collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 5, "{addresses:?}");
    let ids = fixture.ok("ps -aq");
    fixture.ok(&format!("rm -f {}", ids.split_whitespace().collect::<Vec<_>>().join(" ")));
}

#[test]
fn wrong_networks_are_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let _networks = Networks::create(&fixture, &["--subnet 10.233.29.0/24 --aux-address r=10.233.29.5 web"]);
    for (line, reason) in [
        ("--subnet 10.233.29.128/25 x", "Pool overlaps with other one on this address space"),
        ("--subnet 10.233.30.0 x", "is no subnet"),
        ("--subnet 10.233.30.0/24 --gateway 10.233.31.1 x", "no matching subnet for gateway 10.233.31.1"),
        ("-o com.docker.network.bridge.name=br-0123456789012 x", "has 1 to 15 characters"),
        ("-o com.docker.network.bridge.name=lo x", "has a network device `lo` already"),
        ("-o nosuch=1 x", "is not supported"),
        ("-d overlay x", "network driver \"overlay\" is not supported"),
        ("--ingress x", "there are no swarms"),
        ("--subnet 10.233.31.0/24 --aux-address a=10.233.31.1 x", "secondary ip address (a:10.233.31.1)"),
        ("--subnet 10.233.31.0/24 --aux-address a=10.233.31.0 x", "Address already in use"),
        ("bridge", "operation is not permitted on predefined bridge network"),
        ("a/b", "invalid network name"),
    ] {
        refused(&fixture.words(&format!("network create {line}")), 1, reason);
    }
    assert_eq!(fixture.ok("network ls -q --filter type=custom").lines().count(), 1);
    for (flags, reason) in [
        ("--network nosuch", "network nosuch not found"),
        ("--network web --network web", "network \"web\" is specified multiple times"),
        ("--network web --network host", "conflicting options"),
        ("--network web --ip 10.233.30.1", "no configured subnet contains IP address 10.233.30.1"),
        ("--network web --ip 10.233.29.1", "the address 10.233.29.1 cannot be used in 10.233.29.0/24"),
        ("--network web --ip 10.233.29.5", "the address 10.233.29.5 is in use"),
        ("--ip 10.233.29.9", "user specified IP address is supported on user defined networks only"),
        ("--link nosuch", "No such container: nosuch"),
    ] {
        refused(&shell(&fixture, &format!("--rm {flags}"), "true"), 125, reason);
    }
    assert_eq!(fixture.ok("ps -aq"), "", "nothing half made");
    fixture.ok("create --name on-host --network host busybox");
    let done = fixture.words("network connect web on-host");
    refused(&done, 1, "container sharing network namespace with another container or host");
    refused(&fixture.words("network connect web nosuch"), 1, "No such container: nosuch");
    refused(&fixture.words("network connect nosuch on-host"), 1, "network nosuch not found");
    refused(&fixture.words("network connect host on-host"), 1, "it is chosen by `run --network host`");
    refused(&fixture.words("network disconnect web on-host"), 1, "is not connected to network web");
    fixture.ok("create --name other busybox");
    let done = fixture.words("run --rm --link other busybox true");
    refused(&done, 125, "Cannot link to a non running container: /other AS /");
    fixture.ok("rm on-host other");
}

/// A device whose other end is in another network namespace stands for the network of an office.
#[test]
fn containers_are_in_the_network_of_a_device() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let outside = Outside::new("10.233.62.254", "10.233.62.253");
    let parent = outside.name.clone();
    let probe = format!("{parent}m");
    host(&format!("ip link add link {parent} name {probe} type macvlan"));
    if !outside.is_there || !host("ip -o link").contains(&probe) {
        skip!("needs `ip netns` and macvlan");
    }
    host(&format!("ip link del {probe}"));
    let flags = format!("-d macvlan --subnet 10.233.62.0/24 --gateway 10.233.62.253 -o parent={parent}");
    fixture.ok(&format!("network create {flags} office"));
    let _networks = Networks(&fixture, vec!["office"]);
    let done = shell(&fixture, "--rm --network office --ip 10.233.62.253", "true");
    refused(&done, 125, "cannot be used in 10.233.62.0/24");
    start(&fixture, "--name one --network office --ip 10.233.62.9 --mac-address 02:00:00:00:62:09");
    start(&fixture, "--name two --network office");
    assert_eq!(inside(&fixture, "one", "cat /sys/class/net/eth0/address"), "02:00:00:00:62:09\n");
    assert!(inside(&fixture, "two", "ip route").starts_with("default via 10.233.62.253 dev eth0"));
    assert!(reaches(&fixture, "two", "10.233.62.9"));
    assert!(reaches(&fixture, "one", &address(&fixture, "two", "office")));
    host(&format!("ip -n {parent} addr add 10.233.62.253/24 dev up0"));
    assert!(reaches(&fixture, "one", "10.233.62.253"), "{}", host(&format!("ip -n {parent} addr")));
    refused(&fixture.words("network rm office"), 1, "has active endpoints");
    let done = shell(&fixture, "--rm --network office -p 80", "true");
    refused(&done, 125, "ports cannot be published in a macvlan network");
    fixture.ok("network disconnect office one");
    assert_eq!(inside(&fixture, "one", "ls /sys/class/net"), "lo\n");
    fixture.ok("network connect --ip 10.233.62.9 office one");
    // In this direction: the other one still knows an earlier MAC address of this IP address.
    assert!(reaches(&fixture, "one", &address(&fixture, "two", "office")));
    fixture.ok("rm -f one two");
}

/// Waits for a change that no file and no output shows.
#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 60, "{what} is waited for");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Addresses of a name in a container, in order; empty for a name that does not exist.
fn look_up(fixture: &Fixture, container: &str, name: &str) -> Vec<String> {
    let done = fixture.kiln(&["exec", container, "nslookup", "-type=a", name]);
    let lines = done.out.lines().skip_while(|line| !line.starts_with("Name:"));
    let mut found: Vec<String> =
        lines.filter_map(|line| line.strip_prefix("Address:")).map(|text| text.trim().to_owned()).collect();
    found.sort();
    found
}

/// Pids of name servers of this store, by the file that they hold.
fn name_servers(fixture: &Fixture) -> Vec<i32> {
    let root = fixture.root().display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let own = all.filter(|entry| {
        let is_server =
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name == "kiln-dns\n");
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        is_server && String::from_utf8_lossy(&environment).contains(&root)
    });
    own.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[test]
fn containers_know_each_other_by_name() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let _networks = Networks::create(&fixture, &["web", "other"]);
    start(&fixture, "--name server --network web --network-alias www -h host1");
    start(&fixture, "--name asker --network web");
    start(&fixture, "--name stranger --network other");
    start(&fixture, "--name plain");
    let server = vec![address(&fixture, "server", "web")];
    let id = fixture.ok("ps -q --filter name=server");
    for name in ["server", "SERVER", "www", id.trim(), "server.web"] {
        assert_eq!(look_up(&fixture, "asker", name), server, "{name}");
    }
    assert!(reaches(&fixture, "asker", "www"));
    let conf = inside(&fixture, "asker", "cat /etc/resolv.conf");
    assert!(conf.contains("nameserver 127.0.0.11\n") && conf.contains("ndots:0"), "{conf}");
    let pointer = inside(&fixture, "asker", &format!("nslookup {}", server[0]));
    assert!(pointer.contains("name = server.web"), "{pointer}");
    // Other networks have other names.
    assert_eq!(look_up(&fixture, "stranger", "server"), Vec::<String>::new());
    assert!(!inside(&fixture, "plain", "cat /etc/resolv.conf").contains("127.0.0.11"));
    // Several containers of one alias.
    start(&fixture, "--name second --network name=web,alias=www");
    let mut both = [server.clone(), vec![address(&fixture, "second", "web")]].concat();
    both.sort();
    assert_eq!(look_up(&fixture, "asker", "www"), both);
    // Names come and go with connections, ends and new names.
    fixture.ok("network connect --alias db web stranger");
    let stranger = vec![address(&fixture, "stranger", "web")];
    assert_eq!(look_up(&fixture, "asker", "db"), stranger);
    assert_eq!(look_up(&fixture, "stranger", "server"), server);
    fixture.ok("network connect web plain");
    assert_eq!(look_up(&fixture, "plain", "server"), server);
    fixture.ok("network disconnect web plain");
    assert!(!inside(&fixture, "plain", "cat /etc/resolv.conf").contains("127.0.0.11"));
    fixture.ok("network disconnect web stranger");
    assert_eq!(look_up(&fixture, "asker", "db"), Vec::<String>::new());
    fixture.ok("rename server renamed");
    eventually("the new name", || look_up(&fixture, "asker", "renamed") == server);
    assert_eq!(look_up(&fixture, "asker", "server"), Vec::<String>::new());
    fixture.ok("rm -f second");
    assert_eq!(look_up(&fixture, "asker", "www"), server);
    // One process serves all, and another one after its end.
    let before = name_servers(&fixture);
    assert_eq!(before.len(), 1);
    let pid = rustix::process::Pid::from_raw(before[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(look_up(&fixture, "asker", "renamed"), server, "no query is lost");
    eventually("another name server", || name_servers(&fixture).iter().any(|pid| *pid != before[0]));
    // Names stay when the monitors are killed, and with further monitors.
    for pid in crate::orphans::monitors(&fixture) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    assert_eq!(look_up(&fixture, "asker", "renamed"), server);
    for name in ["asker", "renamed", "stranger", "plain"] {
        fixture.ok(&format!("start {name}"));
    }
    assert_eq!(look_up(&fixture, "asker", "renamed"), server);
    fixture.ok("restart -t 0 renamed");
    assert_eq!(look_up(&fixture, "asker", "renamed"), [address(&fixture, "renamed", "web")]);
    // A new name without a monitor, which the command replaces.
    for pid in crate::orphans::monitors(&fixture) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    fixture.ok("rename renamed third");
    eventually("the third name", || !look_up(&fixture, "asker", "third").is_empty());
    fixture.ok("rm -f third asker stranger plain");
    eventually("the end of the name server", || name_servers(&fixture).is_empty());
}

/// A command that is killed between its parts leaves the container connected, or not.
#[test]
fn killed_commands_leave_no_half_connection() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let _networks = Networks::create(&fixture, &["web", "other"]);
    start(&fixture, "--name server --network web");
    for round in 0..12 {
        fixture.words("network connect other server");
        let mut child = fixture.start(&["network", "disconnect", "other", "server"]);
        std::thread::sleep(std::time::Duration::from_millis(round * 2));
        child.kill().unwrap();
        child.wait().unwrap();
        let addresses = inspect(
            &fixture,
            "container",
            "{{range $name, $end := .NetworkSettings.Networks}}{{$name}}={{$end.IPAddress}} {{end}}",
            "server",
        );
        assert!(!addresses.contains("other= "), "{addresses}");
    }
    // What a killed connection has recorded alone is done by the next one.
    fixture.words("network disconnect other server");
    let path = fixture.root().join("containers");
    let id = fixture.ok("ps -q --no-trunc");
    let record = path.join(id.trim()).join("container.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let network = inspect(&fixture, "network", "{{.Id}}", "other");
    let half = format!("{{\"network\":\"{network}\",\"name\":\"other\"}},");
    let half = text.replacen("\"attachments\":[", &format!("\"attachments\":[{half}"), 1);
    assert_ne!(half, text);
    std::fs::write(&record, half).unwrap();
    fixture.ok("network connect other server");
    assert!(inside(&fixture, "server", "ip -o -4 addr").contains("eth1"));
    fixture.ok("rm -f server");
}

/// Answers each query on a loopback address of the host with one address, until the tests end.
fn name_server(listen: &str) {
    let socket = std::net::UdpSocket::bind((listen, 53)).unwrap();
    std::thread::spawn(move || {
        let mut query = [0u8; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            // The header, with one answer, and the question, which ends with its type and class.
            let end = 12 + query[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut answer = query[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
            let _ = socket.send_to(&answer, from);
        }
    });
}

#[test]
fn other_names_are_asked_of_servers_outside() {
    let fixture = fixture!();
    name_server("127.0.0.153");
    fixture.ok("pull -q busybox");
    let _networks = Networks::create(&fixture, &["web", "--internal inner"]);
    start(&fixture, "--name asker --network web --dns 127.0.0.153");
    start(&fixture, "--name closed --network inner --dns 127.0.0.153");
    assert_eq!(look_up(&fixture, "asker", "outside.example"), ["192.0.2.77"]);
    let own = vec![address(&fixture, "asker", "web")];
    assert_eq!(look_up(&fixture, "asker", "asker"), own, "names of containers are not asked outside");
    assert_eq!(look_up(&fixture, "closed", "outside.example"), Vec::<String>::new());
    assert_eq!(look_up(&fixture, "closed", "closed"), [address(&fixture, "closed", "inner")]);
    fixture.ok("rm -f asker closed");
}
