//! Waiting to be started, by another process than the one that made the container.
//!
//! The gate is a listening socket in the directory of the container's state, opened before the container's root
//! was. Whoever starts the container connects, says go, and is told from there on what goes wrong; the
//! connection is closed by exec. Unlike a FIFO nothing here waits for somebody who is dead.

use super::{Done, Init, Named, Status, word};
use crate::op::FdSlot;
use rustix::io::Errno;
use rustix::net::SocketFlags;

impl Init {
    pub(super) fn wait_at_gate(&mut self, slot: FdSlot) -> Done {
        self.gate = Some(rustix::io::fcntl_dupfd_cloexec(self.slot(slot)?, 3).call("dup", "gate")?);
        // Others may be in the container while it waits: they find nothing of the host here.
        self.let_go().call("close_range", "")?;
        self.send(&Status::Created, None);
        let Some(gate) = self.gate.take() else { return Ok(()) };
        loop {
            let connection = match rustix::net::accept_with(&gate, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                other => other.call("accept", "gate")?,
            };
            // Whoever connects and goes away without a word has only looked.
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
