//! Interfaces of the host that are moved to a container (runtime specification, "Network Devices").

use super::link::{self, Step};
use super::netlink::Netlink;
use super::{NetworkError, kernel, within};
use rustix::fd::BorrowedFd;

/// Moves the interface `name` of this network namespace into another one, where it is called `inside`, keeps its
/// permanent global addresses, and is up.
///
/// It is not moved back here: at the end of the namespace the kernel returns hardware interfaces to the host, and
/// removes all others.
///
/// # Errors
/// [`NetworkError::NoDevice`] when the interface does not exist, or is loopback.
pub fn move_device(namespace: BorrowedFd<'_>, name: &str, inside: &str) -> Result<(), NetworkError> {
    let mut netlink = Netlink::open_route().map_err(kernel("open a routing socket"))?;
    let index = link::find(&mut netlink, name)
        .map_err(kernel("look for the network device"))?
        .filter(|index| *index != link::LOOPBACK)
        .ok_or_else(|| NetworkError::NoDevice(name.to_owned()))?;
    let addresses = link::lasting_addresses(&mut netlink, index).map_err(kernel("list addresses"))?;
    link::carry_out(&mut netlink, &[link::give_away(index, inside, namespace)])?;
    within(namespace, || {
        let mut netlink = Netlink::open_route().map_err(kernel("open a routing socket"))?;
        let what = "look for the network device in the container";
        let index = link::find(&mut netlink, inside).map_err(kernel(what))?;
        let index = index.ok_or_else(|| NetworkError::NoDevice(inside.to_owned()))?;
        // Only interfaces that are up keep IPv6 addresses.
        let mut steps: Vec<Step> = vec![link::bring_up("bring up the network device", index)];
        steps.extend(addresses.into_iter().map(|address| address.give(index)));
        link::carry_out(&mut netlink, &steps)
    })?
}
