//! Names in networks of users: a name server at 127.0.0.11 in each container, which knows the other ones.
//!
//! ```text
//! container's program ──► 127.0.0.11:53 in its namespace ◄── kiln-dns ──► servers of the host
//!                              │ same sockets                   │
//!                           monitor ──── dns/socket ────────────┘
//! ```
//!
//! A separate process, `kiln-dns`, serves all containers of a state directory: monitors keep to one thread and little
//! memory. The first container that [joins](Names::join) starts it, and it ends with the last one. A monitor creates
//! the sockets inside the container's namespace, and passes them to the process: so only containers can ask it, it
//! needs no address on a network, and answers never leave the namespace.
//!
//! The monitor keeps the sockets open as well. When the process dies, queries wait in them, and the monitors, which
//! see their connections close, start another process (a lock lets one of several win) and pass their sockets again
//! ([`Names::revive`]). A query about a container leaves its socket only after the answer was sent, so none of these
//! is lost. When a monitor dies, the process goes on as long as the container's program runs, and the next monitor of
//! the container takes the sockets back from it.
//!
//! ```text
//! network-<inode>/dns/
//!     lock            locked by the process
//!     socket          its socket for monitors of the same user
//!     members/ID      names and addresses of a container, as JSON, with pid and start time of its user
//! ```
//!
//! Names of containers are answered from these files; everything else goes to the container's servers or those of the
//! host, byte for byte, from a new port and with a new id each time. The process is in the host's network namespace:
//! it reaches servers on the host's loopback, such as the stub of systemd-resolved, which knows the domains of a VPN.
//! There is no cache, since the servers have one.
//!
//! - `zone` answers, pure; the protocol is that of the crate `domain`
//! - `upstream` servers of the host, and which of them do not answer
//! - `member` files of members, `sockets` sockets in containers
//! - `names` the monitor's side, `process` start of the process, `serve` its loop

mod member;
mod names;
mod process;
mod serve;
mod sockets;
mod upstream;
mod zone;

pub use member::{Member, Membership};
pub use names::Names;

use serde::{Deserialize, Serialize};

/// Messages of a monitor to the process, each of which is replied to.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Serves the two sockets that come with the message, for the member with this id.
    Join { id: String },
    /// Returns the sockets of a member whose monitor was killed; this one takes its part.
    Take { id: String },
    /// Reads the member's file again.
    Update,
    /// Closes the member's sockets, and forgets its names.
    Leave,
}

/// Replies of the process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    Done,
    /// There is no such member.
    Absent,
}
