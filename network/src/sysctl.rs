//! Settings of this host that networks of containers need.

use super::{NetworkError, file};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const V4_FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const V6_FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const V6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Whether this host has version 6, and has not switched it off.
pub(super) fn has_ipv6() -> bool {
    is("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0")
}

/// A version of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Four,
    Six,
}

impl Version {
    fn forwarding(self) -> &'static Path {
        Path::new(match self {
            Version::Four => V4_FORWARDING,
            Version::Six => V6_FORWARDING,
        })
    }
}

/// The interfaces of this network namespace, but the loopback one.
pub(super) fn interfaces() -> Vec<String> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !matches!(name.as_str(), "all" | "default" | "lo")).collect()
}

/// Whether the host passes packets on between interfaces.
pub(super) fn is_forwarding(version: Version) -> bool {
    is(version.forwarding(), "1")
}

/// Has the host pass packets on between interfaces.
///
/// One that does so with version 6 no longer heeds router advertisements, and forgets the default route it has from
/// one, except where `accept_ra` is 2. So interfaces that have heeded them until now are told to go on.
pub(super) fn start_forwarding(version: Version) -> Result<(), NetworkError> {
    let interfaces = (version == Version::Six).then(|| fs::read_dir(V6_INTERFACES));
    for interface in interfaces.into_iter().flatten().flatten().flatten() {
        let name = interface.file_name();
        let path = interface.path().join("accept_ra");
        let is_one_interface = name != "all" && name != "default" && name != "lo";
        if is_one_interface && is(&path, "1") {
            fs::write(&path, "2").map_err(file("write", &path))?;
        }
    }
    let path = version.forwarding();
    fs::write(path, "1").map_err(file("write", path))
}

/// Has the host pass nothing on any more.
pub(super) fn stop_forwarding(version: Version) -> Result<(), NetworkError> {
    let path = version.forwarding();
    fs::write(path, "0").map_err(file("write", path))
}

/// A container must not tell this host its default route. The setting matters only where packets are not
/// passed on, so failing to make it, on a read-only `/proc/sys` say, does no harm.
pub(super) fn ignore_advertisements(bridge: &str) {
    let path = PathBuf::from(V6_INTERFACES).join(bridge).join("accept_ra");
    if !is(&path, "0") {
        let _: io::Result<()> = fs::write(&path, "0");
    }
}

/// Whether what bridges pass on goes through packet rules (`br_netfilter`, which Kubernetes and Docker load).
///
/// A bridge then sends on a container's packet to a published port by itself, without the host's routing,
/// and back to where it came from only if it may.
pub(super) fn bridges_are_filtered() -> bool {
    ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"]
        .iter()
        .any(|path| is(path, "1"))
}

fn is(path: impl AsRef<Path>, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}
