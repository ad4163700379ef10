//! Networks of containers do not turn their host into a router.

use super::{Bed, assert_silent, at, inside, ip, listen, talk};
use kiln_network::{Bridge, Ipv6, NetworkConfig};
use kiln_runtime::MakeNetwork;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

const SETTINGS: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1))];
const SIDES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))];

/// Sets packet forwarding of the host in this network namespace.
pub(super) fn set(value: &str) {
    SETTINGS.iter().filter(|path| fs::exists(path).unwrap()).for_each(|path| fs::write(path, value).unwrap());
}

fn settings() -> Vec<String> {
    let present = SETTINGS.iter().filter(|path| fs::exists(path).unwrap());
    present.map(|path| fs::read_to_string(path).unwrap().trim().to_owned()).collect()
}

/// Tests a host between two others: with a network of containers it forwards what it forwarded before, and after the
/// last network its settings are as they were.
pub(super) fn test(bed: &Bed) {
    for was_router in [false, true] {
        let [host, left, right] = [(); 3].map(|()| bed.spawner.make_network().unwrap().0);
        let state = tempfile::tempdir().unwrap();
        let own = if was_router { "1" } else { "0" };
        for (side, name, number) in [(&left, "left", 0), (&right, "right", 1)] {
            let there = format!("/proc/{}/fd/{}", std::process::id(), side.as_raw_fd());
            inside(&host, || {
                ip(&format!("link add {name} type veth peer name side0 netns {there}"));
                ip(&format!("addr add {}/24 dev {name}", HOST[number]));
                ip(&format!("link set {name} up"));
            });
            inside(side, || {
                ip(&format!("addr add {}/24 dev side0", SIDES[number]));
                ip("link set side0 up");
                ip(&format!("route add default via {}", HOST[number]));
            });
        }
        let config = NetworkConfig {
            bridge: "kiln-hop".to_owned(),
            ipv6: if bed.has_ipv6 { Ipv6::Automatic } else { Ipv6::Off },
            ..NetworkConfig::default()
        };
        let (bridge, container) = inside(&host, || {
            set(own);
            let bridge = Bridge::open_with(state.path(), &config).unwrap();
            assert!(settings().iter().take(1 + usize::from(bed.has_ipv6)).all(|setting| setting == "1"));
            let container = bridge.connect(&bed.spawner).unwrap();
            (bridge, container)
        });
        let server = listen(right.as_fd(), 7000);
        assert_eq!(talk(Some(container.namespace()), at(SIDES[1], 7000), &server), HOST[1]);
        if was_router {
            assert_eq!(talk(Some(left.as_fd()), at(SIDES[1], 7000), &server), SIDES[0]);
        } else {
            assert_silent(Some(left.as_fd()), at(SIDES[1], 7000));
        }
        // Interfaces that are created later are not blocked: the bridges of another engine work.
        let later = bed.spawner.make_network().unwrap().0;
        let there = format!("/proc/{}/fd/{}", std::process::id(), later.as_raw_fd());
        inside(&host, || {
            ip(&format!("link add later type veth peer name side0 netns {there}"));
            ip("addr add 192.0.2.1/24 dev later");
            ip("link set later up");
        });
        inside(&later, || {
            ip("addr add 192.0.2.9/24 dev side0");
            ip("link set side0 up");
            ip("route add default via 192.0.2.1");
        });
        assert_eq!(
            talk(Some(later.as_fd()), at(SIDES[1], 7000), &server),
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9))
        );
        drop((container, bridge));
        inside(&host, || {
            Bridge::remove(state.path(), "kiln-hop").unwrap();
            assert!(settings().iter().all(|setting| setting == own), "{:?}", settings());
        });
    }
}
