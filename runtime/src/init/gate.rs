//! Wait of a created container for its start by another process.
//!
//! The gate is a listening socket in the directory of the container's state, opened before the container's root was
//! entered. The process that starts the container connects, sends the message to continue, and receives errors from
//! there on; the connection is closed by exec. Unlike with a FIFO, no process here waits for a dead one.

use super::{Done, Init, Named, Status, word};
use crate::op::FdSlot;
use rustix::io::Errno;
use rustix::net::SocketFlags;

impl Init {
    pub(super) fn wait_at_gate(&mut self, slot: FdSlot) -> Done {
        self.gate = Some(rustix::io::fcntl_dupfd_cloexec(self.slot(slot)?, 3).call("dup", "gate")?);
        // Other processes may be in the container while it waits: they must not reach file descriptors of the host
        // here.
        self.let_go().call("close_range", "")?;
        self.send(&Status::Created, None);
        let Some(gate) = self.gate.take() else { return Ok(()) };
        loop {
            let connection = match rustix::net::accept_with(&gate, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                other => other.call("accept", "gate")?,
            };
            // A process that connects and closes without a message only checked the gate.
            if let Ok(Some(state)) = word::receive(&connection) {
                if !state.is_empty() {
                    self.state = state;
                }
                self.status = connection;
                return Ok(());
            }
        }
    }
}
