//! Time namespaces (time_namespaces(7), Linux 5.6).

use super::{Done, Named};
use crate::op::ClockOffset;
use crate::sys;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Makes one for processes that this one makes from here on. `/proc` must be the host's, and the files there that are
/// about this process its own.
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

/// Makes one and enters it.
pub(super) fn enter_new(clocks: &[ClockOffset]) -> Done {
    make(clocks)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let made = rustix::fs::open(c"/proc/self/ns/time_for_children", flags, Mode::empty())
        .call("open", "time namespace")?;
    move_into_link_name_space(made.as_fd(), Some(LinkNameSpaceType::Time)).call("setns", "time namespace")
}
