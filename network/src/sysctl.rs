//! Kernel settings of this host that networks of containers need.

use super::{NetworkError, file};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const V4_FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const V6_FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const V6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// True when this host supports IPv6 and has not disabled it.
pub(super) fn has_ipv6() -> bool {
    is("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0")
}

/// Version of the internet protocol.
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

/// Interfaces of this network namespace without loopback.
pub(super) fn interfaces() -> Vec<String> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !matches!(name.as_str(), "all" | "default" | "lo")).collect()
}

/// True when the host forwards packets between interfaces.
pub(super) fn is_forwarding(version: Version) -> bool {
    is(version.forwarding(), "1")
}

/// Enables forwarding between interfaces on the host.
///
/// A host that forwards IPv6 ignores router advertisements, and removes the default route from one, except where
/// `accept_ra` is 2. So interfaces that have accepted them until now are set to 2.
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

/// Disables forwarding on the host.
pub(super) fn stop_forwarding(version: Version) -> Result<(), NetworkError> {
    let path = version.forwarding();
    fs::write(path, "0").map_err(file("write", path))
}

/// Makes the host ignore router advertisements from a bridge: a container must not set the host's default route. The
/// setting matters only where packets are not forwarded, so a failure, as on a read-only `/proc/sys`, does no harm.
pub(super) fn ignore_advertisements(bridge: &str) {
    let path = PathBuf::from(V6_INTERFACES).join(bridge).join("accept_ra");
    if !is(&path, "0") {
        let _: io::Result<()> = fs::write(&path, "0");
    }
}

/// True when packet rules apply to packets that bridges forward (`br_netfilter`, which Kubernetes and Docker load).
///
/// A bridge then forwards a container's packet to a published port by itself, without the host's routing, and back to
/// the same container only if its port is in hairpin mode.
pub(super) fn bridges_are_filtered() -> bool {
    ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"]
        .iter()
        .any(|path| is(path, "1"))
}

/// True when kernel settings of networks can be changed.
pub(super) fn is_writable() -> bool {
    let access = rustix::fs::Access::WRITE_OK;
    rustix::fs::access(V4_FORWARDING, access).is_ok()
}

fn is(path: impl AsRef<Path>, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}
