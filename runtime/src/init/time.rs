//! Time namespaces (time_namespaces(7), Linux 5.6).

use super::{Done, Named};
use crate::op::ClockOffset;
use crate::sys;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Creates a time namespace for future children of this process. `/proc` must be the host's, and its entries for this
/// process must be writable.
pub(crate) fn make(clocks: &[ClockOffset]) -> Done {
    const OFFSETS: &str = "/proc/self/timens_offsets";
    sys::unshare(libc::CLONE_NEWTIME as u64).call("unshare", "time namespace")?;
    for clock in clocks {
        let line = format!("{} {} {}", clock.clock, clock.seconds, clock.nanoseconds);
        std::fs::write(OFFSETS, line)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .call("write", OFFSETS)?;
    }
    Ok(())
}

/// Creates a time namespace and enters it.
pub(super) fn enter_new(clocks: &[ClockOffset]) -> Done {
    make(clocks)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let made = rustix::fs::open(c"/proc/self/ns/time_for_children", flags, Mode::empty())
        .call("open", "time namespace")?;
    move_into_link_name_space(made.as_fd(), Some(LinkNameSpaceType::Time)).call("setns", "time namespace")
}
